"""`python -m workers`, and the command `shipway worker`."""

from __future__ import annotations

import logging
import os
import shutil
import sys

import click

from pipeline.errors import SettingsError
from pipeline.settings import load_settings


@click.command()
@click.option("--metrics", default="127.0.0.1:7701", show_default=True, metavar="HOST:PORT", help="/metrics, /readyz.")
@click.option("--clear-traffic", is_flag=True, help="Take this host's traffic rules away at the end.")
@click.option("--debug", is_flag=True, help="Say more.")
def worker(metrics: str, clear_traffic: bool, debug: bool) -> None:
    """Run a worker: it takes stages from the queues, and does this host's part of rollouts.

    \b
    Settings come from SHIPWAY_* or /etc/shipway/config.yaml.
    Example: SHIPWAY_SERVER_URL=http://10.0.0.1:7700 SHIPWAY_WORKER_LABELS=role=web shipway worker
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    try:
        settings = load_settings()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    host, _, port = metrics.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter("write HOST:PORT, such as 127.0.0.1:7701", param_hint="--metrics")

    from workers.place import metrics_folder

    folder = metrics_folder(settings)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    # Read by prometheus-client when it is imported, here and in the stage process.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)

    from workers.agent import Agent

    try:
        agent = Agent(settings, (host.strip("[]"), int(port)), clear_traffic=clear_traffic)
    except OSError as error:
        raise click.ClickException(f"{metrics}: {error.strerror}: choose another --metrics address") from None
    agent.run()
    sys.stdout.flush()


if __name__ == "__main__":
    worker()
