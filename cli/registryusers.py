"""`shipway registry user`: who may log in to the embedded registry, from a shell on its host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import CommandError
from cli.options import REGISTRY_ROOT
from cli.output import json_option, print_json, print_table
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.registry.server.access.accounts import Accounts


@click.group()
def user() -> None:
    """Who may log in to the registry, and which groups they are in.

    The first user closes the registry: from then on only public repositories are open to everyone. A running
    registry heeds changes at once. `team/app` belongs to the group `team`, and to the user of that name.

    \b
    Example: shipway registry user add ada --group team
             shipway registry publish team/app
    """


_GROUPS = click.option("--group", "groups", multiple=True, metavar="GROUP", help="May be given several times.")


@user.command()
@click.argument("name")
@_GROUPS
@click.option("--admin", is_flag=True, help="May do everything, everywhere.")
@REGISTRY_ROOT
def add(name: str, groups: tuple[str, ...], admin: bool, root: Path) -> None:
    """Add NAME. The password is asked for, or read from standard input.

    Example: shipway registry user add ada --group team
    """
    with _accounts(root) as accounts:
        accounts.add(name, _password(name), groups, admin=admin)
    click.echo(f"{name} is added")


@user.command()
@click.argument("name")
@_GROUPS
@click.option("--no-groups", is_flag=True, help="In none any more.")
@click.option("--admin/--no-admin", default=None, help="Whether they may do everything, everywhere.")
@click.option("--password", "anew", is_flag=True, help="Ask for another password, or read it from standard input.")
@REGISTRY_ROOT
def change(name: str, groups: tuple[str, ...], no_groups: bool, admin: bool | None, anew: bool, root: Path) -> None:
    """Change NAME: groups (all of them anew), password, administration.

    Example: shipway registry user change ada --group team --group tools
    """
    with _accounts(root) as accounts:
        accounts.change(
            name,
            password=_password(name) if anew else None,
            groups=groups if groups or no_groups else None,
            admin=admin,
        )
    click.echo(f"{name} is changed")


@user.command()
@click.argument("name")
@REGISTRY_ROOT
def remove(name: str, root: Path) -> None:
    """Remove NAME. Their repositories stay.

    Example: shipway registry user remove ada
    """
    with _accounts(root) as accounts:
        accounts.remove(name)
    click.echo(f"{name} is removed")


@user.command("list")
@REGISTRY_ROOT
@json_option
def list_(root: Path, as_json: bool) -> None:
    """All users.

    Example: shipway registry user list
    """
    with _accounts(root) as accounts:
        users = sorted(accounts.users().items())
    if as_json:
        print_json({"users": [{"name": name, "groups": each.groups, "admin": each.admin} for name, each in users]})
        return
    print_table(
        ["USER", "GROUPS", "ADMIN"],
        [(name, ", ".join(each.groups), "yes" if each.admin else "") for name, each in users],
    )


@contextmanager
def _accounts(root: Path) -> Iterator[Accounts]:
    from engine.registry.server.access.accounts import Accounts

    if not root.is_dir():
        raise CommandError(f"{root} is no folder: start the registry once, or name another --root")
    try:
        yield Accounts(root)
    except (EngineError, OSError) as error:
        raise CommandError(str(error)) from None


def _password(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")
