"""Options that several commands take."""

from __future__ import annotations

import click

from cli.layout import Address


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
