from __future__ import annotations

import pytest

from engine.containers.hostconfig import HostConfig
from engine.containers.netfiles import extra_hosts, hosts, resolv
from engine.errors import InvalidInput

HOST = "# by hand\nnameserver 127.0.0.53\nnameserver 10.1.1.1 # near\nsearch lan example.org\noptions ndots:2\n"


def test_the_hosts_file() -> None:
    text = hosts([("db", "10.0.0.9")], ["10.0.0.2", "10.1.0.2"], "web", "example.org")
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("10.0.0.9\tdb\n10.0.0.2\tweb.example.org web\n10.1.0.2\tweb.example.org web\n")


@pytest.mark.parametrize(
    ("entry", "pair"),
    [
        ("db:10.0.0.1", ("db", "10.0.0.1")),
        ("db=::1", ("db", "::1")),
        ("db:::1", ("db", "::1")),
        ("db:[::1]", ("db", "::1")),
        ("up:host-gateway", ("up", "10.9.9.1")),
    ],
)
def test_added_hosts(entry: str, pair: tuple[str, str]) -> None:
    assert extra_hosts([entry], "10.9.9.1") == [pair]


@pytest.mark.parametrize(
    ("host", "servers", "expected"),
    [
        ({}, (), "nameserver 10.1.1.1\nsearch lan example.org\noptions ndots:2\n"),
        ({}, ("10.2.2.2",), "nameserver 10.2.2.2\nsearch lan example.org\noptions ndots:2\n"),
        (
            {"dns": ["1.1.1.1"], "dns_search": ["."], "dns_options": ["rotate"]},
            (),
            "nameserver 1.1.1.1\noptions rotate\n",
        ),
    ],
)
def test_resolvers(host: dict[str, list[str]], servers: tuple[str, ...], expected: str) -> None:
    assert resolv(HostConfig(**host), servers, HOST) == expected


@pytest.mark.parametrize(("options", "last"), [([], "ndots:2"), (["rotate"], "rotate ndots:0")])
def test_the_engines_own_resolver_stands_before_all_others(options: list[str], last: str) -> None:
    text = resolv(HostConfig(dns=["1.1.1.1"], dns_options=options), ("10.2.2.2",), HOST, own="127.0.0.11")
    assert text == f"nameserver 127.0.0.11\nsearch lan example.org\noptions {last}\n"


def test_a_host_with_only_its_own_resolver_gives_public_ones() -> None:
    assert "8.8.8.8" in resolv(HostConfig(), (), "nameserver ::1\nnameserver 127.0.0.1\n")


@pytest.mark.parametrize(
    "setting", [{"dns": ["1.1.1.1\nnameserver 6.6.6.6"]}, {"dns_search": ["a\0b"]}, {"dns_options": ["x\r"]}]
)
def test_settings_can_not_add_lines(setting: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInput, match="line breaks"):
        resolv(HostConfig(**setting), (), "")
