"""Beside rules of other programs: they stay as they are, and where they are in the way the engine says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from engine.config import EngineConfig
from engine.network import Networks, Pool, PortMapping, Wishes, doctor
from tests import needs

from .conftest import HOST, HOST6, ONE, OUTSIDE, OUTSIDE6, TWO, Namespace, Namespaces, Servers, command, inside

pytestmark = pytest.mark.kernel

DOCKERS = """*filter
:FORWARD DROP
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
"""
POLICY = (
    'table inet other { chain forward { type filter hook forward priority 0; policy drop; iifname "lan" accept; }; }'
)
REJECTION = """table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept;
ct state established,related accept; counter reject with icmpx admin-prohibited; }; }"""


@pytest.fixture(
    params=[
        pytest.param("iptables", marks=needs.programs("iptables-restore")),
        "policy",
        "rejection",
    ]
)
def wall(request: pytest.FixtureRequest) -> Iterator[str]:
    """What others have put in the way; the rules, as their own tool shows them."""
    if request.param == "iptables":
        for tool in ("iptables-restore", "ip6tables-restore"):
            subprocess.run([tool], input=DOCKERS, text=True, check=True, capture_output=True)
    else:
        rules = POLICY if request.param == "policy" else REJECTION
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    yield request.param
    command("nft flush ruleset")


def shell(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True)


def rules_of_others(config: EngineConfig) -> str:
    tables = [line for line in command("nft list tables").splitlines() if config.nft_table not in line]
    return "".join(command(f"nft -s list {line}") for line in tables)


async def test_walls_of_others_are_told_and_left_alone(
    config: EngineConfig, namespaces: Namespaces, servers: Servers, outside: Namespace, wall: str
) -> None:
    rules = rules_of_others(config)
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    try:
        await networks.create("both", wishes=Wishes(ipv6=Pool()))
        one, two = namespaces(), namespaces()
        endpoint = await networks.attach("both", ONE, one.path, ports=[PortMapping(80)])
        await networks.attach("both", TWO, two.path)
        servers(one, "web")
        servers(outside, "world")
        with pytest.raises(OSError, match=r"timed out|No route|refused|unreachable"):
            await inside(one, OUTSIDE, 80, 0.2)
        assert rules_of_others(config) == rules

        warnings = await networks.warnings()
        assert len(warnings) == (2 if wall == "iptables" else 1)
        assert all("drops what goes from containers" in warning for warning in warnings)
        for warning in warnings:
            for line in warning.partition("let it through: ")[2].split("; "):
                shell(line)
        assert await networks.warnings() == []
        assert [one.name for one in doctor.inspect(config) if not one.ok and one.name == "forwarding"] == []
        for far, host in ((OUTSIDE, HOST), (OUTSIDE6, HOST6)):
            assert (await inside(one, far, 80)).startswith("world ")
            assert await inside(outside, host, endpoint.ports[0].host_port) == f"web {far}"
        assert (await inside(two, endpoint.ip, 80)).startswith("web ")
        rules = rules_of_others(config)
    finally:
        await networks.close()
    assert rules_of_others(config) == rules


async def test_a_host_whose_rules_are_open(networks: Networks) -> None:
    command("nft add table inet other")
    command("nft add chain inet other forward { type filter hook forward priority 0 ; policy accept ; }")
    command("nft add rule inet other forward tcp dport 25 drop")
    try:
        assert await networks.warnings() == []
    finally:
        command("nft delete table inet other")


def test_what_the_doctor_tells(config: EngineConfig) -> None:
    told = {finding.name: finding for finding in doctor.inspect(config)}
    assert set(told) == {"forwarding", "ipv6", "resolvers", "addresses"}
    assert told["forwarding"].ok
    assert not any(finding.required for finding in told.values())
    assert "256 free subnets in 172.20.0.0/14" in told["addresses"].detail


def test_a_host_without_ipv6(config: EngineConfig) -> None:
    """Its kernel has no settings for it: as ours would look without."""
    program = f"""
import asyncio
from pathlib import Path
from engine.config import EngineConfig
from engine.network import Networks, Pool, Wishes, doctor

async def main():
    config = EngineConfig(data_root=Path({str(config.data_root)!r}), exec_root=Path({str(config.exec_root)!r}))
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    made = await networks.create("both", wishes=Wishes(ipv6=Pool()))
    print(bool(made.subnet), bool(made.subnet6), *[one.ok for one in doctor.inspect(config) if one.name == "ipv6"])
    await networks.close()

asyncio.run(main())
"""
    hidden = 'mount -t tmpfs none /proc/sys/net/ipv6 && ip link set lo up && exec "$@"'
    shown = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", hidden, "-", sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.stdout.split() == ["True", "False", "False"]
