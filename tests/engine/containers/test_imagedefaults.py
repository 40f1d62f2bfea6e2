from __future__ import annotations

from typing import Any

import pytest

from engine.containers import environment
from engine.containers.imagedefaults import apply, argv
from engine.containers.model import ContainerConfig, HealthConfig
from engine.errors import InvalidInput
from engine.images.config import ContainerConfig as ImageConfig
from engine.images.config import Healthcheck

IMAGE = ImageConfig(
    user="app",
    env=("A=image", "B=image"),
    entrypoint=("/entry",),
    cmd=("default",),
    working_dir="/app",
    labels={"a": "image", "b": "image"},
    exposed_ports={"80/tcp": {}},
    volumes={"/data": {}},
    stop_signal="SIGINT",
    healthcheck=Healthcheck(test=("CMD", "probe"), interval=5, retries=2),
)


def applied(image: ImageConfig = IMAGE, **config: Any) -> ContainerConfig:
    return apply(ContainerConfig(**config), image)


def test_the_image_speaks_where_the_user_is_silent() -> None:
    made = applied()
    assert (made.user, made.working_dir, made.stop_signal) == ("app", "/app", "SIGINT")
    assert argv(made) == ["/entry", "default"]
    assert made.healthcheck == HealthConfig(test=["CMD", "probe"], interval=5, retries=2)


def test_the_user_wins() -> None:
    made = applied(
        user="0", env=["B=mine", "C=mine", "A"], labels={"a": "mine"}, working_dir="/rel//./", stop_signal="9"
    )
    assert (made.user, made.working_dir, made.stop_signal) == ("0", "/rel", "9")
    assert made.env == ["B=mine", "C=mine", "A"], "a name without a value takes the image's away"
    assert made.labels == {"a": "mine", "b": "image"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"cmd": ["mine"]}, ["/entry", "mine"]),
        ({"entrypoint": ["/other"]}, ["/other"]),
        ({"entrypoint": ["/other"], "cmd": ["mine"]}, ["/other", "mine"]),
        ({"entrypoint": [], "cmd": ["mine"]}, ["mine"]),
        ({"entrypoint": [""], "cmd": ["mine"]}, ["mine"]),
    ],
)
def test_entrypoints_and_commands(config: dict[str, Any], expected: list[str]) -> None:
    assert argv(applied(**config)) == expected


def test_nothing_to_run() -> None:
    with pytest.raises(InvalidInput, match="no command specified"):
        applied(ImageConfig())
    with pytest.raises(InvalidInput, match="no command specified"):
        applied(entrypoint=[""])


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (HealthConfig(test=["NONE"]), HealthConfig(test=["NONE"])),
        (HealthConfig(interval=9), HealthConfig(test=["CMD", "probe"], interval=9, retries=2)),
        (HealthConfig(test=["CMD", "mine"]), HealthConfig(test=["CMD", "mine"], interval=5, retries=2)),
    ],
)
def test_health_checks(own: HealthConfig, expected: HealthConfig) -> None:
    assert applied(healthcheck=own).healthcheck == expected


def test_environments() -> None:
    assert environment.merge(["A=1", "B=2"], ["B=3", "C=", "A", "=x"]) == ["B=3", "C="]
    assert environment.complete(["HOME=/h"], hostname="n", home="/x", tty=False) == [
        f"PATH={environment.PATH}",
        "HOSTNAME=n",
        "HOME=/h",
    ]
    for env in ([], ["HOME="]):
        assert environment.complete(env, hostname="n", home="/x", tty=True)[2:] == ["TERM=xterm", "HOME=/x"]
