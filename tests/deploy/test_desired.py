from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.desired import Desired, Records
from deploy.errors import Busy
from deploy.releases import Target
from pipeline.services import NamedService

ROOT = Path(__file__).resolve().parents[2]


def desired(service: str = "web", release: str = "web-1") -> Desired:
    target = Target(service=NamedService(name=service, replicas=2, secrets=("TOKEN",)), release=release, image="i@d")
    return Desired(target=target, serving=target.names)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "services")


def calm() -> None:
    return


def test_what_was_written_is_read(records: Records):
    assert records.read("web") is None
    assert records.services() == []
    records.write(desired())
    records.write(desired("api", "api-3"))
    records.write(desired(release="web-2"))
    assert records.read("web") == desired(release="web-2")
    assert records.services() == ["api", "web"]
    records.forget("web")
    records.forget("web")
    assert records.read("web") is None
    assert records.services() == ["api"]


def test_only_its_owner_can_look(records: Records, tmp_path: Path):
    records.write(desired())
    assert stat.S_IMODE((tmp_path / "services").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "services").iterdir()] == ["web.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"target": 1}', '{"serving": ["web-1-1"]}', "\0\xff"])
def test_what_can_not_be_understood_is_nothing(records: Records, tmp_path: Path, text: str):
    records.write(desired())
    (tmp_path / "services" / "web.json").write_text(text, encoding="latin-1")
    assert records.read("web") is None
    records.write(desired())
    assert records.read("web") == desired()


def test_one_at_a_time(records: Records):
    with records.lock("web", check=calm, timeout=1.0):
        with pytest.raises(Busy, match="web is being changed on this host by somebody else"):
            records.lock("web", check=calm, timeout=0.05).__enter__()
        with records.lock("api", check=calm, timeout=0.0):
            pass
    with records.lock("web", check=calm, timeout=0.0):
        pass
    assert records.services() == [], "a lock is no record"


def test_whoever_waits_can_be_told_to_stop(records: Records):
    def check() -> None:
        raise InterruptedError("the lease is lost")

    with records.lock("web", check=calm, timeout=1.0), pytest.raises(InterruptedError):
        records.lock("web", check=check, timeout=60.0).__enter__()


def test_a_killed_holder_lets_go(records: Records, tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from deploy.desired import Records\n"
        "with Records(Path(sys.argv[1])).lock('web', check=lambda: None, timeout=5.0):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "services")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy):
            records.lock("web", check=calm, timeout=0.0).__enter__()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with records.lock("web", check=calm, timeout=5.0):
        pass
