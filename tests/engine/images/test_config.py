from __future__ import annotations

import json

import msgspec
import pytest

from engine.errors import InvalidInput
from engine.images.config import ContainerConfig, Healthcheck, History, ImageConfig

DIFF = "sha256:" + "a" * 64


def test_unknown_keys_survive_and_null_is_absent() -> None:
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "docker_version": "1.2",
        "config": {"Env": ["A=b"], "Cmd": None, "Custom": {"x": 1}, "Labels": None, "Shell": "sh"},
        "rootfs": {"type": "layers", "diff_ids": [DIFF]},
        "history": None,
    }
    config = ImageConfig.decode(json.dumps(raw).encode())
    assert config.config.env == ("A=b",)
    assert config.config.cmd is None
    assert config.config.shell == ("sh",)
    written = json.loads(config.encode())
    assert written["docker_version"] == "1.2"
    assert written["config"]["Custom"] == {"x": 1}
    assert ImageConfig.decode(config.encode()) == config


def test_no_entrypoint_differs_from_an_empty_one() -> None:
    for entrypoint in (None, (), ("sh",)):
        config = ImageConfig(config=ContainerConfig(entrypoint=entrypoint))
        assert ImageConfig.decode(config.encode()).config.entrypoint == entrypoint


def test_docker_key_names() -> None:
    config = ContainerConfig(
        exposed_ports={"80/tcp": {}},
        on_build=("RUN x",),
        working_dir="/w",
        stop_signal="TERM",
        healthcheck=Healthcheck(("NONE",), start_period=5),
    )
    written = json.loads(ImageConfig(config=config).encode())["config"]
    assert written == {
        "ExposedPorts": {"80/tcp": {}},
        "OnBuild": ["RUN x"],
        "WorkingDir": "/w",
        "StopSignal": "TERM",
        "Healthcheck": {"Test": ["NONE"], "StartPeriod": 5},
    }


def test_with_layers() -> None:
    config = ImageConfig().with_layers([DIFF], History(created_by="x"))
    assert config.rootfs.diff_ids == (DIFF,)
    assert config.chain_ids == [DIFF]
    assert len(config.with_layers([DIFF]).chain_ids) == 2
    assert msgspec.structs.replace(config, author="me").author == "me"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"rootfs":{"type":"base"}}',
        b'{"rootfs":{"diff_ids":["x"]}}',
        b'{"config":{"Env":3}}',
        b'{"author":"\xff"}',
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        ImageConfig.decode(data)
