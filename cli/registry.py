"""`shipway registry`: the embedded registry alone; and what is in a registry, and what of it may go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.api import Api
from cli.errors import CommandError, UsageError
from cli.layout import Address
from cli.options import ADDRESS, REGISTRY_ROOT
from cli.output import ago, json_option, print_json, print_table
from cli.registryusers import user
from engine.errors import EngineError
from pipeline.settings import load_settings

if TYPE_CHECKING:
    from deploy.housekeeping import Housekeeping

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_HOLDER = "shipway"
_UNFINISHED = ("queued", "running")
_WAY_BACK = frozenset({"rolling", "live", "superseded"})


@click.group(invoke_without_command=True)
@click.option("--listen", type=ADDRESS, default="127.0.0.1:7750", show_default=True)
@REGISTRY_ROOT
@click.option("--certificate", type=_FILE, help="Serve TLS with this chain (PEM).")
@click.option("--key", type=_FILE, help="The certificate's private key, where it is not in the same file.")
@click.option("--realm", metavar="URL", help="/v2/token as clients see it, where a proxy stands before the registry.")
@click.option(
    "--keep",
    type=click.IntRange(1),
    help="Collect all but so many tags of each repository, but for young ones and what is held.  [default: all stay]",
)
@click.option("--keep-days", type=click.FloatRange(0), default=7.0, show_default=True, help="What --keep calls young.")
@click.option("--collect-every", type=click.FloatRange(0), default=3600.0, show_default=True, metavar="SECONDS")
@click.pass_context
def registry(
    context: click.Context,
    listen: Address,
    root: Path,
    certificate: Path | None,
    key: Path | None,
    realm: str | None,
    keep: int | None,
    keep_days: float,
    collect_every: float,
) -> None:
    """Run the registry: any OCI client can push to it and pull from it.

    The commands below look at any registry, and delete from it.

    \b
    Example: shipway registry --listen 10.0.0.1:7750
             shipway registry tags web
    """
    if context.invoked_subcommand is not None:
        return
    from engine.registry.server.app import Upkeep, serve, tls_of
    from engine.registry.server.storage.collect import Rule

    upkeep = Upkeep(collect_every, Rule(keep=keep, age=keep_days * 86400))
    try:
        tls = tls_of(certificate, key)
        asyncio.run(serve(listen.host, listen.port, root, tls=tls, upkeep=upkeep, realm=realm))
    except (EngineError, OSError) as error:
        raise CommandError(f"the registry cannot serve on {listen}: {error}") from None


registry.add_command(user)


def _asks_registry(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Calls the command with the registry that the options name, before its own parameters."""

    @click.option("--at", "url", metavar="URL", help="The registry.  [default: the settings' registry_url]")
    @click.option("--username", "-u")
    @click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    @click.option("--token-url", default="", metavar="URL", help="Where it has its tokens from, if it wants any.")
    @click.option("--cacert", type=click.Path(exists=True, dir_okay=False), help="An authority to trust.")
    @click.option("--insecure", is_flag=True, help="Any certificate will do.")
    @wraps(command)
    def asking(
        url: str | None,
        username: str | None,
        password_stdin: bool,
        token_url: str,
        cacert: str | None,
        insecure: bool,
        **options: Any,
    ) -> int | None:
        if password_stdin != (username is not None):
            raise UsageError("--username and --password-stdin go together")
        password = sys.stdin.readline().rstrip("\n") if password_stdin else None
        verify = not insecure and (cacert or True)
        with _connected(url, username, password, token_url, verify) as housekeeping:
            return command(housekeeping, **options)

    return asking


@contextmanager
def _connected(
    url: str | None, username: str | None, password: str | None, token_url: str, verify: bool | str
) -> Iterator[Housekeeping]:
    from deploy.housekeeping import Housekeeping
    from deploy.registryclient import HousekeepingError, RegistryClient

    client = RegistryClient(
        url or load_settings().registry_url,
        username=username,
        password=password,
        token_url=token_url,
        verify=verify,
    )
    try:
        yield Housekeeping(client)
    except HousekeepingError as error:
        raise CommandError(str(error)) from None
    finally:
        client.close()


@registry.command("list")
@_asks_registry
@json_option
def list_repositories(housekeeping: Housekeeping, as_json: bool) -> None:
    """The repositories, and how many tags each has.

    Example: shipway registry list
    """
    found = {name: housekeeping.names(name) for name in housekeeping.repositories()}
    if as_json:
        print_json({"repositories": [{"name": name, "tags": tags} for name, tags in found.items()]})
        return
    print_table(["REPOSITORY", "TAGS"], [(name, len(tags)) for name, tags in found.items()])


@registry.command()
@click.argument("repository")
@_asks_registry
@json_option
def tags(housekeeping: Housekeeping, repository: str, as_json: bool) -> None:
    """The tags of REPOSITORY, the newest image first.

    Example: shipway registry tags web
    """
    images = housekeeping.images(repository)
    if not images:
        raise CommandError(f"{repository} has no tags: see `shipway registry list`")
    images.sort(key=lambda image: -(image.created or 0.0))
    if as_json:
        print_json({"images": [{"digest": i.digest, "tags": i.tags, "created": i.created} for i in images]})
        return
    print_table(["TAG", "DIGEST", "CREATED"], [(", ".join(i.tags), i.digest, ago(i.created)) for i in images])


@registry.command()
@click.argument("repository")
@click.option("--private", is_flag=True, help="To its group alone again.")
@_asks_registry
def publish(housekeeping: Housekeeping, repository: str, private: bool) -> None:
    """Show REPOSITORY to everyone, who may then find it and pull from it.

    Example: shipway registry publish team/app --username ada --password-stdin
    """
    housekeeping.publish(repository, public=not private)
    click.echo(f"{repository} is seen by {'its group' if private else 'everyone'}")


@registry.command()
@click.option(
    "--releases",
    type=click.IntRange(1),
    help="Hold what each service's newest releases refer to.  [default: all of them]",
)
@_asks_registry
def hold(housekeeping: Housekeeping, releases: int | None) -> None:
    """Tell the registry what releases and unfinished runs refer to: its own collection then keeps that.

    `prune` does so too.

    Example: shipway registry hold
    """
    held = _referred_to(Api(), releases)
    if not housekeeping.hold(_HOLDER, held):
        raise CommandError("this registry holds nothing: only the embedded one can")
    click.echo(f"{len(held)} image{'s' * (len(held) != 1)} held")


_FORCE = click.option("--force", is_flag=True, help="Do not ask the server what releases and runs refer to.")


@registry.command()
@click.argument("references", nargs=-1, required=True, metavar="REPOSITORY:TAG|REPOSITORY@DIGEST...")
@_FORCE
@_asks_registry
def delete(housekeeping: Housekeeping, references: tuple[str, ...], force: bool) -> None:
    """Delete tags, each image with its last tag; or an image with all its tags.

    An image that a release or an unfinished run refers to is not deleted, unless with --force.

    Example: shipway registry delete web:v1
    """
    named = [_parsed(reference) for reference in references]
    held = frozenset() if force else _referred_to(Api(), None)
    for reference, (repository, tag, digest) in zip(references, named, strict=True):
        if force and (named_digest := digest or housekeeping.digest(repository, tag)):
            housekeeping.let_go(_HOLDER, named_digest)
        if digest:
            gone = housekeeping.delete(repository, digest, held=held)
        else:
            gone = housekeeping.untag(repository, tag, held=held)
        if not gone:
            raise CommandError(f"{reference}: there is no such thing: see `shipway registry tags {repository}`")
        click.echo(f"{reference} is deleted")


@registry.command()
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY...]")
@click.option("--all", "everywhere", is_flag=True, help="In every repository.")
@click.option("--keep", default=10, show_default=True, type=click.IntRange(1), help="Images, in each repository.")
@click.option(
    "--releases",
    type=click.IntRange(1),
    help="Keep what each service's newest releases refer to.  [default: all of them]",
)
@click.option("--dry-run", is_flag=True, help="Only tell.")
@_FORCE
@_asks_registry
@json_option
def prune(
    housekeeping: Housekeeping,
    repositories: tuple[str, ...],
    everywhere: bool,
    keep: int,
    releases: int | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Delete old images, but for the newest, and those that releases and unfinished runs refer to.

    An image of unknown age stays. The registry frees the space when it collects its garbage.

    \b
    Exit code 1: the registry did not want to delete some.
    Example: shipway registry prune --all --keep 20 --dry-run
    """
    if bool(repositories) == everywhere:
        raise UsageError("name the repositories to prune, or say --all")
    names = housekeeping.repositories() if everywhere else repositories
    # Before the server is asked: what is released meanwhile is none of these, or in the answer.
    images = {name: housekeeping.images(name) for name in names}
    held = frozenset() if force else _referred_to(Api(), releases)
    if not force and not dry_run:
        _hold(housekeeping, held)
    pruned = {
        name: housekeeping.prune(name, found, keep=keep, keep_digests=held, dry_run=dry_run)
        for name, found in images.items()
    }
    rows = [(name, image) for name, each in pruned.items() for image in each.deleted]
    refused = {digest: why for each in pruned.values() for digest, why in each.refused.items()}
    if as_json:
        deleted = [{"repository": name, "digest": i.digest, "tags": i.tags, "created": i.created} for name, i in rows]
        print_json({"deleted": deleted, "refused": refused, "dry_run": dry_run})
    else:
        print_table(
            ["REPOSITORY", "TAGS", "DIGEST", "CREATED"],
            [(name, ", ".join(image.tags), image.digest[:19], ago(image.created)) for name, image in rows],
        )
        click.echo(f"{len(rows)} image{'s' * (len(rows) != 1)} {'would be ' if dry_run else ''}deleted")
        for why in refused.values():
            click.echo(why, err=True)
    return 1 if refused else 0


def _hold(housekeeping: Housekeeping, held: frozenset[str]) -> None:
    """For the registry's own collection. What goes now goes without it too."""
    from deploy.registryclient import HousekeepingError

    try:
        housekeeping.hold(_HOLDER, held)
    except HousekeepingError as error:
        click.echo(f"the registry's own collection is not told what is in use: {error}", err=True)


def _parsed(reference: str) -> tuple[str, str, str]:
    """(repository, tag, digest); tag or digest is empty. Raises UsageError."""
    from deploy.registryclient import DIGEST, NAME, TAG

    repository, at, digest = reference.partition("@")
    tag = ""
    if not at:
        repository, _, tag = reference.partition(":")
    good = DIGEST.fullmatch(digest) if at else TAG.fullmatch(tag)
    if not good or not NAME.fullmatch(repository):
        raise UsageError(f"{reference!r}: write REPOSITORY:TAG or REPOSITORY@DIGEST, such as web:v1")
    return repository, tag, digest


def _referred_to(api: Api, releases: int | None) -> frozenset[str]:
    """The digests that the server has use for: of releases (of each service's live one and its newest that can be
    returned to, with `releases`), and of what unfinished runs have pushed."""
    found: set[str | None] = set()
    for service in api.get("/services")["services"]:
        found.add((service.get("release") or {}).get("digest"))
        known = api.get(f"/services/{service['name']}/releases", limit=500)["releases"]
        if releases is not None:
            known = [release for release in known if release["state"] in _WAY_BACK][:releases]
        found.update(release["digest"] for release in known)
    for run in api.get("/runs", limit=500, state=list(_UNFINISHED))["runs"]:
        found.update(stage["outputs"]["digest"] for stage in run["stages"])
    return frozenset(digest for digest in found if digest)
