"""A service's page: what runs where, how the last rollout went host by host, and every release to go back to."""

from __future__ import annotations

import functools

from pipeline.protocol import HostStep, StepState
from pipeline.views import ServiceView
from server.conductor import Conductor
from server.pages.attention import of_replicas, of_rollout
from server.pages.view import Load, View

_RELEASES = 50


def loads(name: str) -> Load:
    return functools.partial(load, name=name)


def load(conductor: Conductor, *, name: str) -> View:
    store = conductor.store
    service = store.get_service(name)
    releases = store.past_releases(name, limit=_RELEASES)
    steps = store.steps(service.rollout.id) if service.rollout else []
    values = {
        "service": service,
        "releases": releases,
        "rolled": next((each for each in releases if service.rollout and each.id == service.rollout.release), None),
        "failed_steps": failed_steps(service, steps),
        "go_back": conductor.earlier_release(name),
        "notices": list(of_replicas(service)),
        "told": next(of_rollout(service), None),
    }
    return View("service", ("head", "rollout", "hosts", "releases"), values)


def failed_steps(service: ServiceView, steps: list[HostStep]) -> list[HostStep]:
    """What a host could not do, in order, beside what the rollout's reason says already."""
    said = service.rollout.reason if service.rollout else ""
    return [step for step in steps if step.state is StepState.FAILED and step.error not in said]
