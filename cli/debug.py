"""`shipway debug`: a shell in what a stage left."""

from __future__ import annotations

import signal
import socket
from contextlib import closing, nullcontext, suppress
from functools import partial
from typing import Any

import click
import docker
from docker.errors import APIError, ImageNotFound, NotFound
from requests.exceptions import RequestException

from cli import terminal
from cli.api import Api, me
from cli.engine import opened
from cli.errors import CommandError
from cli.options import stage_of
from pipeline.settings import load_settings


@click.command()
@click.argument("target", metavar="RUN/STAGE")
@click.option("--shell", default="/bin/sh", show_default=True, help="What to start in it.")
def debug(target: str, shell: str) -> int:
    """A shell in the snapshot of a stage's container, or in the image that it built.

    It is a container of its own, removed when the shell ends; the snapshot stays as it is. Snapshots are on the worker
    that ran the stage: give the command there. Without a terminal the shell reads lines from stdin. Ends with the
    shell's exit code.

    \b
    Example: shipway debug 12/unit
             echo 'cat /tmp/report.xml' | shipway debug 12/unit
    """
    image, worker = _image(*stage_of(target, "12/unit"))
    address = load_settings().engine
    nobody = f"no engine answers at {address}: set SHIPWAY_ENGINE to the worker's"
    with opened(lambda: docker.DockerClient(address), nobody, f"the engine at {address} went away") as api:
        try:
            api.inspect_image(image)
        except ImageNotFound:
            raise CommandError(
                f"{image[:19]} of {target} is on worker {worker}, not in the engine at {address}:"
                " give this command on its host, or set SHIPWAY_ENGINE to its engine"
            ) from None
        return _shell(api, image, shell, target)


def _image(run: int, name: str) -> tuple[str, str]:
    """What the stage left, and the worker that has it. Raises CommandError."""
    stages = {stage["name"]: stage for stage in Api().get(f"/runs/{run}")["stages"]}
    if name not in stages:
        raise CommandError(f'there is no stage "{name}" in run {run}: use one of {", ".join(stages)}')
    stage = stages[name]
    image = stage["outputs"]["snapshot"] or stage["outputs"]["image_id"]
    if image:
        attempts = stage["attempts"]
        return image, (attempts[-1]["worker"] if attempts else None) or "of an earlier run"
    if stage["kind"] in ("test", "run"):
        raise CommandError(
            f"{run}/{name} left no snapshot: it is {stage['state']}; set `snapshot: true` and run it again"
        )
    raise CommandError(f"{run}/{name} left no image: it is a {stage['kind']} stage, and {stage['state']}")


def _shell(api: Any, image: str, shell: str, target: str) -> int:
    on_terminal = terminal.is_terminal()
    for ending in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(ending) is signal.SIG_DFL:  # not behind nohup
            signal.signal(ending, signal.default_int_handler)
    container = api.create_container(
        image,
        entrypoint=[shell],
        command=[],
        tty=on_terminal,
        stdin_open=True,
        labels={"shipway.debug": target, "shipway.debug.by": me()},
        host_config=api.create_host_config(security_opt=["no-new-privileges"]),
    )["Id"]
    try:
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        with closing(_socket(api.attach_socket(container, params=streams))) as connection:
            api.start(container)
            resize = partial(_resize, api, container)
            with terminal.raw(resize) if on_terminal else nullcontext():
                terminal.pump(connection, framed=not on_terminal)
        return int(api.wait(container)["StatusCode"])
    finally:
        with suppress(NotFound, RequestException):
            api.remove_container(container, force=True, v=True)


def _socket(attached: Any) -> socket.socket:
    """docker-py gives a reader around the socket; nothing was read yet: the container has not started."""
    found: socket.socket = getattr(attached, "_sock", attached)
    return found


def _resize(api: Any, container: str, lines: int, columns: int) -> None:
    with suppress(APIError, RequestException):
        api.resize(container, height=lines, width=columns)
