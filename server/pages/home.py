"""The page for everything: what needs somebody, what runs where, what happened last."""

from __future__ import annotations

from server.conductor import Conductor
from server.pages.attention import notices
from server.pages.view import View

_RUNS = 30


def load(conductor: Conductor) -> View:
    store = conductor.store
    services, runs, hosts = store.list_services(), store.list_runs(limit=_RUNS), store.hosts()
    values = {
        "services": services,
        "runs": runs,
        "hosts": hosts,
        "notices": notices(services, runs, hosts, broker_ok=conductor.broker_ok),
        "go_back": {service.name: conductor.earlier_release(service.name) for service in services},
        "more": len(runs) == _RUNS,
    }
    return View("home", ("attention", "services", "runs", "hosts"), values)
