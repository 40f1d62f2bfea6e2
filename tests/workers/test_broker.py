from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
import redis

from workers.broker import Broker, BrokerError, stop

pytestmark = pytest.mark.redis


def client(broker: Broker) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(broker.unix_socket))


def test_starts_answers_and_stops(broker: Broker):
    with client(broker) as connection:
        assert connection.ping()
    assert stat.S_IMODE(broker.unix_socket.stat().st_mode) == 0o600


def test_what_was_written_survives_a_kill(short_path: Path):
    broker = Broker(short_path / "data", short_path / "b.sock")
    process = broker.start()
    with client(broker) as connection:
        connection.rpush("queue", "hint")
    process.kill()
    process.wait()
    assert not broker.ready()
    process = broker.start()
    try:
        with client(broker) as connection:
            assert connection.lrange("queue", 0, -1) == [b"hint"]
    finally:
        stop(process)
        stop(process)


def test_the_port_asks_for_the_password(short_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broker = Broker(short_path / "data", short_path / "b.sock", ("127.0.0.1", port))
    process = broker.start()
    try:
        with (
            redis.Redis(port=port) as stranger,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            stranger.ping()
        with redis.Redis.from_url(broker.remote_url) as known:
            assert known.ping()
        assert stat.S_IMODE(broker.config.stat().st_mode) == 0o600
    finally:
        stop(process)


def test_a_socket_path_too_long_is_refused(tmp_path: Path):
    with pytest.raises(BrokerError, match="longer than a socket's path"):
        Broker(tmp_path, tmp_path / ("x" * 120)).prepare()
