from __future__ import annotations

import json
import socket

import pytest
import redis

from workers.broker import Broker
from workers.dispatch import BrokerDown, Dispatcher

pytestmark = pytest.mark.redis


def test_hints_arrive_in_their_queues_as_json(broker: Broker):
    dispatcher = Dispatcher(broker.url)
    try:
        assert dispatcher.attempt("r1-image-1", {}) == "any"
        assert dispatcher.attempt("r1-unit-1", {"role": "web"}) == "label.role.web"
        dispatcher.step(7, "alpha")
        assert dispatcher.depths(["any", "label.role.web", "steps.alpha", "host.alpha"]) == {
            "any": 1,
            "label.role.web": 1,
            "steps.alpha": 1,
            "host.alpha": 0,
        }
        with redis.Redis(unix_socket_path=str(broker.unix_socket)) as client:
            message = json.loads(client.lindex("steps.alpha", 0))
        assert message["content-type"] == "application/json"
        assert message["headers"]["task"] == "shipway.step"
    finally:
        dispatcher.close()


def test_a_broker_that_is_down_is_said_so():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        dispatcher = Dispatcher(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(BrokerDown):
            dispatcher.attempt("r1-image-1", {})
        dispatcher.close()
