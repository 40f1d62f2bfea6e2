"""`shipway registry`: the embedded registry alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from cli.errors import CommandError
from cli.layout import Address
from cli.options import ADDRESS
from engine.errors import EngineError
from pipeline.settings import default_data


@click.command()
@click.option("--listen", type=ADDRESS, default="127.0.0.1:7750", show_default=True)
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: default_data() / "registry",
    help="Where everything is kept.  [default: /var/lib/shipway/registry for root]",
)
def registry(listen: Address, root: Path) -> None:
    """Run the registry: any OCI client can push to it and pull from it.

    Example: shipway registry --listen 10.0.0.1:7750
    """
    from engine.registry.server.app import serve

    try:
        asyncio.run(serve(listen.host, listen.port, root))
    except (EngineError, OSError) as error:
        raise CommandError(f"the registry cannot serve on {listen}: {error}") from None
