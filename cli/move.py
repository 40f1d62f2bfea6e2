"""`shipway move`: a container goes to another engine."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import click
import docker

from cli.api import Api
from cli.engine import opened
from cli.errors import CommandError, UsageError
from cli.output import json_option, print_json
from pipeline.settings import load_settings

_FILES = {"Authority": "ca.pem", "Certificate": "cert.pem", "Key": "key.pem"}


@click.command()
@click.argument("container")
@click.argument("host", required=False)
@click.option("--keep", is_flag=True, help="Copy it: the container stays here, too.")
@click.option("--no-start", is_flag=True, help="Do not start it there.")
@click.option("--use-volumes", is_flag=True, help="Take volumes that are there already as they are.")
@click.option("--abort", is_flag=True, help="Call a move off, as long as CONTAINER can't run there yet.")
@click.option("--force", is_flag=True, help="With --abort: run it here whatever happened there.")
@json_option
def move(
    container: str,
    host: str | None,
    keep: bool,
    no_start: bool,
    use_volumes: bool,
    abort: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Move CONTAINER with its files, volumes and networks to the engine at HOST, a DOCKER_HOST or a worker's name.

    It runs here until nearly all is copied, and only one of the two ever runs it. What fails leaves it here. The engine
    that has it is the one at DOCKER_HOST or SHIPWAY_ENGINE.

    \b
    Example: shipway move web tcp://web2.example.com:2376
             shipway move web web2 --no-start
             shipway move --abort web
    """
    with _engine() as api:
        if abort:
            _refuse_with_abort(host, keep, no_start, use_volumes)
            _abort(api, container, force=force)
            click.echo(f"{container} stays here", err=as_json)
            return
        if host is None or force:
            raise UsageError("--force goes with --abort" if host else "say where to: shipway move CONTAINER HOST")
        address = _address(host)
        wish = {
            "Host": address,
            "Tls": _tls() if address.startswith("tcp://") else None,
            "Copy": keep,
            "Start": not no_start,
            "UseVolumes": use_volumes,
        }
        told = _follow(api, container, wish, quiet=as_json)
    if as_json:
        print_json(told)


def _refuse_with_abort(host: str | None, *options: bool) -> None:
    if host is not None or any(options):
        raise UsageError("--abort takes the container alone: shipway move --abort CONTAINER")


def _engine() -> AbstractContextManager[Any]:
    address = os.environ.get("DOCKER_HOST") or load_settings().engine
    return opened(
        lambda: docker.from_env() if "DOCKER_HOST" in os.environ else docker.DockerClient(address),
        nobody=f"no engine answers at {address}: start one with `shipway engine`, as root",
        gone=f"the engine at {address} went away: `docker ps -a` shows what has become of the move once it is back",
    )


def _address(host: str) -> str:
    """Of an engine: what is no address is a worker's name."""
    if "://" in host:
        return host
    for worker in Api().get("/workers")["workers"]:
        if worker["name"] == host:
            known = str(worker.get("address") or "")
            if not known:
                raise CommandError(f"no address is known of {host}'s engine: give it, such as tcp://{host}:2376")
            return known if "://" in known else f"tcp://{known}:2376"
    raise CommandError(
        f"there is no worker {host}: `shipway workers` lists them; or give an address, such as tcp://HOST:2376"
    )


def _tls() -> dict[str, str] | None:
    """As docker's own: files below DOCKER_CERT_PATH, where DOCKER_TLS_VERIFY asks for them."""
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    try:
        return {name: (folder / file).read_text() for name, file in _FILES.items()}
    except OSError as error:
        raise CommandError(
            f"{error.filename}: {error.strerror}: DOCKER_CERT_PATH must have ca.pem, cert.pem, key.pem"
        ) from None


def _follow(api: Any, container: str, wish: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Shows what is being done; returns what came of it."""
    url = api._url("/containers/{0}/move", container)
    last: dict[str, Any] = {}
    with closing(api.post(url, json=wish, stream=True, timeout=None)) as answer:
        _check(api, answer)
        for line in answer.iter_lines():
            last = json.loads(line)
            if "error" in last:
                raise CommandError(last["error"])
            if not quiet:
                click.echo(last["status"])
    if "aux" not in last:
        raise CommandError("the engine ended in the middle of the move: `docker ps -a` on both sides shows where it is")
    found: dict[str, Any] = last["aux"]
    return found


def _abort(api: Any, container: str, *, force: bool) -> None:
    url = api._url("/containers/{0}/move/abort", container)
    _check(api, api.post(url, params={"force": int(force)}))


def _check(api: Any, answer: Any) -> None:
    if answer.status_code == 404 and "page not found" in answer.text:
        raise CommandError("the engine here is not Shipway's: it can't move containers")
    api._raise_for_status(answer)
