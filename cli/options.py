"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

from cli.errors import UsageError
from cli.layout import Address
from pipeline.settings import default_data


class _AddressType(click.ParamType[Address]):
    """`HOST:PORT`, `[IPv6]:PORT`."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        host, colon, port = str(value).rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is not an address: write HOST:PORT, such as 127.0.0.1:7700", param, ctx)
        return Address(host.strip("[]"), int(port))


ADDRESS = _AddressType()


REGISTRY_ROOT = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: default_data() / "registry",
    help="Where the registry keeps everything.  [default: /var/lib/shipway/registry for root]",
)


def stage_of(target: str, example: str) -> tuple[int, str]:
    """The run and the stage that RUN/STAGE names. Raises UsageError."""
    run, slash, stage = target.partition("/")
    if not slash or not run.isdecimal():
        raise UsageError(f"{target!r} names no stage: write RUN/STAGE, such as {example}")
    return int(run), stage
