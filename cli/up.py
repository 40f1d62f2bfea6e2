"""`shipway up`: the whole system on this machine, in the foreground."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import click

from cli.errors import CommandError
from cli.layout import Address, Layout
from cli.options import ADDRESS
from cli.preflight import problems
from cli.supervise import Supervisor
from cli.system import parts
from pipeline.settings import default_data


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_data,
    help="Where everything is kept.  [default: /var/lib/shipway for root]",
)
@click.option("--listen", type=ADDRESS, default="127.0.0.1:7700", show_default=True, help="The server.")
@click.option("--registry", type=ADDRESS, default="127.0.0.1:7750", show_default=True, help="The registry.")
@click.option("--metrics", type=ADDRESS, default="127.0.0.1:7701", show_default=True, help="The worker's.")
@click.option("--broker", "broker_url", metavar="URL", help="A Redis to use instead of the bundled one.")
def up(data: Path, listen: Address, registry: Address, metrics: Address, broker_url: str | None) -> None:
    """Run the whole system on this machine: engine, broker, registry, server and one worker.

    \b
    Ctrl-C stops all of it.
    Example: shipway up --data /srv/shipway
    """
    layout = Layout(data.absolute(), listen, registry, metrics, broker_url)
    found = problems(layout)
    if found:
        raise CommandError("nothing was started:\n  " + "\n  ".join(found))
    # A shell starts what it puts into the background with SIGINT ignored; whoever sends one means it.
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, signal.default_int_handler)
    supervisor = Supervisor(click.echo)
    try:
        for part, where in parts(layout, os.environ):
            took = supervisor.start(part)
            click.echo(f"{part.name:<9} {where:<52} {took * 1000:5.0f} ms")
        click.echo(f"up: {layout.server_url}  (Ctrl-C stops it)")
        supervisor.watch()
    except KeyboardInterrupt:
        click.echo("stopping")
    finally:
        supervisor.stop()
        _tidy(layout.run)


def _tidy(run: Path) -> None:
    """Removes what is of use only while something runs; with the engine's zygote there, containers still do."""
    if not any((run / name).exists() for name in ("zygote.sock", "engine.sock")):
        shutil.rmtree(run, ignore_errors=True)
