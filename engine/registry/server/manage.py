"""The registry's users, from a shell on its host: `python -m engine.registry.server.manage --root DIR COMMAND`.

    add NAME [--group GROUP]... [--admin]    the password is read from standard input, or asked for
    change NAME [--group GROUP]... [--admin | --no-admin] [--password]
    remove NAME
    list

The first user closes the registry: from then on only public repositories are open to everyone. A running registry
heeds changes at once.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from engine.errors import EngineError
from engine.registry.server.access.accounts import Accounts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.registry.server.manage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, required=True, help="where the registry keeps everything")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("add", "change", "remove"):
        command = commands.add_parser(name)
        command.add_argument("name")
        if name != "remove":
            command.add_argument("--group", action="append", dest="groups", help="may be given several times")
            command.add_argument("--admin", action=argparse.BooleanOptionalAction, default=None)
        if name == "change":
            command.add_argument("--password", action="store_true", help="ask for a new one")
    commands.add_parser("list")
    options = parser.parse_args(arguments)
    try:
        if not options.root.is_dir():
            raise EngineError(f"{options.root} is no folder: start the registry once, or make it")
        _do(Accounts(options.root), options)
    except (EngineError, OSError) as error:
        print(f"registry: {error}", file=sys.stderr)
        return 1
    return 0


def _do(accounts: Accounts, options: argparse.Namespace) -> None:
    if options.command == "list":
        for name, user in sorted(accounts.users().items()):
            print("\t".join((name, ",".join(user.groups), "admin" if user.admin else "")).rstrip())
    elif options.command == "remove":
        accounts.remove(options.name)
    elif options.command == "add":
        accounts.add(options.name, _password(options.name), tuple(options.groups or ()), admin=bool(options.admin))
    else:
        accounts.change(
            options.name,
            password=_password(options.name) if options.password else None,
            groups=tuple(options.groups) if options.groups is not None else None,
            admin=options.admin,
        )


def _password(name: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {name}: ")
    return sys.stdin.readline().rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
