"""An engine that a command talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from cli.errors import CommandError


@contextmanager
def opened(make: Callable[[], docker.DockerClient], nobody: str, gone: str) -> Iterator[Any]:
    """The API of the engine. `nobody` is what to say if none answers there, `gone` if it stops answering."""
    try:
        client = make()
    except (DockerException, RequestException):
        raise CommandError(nobody) from None
    with closing(client):
        try:
            yield client.api
        except APIError as error:
            raise CommandError(str(error.explanation or error)) from None
        except RequestException:
            raise CommandError(gone) from None
