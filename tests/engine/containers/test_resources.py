from __future__ import annotations

from dataclasses import fields, replace

import pytest

from engine.containers import resources
from engine.containers.hostconfig import HostConfig, Limits
from engine.containers.model import from_json
from engine.errors import InvalidInput
from engine.kernel.cgroup.offered import Offered, numbers

ALL = Offered("v1", frozenset(), **{each.name: True for each in fields(Offered) if each.type == "bool"})  # type: ignore[arg-type]
WISHES = {
    "Memory": 64 << 20,
    "MemoryReservation": 32 << 20,
    "MemorySwappiness": 10,
    "OomKillDisable": True,
    "PidsLimit": 5,
    "CpuShares": 512,
    "CpuQuota": 5000,
    "CpusetCpus": "0",
    "BlkioWeight": 300,
    "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}],
}


def test_a_host_that_can_limit_everything_discards_nothing() -> None:
    limits = from_json(HostConfig, WISHES)
    assert resources.discard(limits, ALL) == []
    assert limits == from_json(HostConfig, WISHES)


@pytest.mark.parametrize(
    ("lack", "field", "words"),
    [
        ("memory", "memory", "memory limit capabilities"),
        ("reservation", "memory_reservation", "memory soft limit capabilities"),
        ("swappiness", "memory_swappiness", "Memory swappiness discarded"),
        ("oom_kill_disable", "oom_kill_disable", "OomKillDisable discarded"),
        ("pids", "pids_limit", "PIDs limit discarded"),
        ("cpu_shares", "cpu_shares", "Shares discarded"),
        ("cpu_quota", "cpu_quota", "CPU period/quota discarded"),
        ("cpuset", "cpuset_cpus", "Cpuset discarded"),
        ("io_weight", "blkio_weight", "Weight discarded"),
        ("io_limits", "blkio_device_read_bps", "Block I/O limits discarded"),
    ],
)
def test_what_a_host_lacks_is_left_out_with_a_word(lack: str, field: str, words: str) -> None:
    limits = from_json(HostConfig, WISHES)
    (warning,) = resources.discard(limits, replace(ALL, **{lack: False}))
    assert words in warning
    assert not getattr(limits, field)


def test_a_swappiness_that_nobody_asked_for_is_no_wish() -> None:
    limits = Limits(memory_swappiness=-1)
    assert resources.discard(limits, replace(ALL, swappiness=False)) == []


def test_without_an_account_of_swap_memory_is_limited_alone() -> None:
    limits = Limits(memory=64 << 20, memory_swap=128 << 20)
    (warning,) = resources.discard(limits, replace(ALL, swap=False))
    assert "Memory limited without swap" in warning
    assert (limits.memory, limits.memory_swap) == (64 << 20, -1)


@pytest.mark.parametrize(("text", "found"), [("", set()), ("0", {0}), ("0-2,4", {0, 1, 2, 4}), ("3\n", {3})])
def test_lists_of_processors(text: str, found: set[int]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize("text", ["0-4000000000", "4000000000", "0-65535,0", "1_0", "+1", "1 ", "x", "2-x", "\u0661"])
def test_what_is_no_list_of_processors_is_refused_at_once(text: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid value"):
        resources.validate(Limits(cpuset_cpus=text))
