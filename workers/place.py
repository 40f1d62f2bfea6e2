"""Where one worker keeps what: worked out from the settings in one place."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deploy.traffic.nftables import DEFAULT_TABLE, NftTraffic
from pipeline.settings import Settings, default_data
from workers.broker import Broker


def work_folder(settings: Settings) -> Path:
    """Workspaces, artifacts, and the record of what this host should run."""
    return settings.data / "worker" / settings.worker_name


def ready_file(settings: Settings) -> Path:
    """There while the stage process takes hints."""
    return work_folder(settings) / "stages.ready"


def metrics_folder(settings: Settings) -> Path:
    return work_folder(settings) / "metrics"


def broker_url(settings: Settings) -> str:
    """The broker of the settings, else the bundled one on this machine."""
    if settings.broker_url:
        return settings.broker_url
    run = Path("/run/shipway") if settings.data == default_data() else settings.data / "broker"
    return Broker(settings.data / "broker", run / "broker.sock").url


def traffic_table(settings: Settings) -> str:
    """Several systems on one machine have a table each."""
    if settings.data == default_data():
        return DEFAULT_TABLE
    mark = hashlib.sha256(str(settings.data.absolute()).encode()).hexdigest()[:8]
    return f"{DEFAULT_TABLE}_{mark}"


def traffic_of(settings: Settings) -> NftTraffic:
    return NftTraffic(traffic_table(settings))
