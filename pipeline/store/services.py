"""Services as they are shown: the release that is live, the latest rollout, the hosts."""

from __future__ import annotations

from sqlalchemy import Connection, select

from pipeline.services import NamedService
from pipeline.store import tables as t
from pipeline.store.context import Context, known_hosts
from pipeline.store.releases import get_release
from pipeline.store.rows import AnyRow, one, rollout_of
from pipeline.values import matches_labels
from pipeline.views import HostReplicas, ServiceView


def list_services(connection: Connection, context: Context) -> list[ServiceView]:
    rows = connection.execute(select(t.services).order_by(t.services.c.name))
    return [_view(connection, context, row) for row in rows.all()]


def get_service(connection: Connection, context: Context, service: str) -> ServiceView:
    row = one(connection, t.services, f"service {service}", t.services.c.name == service)
    return _view(connection, context, row)


def _view(connection: Connection, context: Context, row: AnyRow) -> ServiceView:
    spec = NamedService.model_validate_json(row.spec)
    rollout = connection.execute(
        select(t.rollouts).where(t.rollouts.c.service == row.name).order_by(t.rollouts.c.id.desc()).limit(1)
    ).first()
    hosts = []
    for host in known_hosts(connection, context, {}):
        replicas = tuple(replica for replica in host.replicas if replica.service == row.name)
        if matches_labels(spec.hosts, host.labels) or replicas:
            hosts.append(HostReplicas(host=host.name, online=host.state == "online", replicas=replicas))
    return ServiceView(
        name=row.name,
        repository=row.repository,
        spec=spec,
        release=get_release(connection, row.live) if row.live else None,
        rollout=rollout_of(connection, rollout) if rollout is not None else None,
        hosts=tuple(hosts),
    )
