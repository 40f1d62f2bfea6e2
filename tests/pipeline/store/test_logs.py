"""The bound on one attempt's log."""

from __future__ import annotations

from pathlib import Path

from pipeline.protocol import LogLine
from pipeline.store import open_store
from tests.pipeline.store.line import Clock, Line, stage

BOUND = 64 * 1024


def lines(first: int, count: int) -> list[LogLine]:
    """Each takes 128 bytes."""
    return [LogLine(seq=seq, time=1.5, text=f"{seq:064}") for seq in range(first, first + count)]


def test_head_and_tail_of_a_large_log_stay(url: str, clock: Clock, tmp_path: Path) -> None:
    with open_store(url, log_size=BOUND, clock=clock) as store:
        line = Line(store, clock, tmp_path)
        line.worker("w1")
        run = line.begin(stage("a"))
        claim = line.claim(run, "a")
        seen = 0
        for first in range(0, 5000, 50):
            for _ in range(2):  # the answer to the first request was lost
                store.append_logs(claim.attempt, claim.token, lines(first, 50))
            found = store.read_logs(run, "a", limit=5000)
            assert (len(found) - 1) * 128 <= BOUND
            assert found[-1].id > seen
            seen = found[-1].id
        # What is gone does not come back.
        store.append_logs(claim.attempt, claim.token, lines(2000, 50))
        assert store.read_logs(run, "a", limit=5000) == found
    seqs = [each.seq for each in found]
    mark = next(place for place, each in enumerate(found) if each.stream == "system")
    assert seqs[: mark + 1] == list(range(mark + 1))
    assert seqs[mark + 1 :] == list(range(seqs[mark + 1], 5000))
    assert mark * 128 >= BOUND // 4
    assert (len(found) - mark) * 128 >= BOUND // 2
    cut = seqs[mark + 1] - mark
    assert found[mark].text.startswith(f"… {cut} lines ({cut * 128 / 2**20:.1f} MiB) are left out here")
    assert [each.id for each in found] == sorted(each.id for each in found)
