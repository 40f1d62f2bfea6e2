from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.hostconfig import HostConfig
from engine.containers.model import ContainerConfig, MountPoint, from_json, to_json
from engine.containers.mounts import parse_bind, plan, split_options, target
from engine.errors import InvalidInput


def planned(
    host: dict[str, Any], volumes: tuple[str, ...] = (), others: dict[str, list[MountPoint]] | None = None
) -> list[MountPoint]:
    config = ContainerConfig(volumes={volume: {} for volume in volumes})
    return plan(config, from_json(HostConfig, host), lambda ref: (others or {})[ref])


def shown(point: MountPoint) -> dict[str, Any]:
    """Only what was decided."""
    plain = to_json(point)
    empty = to_json(MountPoint(destination=""))
    return {key: value for key, value in plain.items() if value != empty[key]}


VOLUME = {"Type": "volume", "Driver": "local", "CopyUp": True}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", {"Source": "/a", "Destination": "/b", "Propagation": "rprivate", "Options": ["rbind", "create"]}),
        (
            "//a/../c/:/b/./d/:ro,rslave,z",
            {"Source": "/c", "Destination": "/b/d", "Propagation": "rslave", "Options": ["rbind", "create"]}
            | {"RW": False, "Mode": "ro,rslave,z"},
        ),
        ("data:/b", VOLUME | {"Name": "data", "Destination": "/b"}),
        ("data:/b:ro,nocopy", {"Type": "volume", "Driver": "local", "Name": "data", "Destination": "/b", "RW": False,
                               "Mode": "ro,nocopy"}),
        ("/only", VOLUME | {"Destination": "/only", "Anonymous": True}),
    ],
)  # fmt: skip
def test_binds(text: str, expected: dict[str, Any]) -> None:
    assert shown(parse_bind(text)) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "/a:", ":/b", "/a:/b:", "/a:/b:ro:x", "/a:b", "/a:/", "/a://", "/a:/b/..", "/a:/b:rw,ro", "/a:/b:exec",
     "/a:/b:rslave,shared", "../x:/b", "a/b:/c", ".:/c", "/a\0:/b", "/a:/b\0", "-v:/x", "/a:/b:ro\n"],
)  # fmt: skip
def test_binds_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"[Ii]nvalid"):
        parse_bind(text)


@given(st.text(alphabet="/a.:\0\n,ro ", max_size=12))
def test_a_destination_is_clean_or_refused(text: str) -> None:
    try:
        found = target(text)
    except InvalidInput:
        return
    assert found.startswith("/")
    assert found != "/"
    assert not {"", ".", ".."} & set(found[1:].split("/"))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            {"Type": "bind", "Source": "/s", "Target": "/t", "ReadOnly": True, "BindOptions": {"NonRecursive": True}},
            {"Source": "/s", "Destination": "/t", "RW": False, "Propagation": "rprivate", "Options": ["bind"]},
        ),
        (
            {"Type": "volume", "Source": "vol", "Target": "/t", "VolumeOptions": {"Subpath": "in/side"}},
            {
                "Type": "volume",
                "Driver": "local",
                "Name": "vol",
                "Destination": "/t",
                "Mode": "z",
                "Subpath": "in/side",
            },
        ),
        (
            {"Type": "volume", "Target": "/t"},
            VOLUME | {"Destination": "/t", "Mode": "z", "Anonymous": True},
        ),
        (
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 9, "Mode": 0o700, "Options": [["exec"]]}},
            {"Type": "tmpfs", "Destination": "/t", "Options": ["size=9", "mode=700", "exec"]},
        ),
        (
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["uid", "5"], ["noatime"]]}},
            {"Type": "tmpfs", "Destination": "/t", "Options": ["uid=5", "noatime"]},
        ),
    ],
)
def test_requests(request_: dict[str, Any], expected: dict[str, Any]) -> None:
    (point,) = planned({"Mounts": [request_]})
    assert shown(point) == expected


@pytest.mark.parametrize(
    "request_",
    [
        {"Type": "bind", "Target": "/t"},
        {"Type": "bind", "Source": "s", "Target": "/t"},
        {"Type": "bind", "Source": "/s", "Target": "/t", "BindOptions": {"Propagation": "loud"}},
        {"Type": "tmpfs", "Source": "/s", "Target": "/t"},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["size=1,uid=0"]]}},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["size", "1,uid=0"]]}},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [[]]}},
        {"Type": "npipe", "Source": "/s", "Target": "/t"},
        {"Type": "volume", "Source": "../v", "Target": "/t"},
        {"Type": "volume", "Source": "vol", "Target": "t"},
        {"Type": "volume", "Source": "vol", "Target": "/t", "VolumeOptions": {"Subpath": "../up"}},
        {"Type": "volume", "Source": "vol", "Target": "/t", "VolumeOptions": {"Subpath": "/up"}},
        {"Type": "volume", "Source": "vol", "Target": "/t", "VolumeOptions": {"Subpath": "a/../../up"}},
    ],
)
def test_requests_that_make_no_sense(request_: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        planned({"Mounts": [request_]})


def test_what_the_image_wants_gives_way_to_the_user() -> None:
    points = planned({"Binds": ["/a:/data"], "Tmpfs": {"/scratch": ""}}, volumes=("/data/", "/scratch", "/more"))
    assert [(point.type, point.destination) for point in points] == [("bind", "/data"), ("volume", "/more")]


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/a:/x", "/b:/x/"]},
        {"Binds": ["/a:/x"], "Mounts": [{"Type": "tmpfs", "Target": "/x"}]},
        {"Binds": ["/a:/x"], "Tmpfs": {"/x": ""}},
    ],
)
def test_one_place_is_mounted_once(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="Duplicate mount point: /x"):
        planned(host)


def test_volumes_from_another_container() -> None:
    others = {"db": [
        MountPoint(type="volume", name="v", source="/vols/v", destination="/data", anonymous=True, copy_up=True),
        MountPoint(type="tmpfs", destination="/gone"),
        MountPoint(type="bind", source="/b", destination="/own", rw=False),
    ]}  # fmt: skip
    points = planned({"VolumesFrom": ["db:ro"], "Binds": ["/mine:/own"]}, others=others)
    assert [(point.source, point.destination, point.rw) for point in points] == [
        ("/vols/v", "/data", False),
        ("/mine", "/own", True),
    ]
    # The last who has it takes it along.
    assert points[0].anonymous
    with pytest.raises(InvalidInput, match="volumes-from"):
        planned({"VolumesFrom": ["db:x"]}, others=others)


@pytest.mark.parametrize(
    ("text", "options"),
    [("", []), ("size=1m,exec,mode=1777", ["size=1m", "exec", "mode=1777"]), ("rw,,ro", ["rw", "ro"])],
)
def test_tmpfs_options(text: str, options: list[str]) -> None:
    assert split_options(text) == options


@pytest.mark.parametrize(
    "text", ["lowerdir=/etc", "size", "exec=1", "size=1\n", "size=\0", "remount", "bind", "source=/"]
)
def test_tmpfs_options_that_would_be_more(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid tmpfs option"):
        split_options(text)
