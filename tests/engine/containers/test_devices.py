from __future__ import annotations

import pytest

from engine.containers import devices
from engine.containers.hostconfig import DeviceMapping
from engine.errors import InvalidInput
from engine.runtime.spec import LinuxDevice, LinuxDeviceCgroup


def test_everything_is_denied_first_and_then_little_allowed() -> None:
    first, *rest = devices.rules([], privileged=False)
    assert first == LinuxDeviceCgroup(allow=False, access="rwm")
    usable = {(rule.major, rule.minor) for rule in rest if "r" in rule.access}
    assert usable == {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)}
    assert devices.rules([], privileged=True) == [LinuxDeviceCgroup(allow=True, access="rwm")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c 1:3 r", LinuxDeviceCgroup(True, "c", 1, 3, "r")),
        ("b *:* rwm", LinuxDeviceCgroup(True, "b", None, None, "rwm")),
        ("a 7:* m", LinuxDeviceCgroup(True, "a", 7, None, "m")),
    ],
)
def test_rules(text: str, expected: LinuxDeviceCgroup) -> None:
    assert devices.parse_rule(text) == expected


@pytest.mark.parametrize(
    "text", ["", "c 1:3", "c 1:3 x", "c 1:3 rwmr", "d 1:3 r", "c -1:3 r", "c 1:3 r ", "c \u0661:3 r"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(InvalidInput, match="c 1:3 rwm"):
        devices.parse_rule(text)


def test_a_device_of_the_host() -> None:
    nodes, allowed = devices.mapped([DeviceMapping("/dev/zero", "/dev/nought", "rw")])
    assert [(node.path, node.type, node.major, node.minor) for node in nodes] == [("/dev/nought", "c", 1, 5)]
    assert allowed == [LinuxDeviceCgroup(True, "c", 1, 5, "rw")]


@pytest.mark.parametrize(
    "mapping",
    [
        DeviceMapping("/dev/nothing"),
        DeviceMapping("/etc/passwd"),
        DeviceMapping("/dev/null", "dev/null"),
        DeviceMapping("/dev/null", "/dev/../etc/x"),
        DeviceMapping("/dev/null", "/dev/x", "rwx"),
    ],
)
def test_what_is_no_device(mapping: DeviceMapping) -> None:
    with pytest.raises(InvalidInput):
        devices.mapped([mapping])


def test_a_privileged_container_sees_the_hosts_devices() -> None:
    nodes = devices.all_of_host()
    assert all(isinstance(node, LinuxDevice) for node in nodes)
    assert not {"/dev/null", "/dev/tty", "/dev/ptmx"} & {node.path for node in nodes}
