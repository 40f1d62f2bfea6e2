from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from engine.errors import Conflict, InvalidInput
from engine.network.addresses import (
    Addresses,
    choose_subnet,
    choose_subnet6,
    link_local_for,
    mac_for,
    parse_mac,
    parse_pools,
)


def test_pools_in_both_spellings() -> None:
    assert parse_pools("172.20.0.0/14") == [(IPv4Network("172.20.0.0/14"), 22)]
    assert parse_pools("base=10.8.0.0/16,size=24;base=10.9.0.0/24,size=20") == [
        (IPv4Network("10.8.0.0/16"), 24),
        (IPv4Network("10.9.0.0/24"), 24),
    ]
    with pytest.raises(InvalidInput, match=r"10\.300"):
        parse_pools("10.300.0.0/16")


def test_a_subnet_that_overlaps_nothing_in_use() -> None:
    pools = parse_pools("base=10.0.0.0/22,size=24")
    used = [IPv4Network("10.0.0.128/25"), IPv4Network("10.0.1.0/24"), IPv4Network("10.0.3.7/32")]
    assert choose_subnet(pools, used) == IPv4Network("10.0.2.0/24")
    with pytest.raises(Conflict, match="fully subnetted"):
        choose_subnet(pools, [IPv4Network("10.0.0.0/8")])


def test_an_ipv6_subnet_of_the_engines_own() -> None:
    first = choose_subnet6("one", [IPv4Network("10.0.0.0/8")])
    assert (first.prefixlen, first.is_private, str(first)[:2]) == (64, True, "fd")
    second = choose_subnet6("one", [first])
    assert (second != first, second.supernet(new_prefix=48)) == (True, first.supernet(new_prefix=48))
    assert choose_subnet6("two", []).supernet(new_prefix=48) != first.supernet(new_prefix=48)


def test_ipv6_addresses() -> None:
    pool = Addresses(IPv6Network("fd01::/64"), [IPv6Address("fd01::1"), IPv6Address("fd01::3")])
    assert [str(pool.take()) for _ in range(2)] == ["fd01::2", "fd01::4"]
    assert str(pool.take("fd01:0::ff")) == "fd01::ff"
    with pytest.raises(Conflict):
        pool.take("fd01::3")
    with pytest.raises(InvalidInput, match="IPv6"):
        pool.take("10.0.0.1")
    full = Addresses(IPv6Network("fd01::/126"), [IPv6Address("fd01::1")])
    assert [str(full.take()) for _ in range(2)] == ["fd01::2", "fd01::3"]
    with pytest.raises(Conflict, match="no available IPv6"):
        full.take()


def test_addresses_go_round_and_are_never_given_twice() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"), [IPv4Address("10.0.0.1")])
    taken = [str(pool.take()) for _ in range(5)]
    assert taken == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(Conflict, match="no available"):
        pool.take()
    pool.give_back("10.0.0.2")
    pool.give_back("10.0.0.4")
    assert [str(pool.take()), str(pool.take())] == ["10.0.0.2", "10.0.0.4"]


def test_a_freed_address_is_not_the_next_one() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/24"), [IPv4Address("10.0.0.1")])
    pool.give_back(str(pool.take()))
    assert str(pool.take()) == "10.0.0.3"


def test_a_wished_address() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/24"), [IPv4Address("10.0.0.1")])
    assert str(pool.take("10.0.0.9")) == "10.0.0.9"
    with pytest.raises(Conflict):
        pool.take("10.0.0.9")
    with pytest.raises(Conflict):
        pool.take("10.0.0.1")
    with pytest.raises(InvalidInput):
        pool.take("10.0.1.1")


def test_a_range_within_the_subnet() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/16"), [IPv4Address("10.0.0.1")], IPv4Network("10.0.5.0/30"))
    assert [str(pool.take()) for _ in range(4)] == [f"10.0.5.{n}" for n in range(4)]


@pytest.mark.parametrize("text", ["", "02:42", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42:0a:00:00:0g", "x" * 17])
def test_what_is_no_hardware_address(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid MAC"):
        parse_mac(text)


def test_the_hardware_address_follows_from_the_address() -> None:
    assert mac_for("172.20.1.255") == "02:42:ac:14:01:ff"
    assert parse_mac("02-42-AC-14-01-FF") == "02:42:ac:14:01:ff"
    assert link_local_for("02:42:ac:14:01:ff") == "fe80::42:acff:fe14:1ff"
