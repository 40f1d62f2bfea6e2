"""The worker's engine: whatever speaks the Docker Engine API at SHIPWAY_ENGINE."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from urllib3.exceptions import HTTPError

from pipeline.protocol import Stream
from workers.executors.base import StageFailed

T = TypeVar("T")
_TRIES = 4
_TIMEOUT = 600
"""Seconds without a byte from the engine. A build step may be silent for long."""


def connect(url: str) -> docker.DockerClient:
    """A client of its own. Raises DockerException when nobody answers there."""
    return docker.DockerClient(base_url=url, timeout=_TIMEOUT, version="auto")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """The engine's refusals as a failed stage."""
    try:
        yield
    except APIError as error:
        refused = error.is_client_error()
        raise StageFailed(f"{what}: {error.explanation or error}", retryable=not refused) from error
    except (DockerException, requests.RequestException, HTTPError, OSError) as error:
        raise StageFailed(f"{what}: the engine can't be reached: {error}: is it running?") from error


def ensure_image(engine: docker.DockerClient, image: str, say: Callable[[str], None], check: Callable[[], None]) -> Any:
    """The image, pulled if it is not here. Raises StageFailed."""
    with suppress(ImageNotFound), explained(f"image {image}"):
        return engine.images.get(image)
    if image.startswith("sha256:"):
        raise StageFailed(f"image {image[:19]} is not on this worker: run the stage that builds it again")
    say(f"pulling {image}")
    bounded(image, partial(_pull, engine, image), say, check)
    with explained(f"image {image}"):
        return engine.images.get(image)


def _pull(engine: docker.DockerClient, image: str) -> None:
    name, at, digest = image.partition("@")
    last = name.rpartition("/")[2]
    tag = digest if at else (last.partition(":")[2] or "latest")
    repository = name if at or ":" not in last else name.rpartition(":")[0]
    for event in engine.api.pull(repository, tag=tag, stream=True, decode=True):
        if "error" in event:
            raise RegistryError(str(event["error"]))


class RegistryError(Exception):
    """The engine's words about a registry."""

    @property
    def passing(self) -> bool:
        """Whether it may be otherwise in a moment: the registry is down or overloaded, not refusing."""
        text = str(self).lower()
        refusals = ("not found", "denied", "unauthorized", "unknown", "no basic auth", "invalid", "no such image")
        return not any(word in text for word in refusals)


def bounded(what: str, work: Callable[[], Any], say: Callable[[str], None], check: Callable[[], None]) -> Any:
    """Does `work`, again after a pause while the registry can't be reached. Raises StageFailed with one line."""
    pause = 0.5
    for attempt in range(1, _TRIES + 1):
        check()
        try:
            return work()
        except (RegistryError, APIError) as error:
            problem = _registry_problem(error)
            if not problem.passing:
                raise StageFailed(f"{what}: {problem}", retryable=False) from error
            if attempt == _TRIES:
                raise StageFailed(
                    f"{what}: the registry can't be reached after {_TRIES} tries: {problem}:"
                    " start it and retry this stage"
                ) from error
            say(f"{what}: {problem}; trying again in {pause:g} s")
        except (DockerException, requests.RequestException) as error:
            raise StageFailed(f"{what}: the engine can't be reached: {error}: is it running?") from error
        _sleep(pause, check)
        pause *= 2
    raise AssertionError("unreachable")


def _registry_problem(error: RegistryError | APIError) -> RegistryError:
    return error if isinstance(error, RegistryError) else RegistryError(str(error.explanation or error))


def _sleep(seconds: float, check: Callable[[], None]) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        check()
        time.sleep(min(0.1, left))


def kill(engine: docker.DockerClient, container: str) -> None:
    """Ends its processes at once. It may be gone already."""
    with suppress(DockerException, requests.RequestException):
        engine.api.kill(container)


def discard(engine: docker.DockerClient, container: str) -> None:
    """Removes it with its volumes, whatever it does. It may be gone already."""
    for _ in range(3):
        try:
            engine.api.remove_container(container, force=True, v=True)
        except NotFound:
            return
        except (DockerException, requests.RequestException):
            time.sleep(0.1)
        else:
            return


def execute(
    engine: docker.DockerClient,
    container: str,
    command: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    user: str = "",
    workdir: str | None = None,
) -> Iterator[tuple[Stream, bytes] | int]:
    """Runs a command in a running container: its output as it comes, and at the end its exit code.

    docker-py's own exec reads the upgraded connection below the buffer that has read the answer's head, and
    loses what came with it. Without the upgrade the same frames are an ordinary body.
    """
    api: Any = engine.api
    made = api.exec_create(container, command, environment=dict(environment or {}), user=user, workdir=workdir)["Id"]
    response = api._post_json(api._url("/exec/{0}/start", made), data={"Detach": False, "Tty": False}, stream=True)
    api._raise_for_status(response)
    with closing(response):
        yield from _frames(response.raw.read)
    code = api.exec_inspect(made)["ExitCode"]
    yield 137 if code is None else int(code)


def _frames(read: Callable[[int], bytes]) -> Iterator[tuple[Stream, bytes]]:
    """Docker's multiplexed stream: one byte of stream, three of nothing, four of length, the payload."""
    while len(head := read(8)) == 8:
        left = int.from_bytes(head[4:], "big")
        while left > 0 and (data := read(min(left, 64 * 1024))):
            left -= len(data)
            yield ("stderr" if head[0] == 2 else "stdout"), data


def abort(response: requests.Response | None) -> None:
    """Cuts a stream that another thread reads: the engine sees the client go, and stops its work."""
    raw: Any = getattr(response, "raw", None)
    with suppress(Exception):
        stream = raw._fp.fp.raw
        getattr(stream, "_sock", stream).shutdown(socket.SHUT_RDWR)
