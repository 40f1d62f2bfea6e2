from __future__ import annotations

from typing import Any

import pytest

from engine.containers import resources, sharing, validation
from engine.containers.hostconfig import HostConfig, Limits, LogSettings
from engine.containers.model import ContainerConfig, NetworkingConfig, from_json
from engine.errors import InvalidInput


def check(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None) -> None:
    host_config = from_json(HostConfig, host or {})
    validation.check(from_json(ContainerConfig, config or {}), host_config)
    sharing.check(host_config)
    sharing.check_network(from_json(ContainerConfig, config or {}), host_config, NetworkingConfig())


@pytest.mark.parametrize(
    ("config", "host"),
    [
        ({}, {}),
        ({"Hostname": "x" * 63, "Env": ["A=", "B"], "StopSignal": "SIGRTMIN+3"}, {}),
        ({"ExposedPorts": {"80": {}, "53/udp": {}}}, {"PortBindings": {"80/tcp": None}}),
        ({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000}}, {}),
        ({"Healthcheck": {"Test": "NONE"}}, {}),
        ({}, {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
        ({}, {"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3", "labels": "a"}}}),
        ({}, {"Memory": 6 << 20, "MemorySwap": -1, "MemoryReservation": 6 << 20, "MemorySwappiness": 0}),
        ({}, {"Memory": 6 << 20, "MemorySwap": 6 << 20, "CpuQuota": -1, "CpusetCpus": "0-0,0"}),
        (
            {},
            {"SecurityOpt": ["label:disable", "apparmor=unconfined", "seccomp=unconfined", "no-new-privileges=false"]},
        ),
        ({}, {"PidMode": "container:x", "IpcMode": "shareable", "UsernsMode": "host", "UTSMode": "host"}),
        ({}, {"ExtraHosts": ["a:1.2.3.4", "b=::1", "c:[fe80::1]", "d:host-gateway"], "ShmSize": 1}),
        ({}, {"OomScoreAdj": -1000, "DeviceCgroupRules": ["a *:* rwm"], "Tmpfs": {"/x": "size=1"}}),
    ],
)
def test_what_makes_sense(config: dict[str, Any], host: dict[str, Any]) -> None:
    check(config, host)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"Hostname": "x" * 64}, "invalid hostname"),
    ({"Hostname": "a\nb"}, "invalid hostname"),
    ({"Env": ["=x"]}, "invalid environment variable"),
    ({"Env": ["A=\0"]}, "NUL"),
    ({"Cmd": ["a\0b"]}, "NUL"),
    ({"Entrypoint": ["\0"]}, "NUL"),
    ({"StopSignal": "SIGNOPE"}, "invalid signal"),
    ({"ExposedPorts": {"0": {}}}, "invalid port"),
    ({"ExposedPorts": {"65536/tcp": {}}}, "invalid port"),
    ({"ExposedPorts": {"80/icmp": {}}}, "invalid port"),
    ({"ExposedPorts": {"80/tcp\n": {}}}, "invalid port"),
    ({"Healthcheck": {"Test": ["RUN", "x"]}}, "Unknown type of healthcheck"),
    ({"Healthcheck": {"Test": ["CMD"]}}, "a command is missing"),
    ({"Healthcheck": {"Test": ["CMD", "x"], "Timeout": 999_999}}, "less than 1ms"),
    ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": -1}}, "less than 1ms"),
    ({"Healthcheck": {"Test": ["CMD", "x"], "Retries": -1}}, "cannot be negative"),
    ({"StopTimeout": "soon"}, "invalid JSON: .*StopTimeout"),
    ({"Labels": {"a": 1}}, "invalid JSON: .*Labels"),
]


@pytest.mark.parametrize(("config", "message"), CONFIGS, ids=[str(case[0])[:50] for case in CONFIGS])
def test_configurations_that_make_none(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        check(config)
    assert "\n" not in str(refused.value)


HOSTS: list[tuple[dict[str, Any], str]] = [
    ({"RestartPolicy": {"Name": "sometimes"}}, "unknown policy 'sometimes'"),
    ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}}, "only be used with 'on-failure'"),
    ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}}, "cannot be negative"),
    ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, "AutoRemove"),
    ({"LogConfig": {"Type": "syslog"}}, 'plugin "syslog" not found'),
    ({"LogConfig": {"Config": {"max-sise": "1m"}}}, "unknown log opt 'max-sise'"),
    ({"LogConfig": {"Config": {"max-size": "0"}}}, "invalid value for max-size"),
    ({"LogConfig": {"Config": {"max-size": "1x"}}}, "invalid value for max-size"),
    ({"LogConfig": {"Config": {"max-file": "0", "max-size": "1m"}}}, "invalid value for max-file"),
    ({"LogConfig": {"Config": {"max-file": "²", "max-size": "1m"}}}, "invalid value for max-file"),
    ({"Memory": 1}, "6MB"),
    ({"Memory": -1}, "6MB"),
    ({"MemorySwap": 1 << 30}, "should always set the Memory limit"),
    ({"Memory": 1 << 30, "MemorySwap": 1 << 20}, "larger than memory limit"),
    ({"Memory": 6 << 20, "MemoryReservation": 7 << 20}, "less than memory reservation"),
    ({"MemorySwappiness": 101}, "0-100"),
    ({"NanoCpus": 1, "CpuQuota": 5000}, "Conflicting options"),
    ({"NanoCpus": 10**15}, "range of CPUs"),
    ({"NanoCpus": -1}, "range of CPUs"),
    ({"CpuPeriod": 1}, "1ms"),
    ({"CpuQuota": 1}, "1ms"),
    ({"CpuShares": -1}, "CPU shares"),
    ({"BlkioWeight": 5}, "10 to 1000"),
    ({"CpusetCpus": "0;rm"}, "cpuset"),
    ({"CpusetMems": "x"}, "cpuset"),
    ({"SecurityOpt": ["nope"]}, "invalid --security-opt"),
    ({"SecurityOpt": ["no-new-privileges:maybe"]}, "invalid --security-opt"),
    ({"SecurityOpt": ["seccomp={"]}, "seccomp profile"),
    ({"SecurityOpt": ["seccomp=/etc/shadow"]}, "seccomp profile"),
    ({"CapAdd": ["NOPE"]}, "invalid capability"),
    ({"DeviceCgroupRules": ["x 1:1 r"]}, "device cgroup rule"),
    ({"DeviceCgroupRules": ["c 1:3 rwm\nc *:* rwm"]}, "device cgroup rule"),
    ({"Tmpfs": {"/x": "size=1\nx"}}, "tmpfs option"),
    ({"ExtraHosts": ["a"]}, "invalid IP address"),
    ({"ExtraHosts": ["a:1.2.3.4\n6.6.6.6 b"]}, "invalid IP address"),
    ({"ExtraHosts": ["a b:1.2.3.4"]}, "invalid name"),
    ({"OomScoreAdj": 1001}, "oom score"),
    ({"ShmSize": -1}, "SHM size"),
    ({"Annotations": {"": "x"}}, "annotation key"),
    ({"LogConfig": {"Type": "local", "Config": {"nope": "1"}}}, "unknown log opt 'nope' for local"),
    ({"PidMode": "container:"}, "invalid PID mode"),
    ({"PidMode": "private,host"}, "invalid PID mode: private,host$"),
    ({"IpcMode": "container"}, "invalid IPC mode"),
    ({"UTSMode": "container:x"}, "invalid UTS mode"),
    ({"UsernsMode": "container:x"}, "invalid userns mode"),
    ({"CgroupnsMode": "x"}, "invalid cgroup namespace mode"),
    ({"Binds": "x"}, "invalid JSON: .*Binds"),
]


@pytest.mark.parametrize(("host", "message"), HOSTS, ids=[str(case[0])[:50] for case in HOSTS])
def test_host_configurations_that_make_none(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        check(host=host)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (None, 1)),
        ({"max-size": "-1"}, (None, 1)),
        ({"max-file": "3"}, (None, 1)),
        ({"max-size": "1000"}, (1000, 1)),
        ({"max-size": "1.5k"}, (1536, 1)),
        ({"max-size": "10M", "max-file": "3"}, (10 << 20, 3)),
        ({"max-size": "2gib"}, (2 << 30, 1)),
    ],
)
def test_log_limits(settings: dict[str, str], expected: tuple[int | None, int]) -> None:
    assert validation.log_limits(HostConfig(log_config=LogSettings("json-file", settings))) == expected


def test_the_local_log_driver_keeps_little() -> None:
    assert validation.log_limits(HostConfig(log_config=LogSettings("local", {"max-file": "2"}))) == (20 << 20, 2)


def test_swap_is_as_much_as_memory_unless_said() -> None:
    assert resources.memory_and_swap(Limits()) is None
    assert resources.memory_and_swap(Limits(memory=5)) == 10
    assert resources.memory_and_swap(Limits(memory=5, memory_swap=-1)) == -1
    assert resources.memory_and_swap(Limits(memory=5, memory_swap=7)) == 7


@pytest.mark.parametrize(("limit", "expected"), [(None, None), (0, -1), (-1, -1), (-7, -1), (9, 9)])
def test_the_limit_of_processes(limit: int | None, expected: int | None) -> None:
    pids = resources.resources(Limits(pids_limit=limit)).pids
    assert (pids.limit if pids else None) == expected


def test_swappiness_of_zero_is_one() -> None:
    memory = resources.resources(Limits(memory_swappiness=0)).memory
    assert memory is not None
    assert memory.swappiness == 0


@pytest.mark.parametrize("path", ["/nowhere", "/dev/null", "/etc"])
def test_throttled_devices_are_block_devices(path: str) -> None:
    limits = from_json(Limits, {"BlkioDeviceReadBps": [{"Path": path, "Rate": 5}]})
    with pytest.raises(InvalidInput, match="block device"):
        resources.resources(limits)


def test_go_writes_null_and_strings_for_lists() -> None:
    config = from_json(ContainerConfig, {"Cmd": "ls", "Entrypoint": None, "Env": None, "Labels": {"Cmd": "x", "y": ""}})
    assert (config.cmd, config.entrypoint, config.env, config.labels) == (["ls"], None, [], {"Cmd": "x", "y": ""})


@pytest.mark.parametrize(
    ("config", "host"),
    [
        *((each, {}) for each in ({"Hostname": "x"}, {"MacAddress": "02:00:00:00:00:01"}, {"ExposedPorts": {"1": {}}})),
        *(({}, each) for each in ({"Links": ["a"]}, {"Dns": ["1.1.1.1"]}, {"ExtraHosts": ["a:1.1.1.1"]})),
        ({}, {"PublishAllPorts": True}),
    ],
)
def test_what_another_containers_network_settles(config: dict[str, Any], host: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="conflicting options"):
        check(config, {**host, "NetworkMode": "container:x"})
