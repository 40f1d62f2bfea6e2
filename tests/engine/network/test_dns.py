"""What a container sends to the resolver is anything."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from engine.network import dns
from engine.network.model import Endpoint, Network
from engine.network.names import Names
from engine.network.resolver import _Listener

QUERY = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0"


def listener() -> _Listener:
    network = Network("n", "Net", "bridge", 0.0, internal=True)
    network.endpoints["c" * 64] = Endpoint(
        *("e", "n", "c" * 64, "10.0.0.2", 24, "10.0.0.1", "02:42:0a:00:00:02", "eth0", "v0"),
        aliases=["db"],
        ip6="fd01::2",
    )
    return _Listener(Names({"n": network}, "c" * 64), ())


@given(some.binary(max_size=600) | some.binary(max_size=80).map(QUERY.__add__))
def test_any_message_is_answered_or_dropped(message: bytes) -> None:
    answer = listener()._answer(message)
    assert answer is not None, "from an internal network nothing is asked of others"
    question = dns.parse_question(message)
    assert bool(answer) == (question is not None)
    if question is not None:
        assert answer[:2] == message[:2]
        assert answer[12 : question.end] == message[12 : question.end]
        assert len(dns.truncated(answer, question)) == question.end
        assert dns.udp_limit(message, question) >= 512


@pytest.mark.parametrize("address", ["10.1.2.3", "fd01:2::3"])
def test_names_of_addresses(address: str) -> None:
    assert dns.reverse_address(ipaddress.ip_address(address).reverse_pointer) == address


@pytest.mark.parametrize(("name", "fits"), [("db.net", True), ("x" * 64, False), ("a..b", False), ("a." * 130, False)])
def test_names_that_fit_a_message(name: str, fits: bool) -> None:
    query = QUERY + b"\1a\0\0\x0c\0\1"
    question = dns.parse_question(query)
    assert question is not None
    assert bool(dns.answer_name(query, question, name)) == fits


@pytest.mark.parametrize("name", ["", "in-addr.arpa", "300.1.1.1.in-addr.arpa", "1.ip6.arpa", "x" * 63 + ".ip6.arpa"])
def test_names_of_no_address(name: str) -> None:
    assert dns.reverse_address(name) is None


@pytest.mark.parametrize(
    ("name", "kind", "code", "records"),
    [("DB", 1, 0, 1), ("db.net", 28, 0, 1), ("db", 16, 0, 0), ("c" * 12, 1, 0, 1), ("c" * 11, 1, 2, 0), ("x", 1, 2, 0)],
)
def test_answers(name: str, kind: int, code: int, records: int) -> None:
    asked = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    answer = listener()._answer(QUERY + asked + bytes([0, kind, 0, 1]))
    assert answer is not None
    assert (dns.response_code(answer), int.from_bytes(answer[6:8], "big")) == (code, records)
