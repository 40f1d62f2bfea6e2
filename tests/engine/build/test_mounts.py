from __future__ import annotations

import pytest

from engine.build.devicerequests import DeviceRequest, parse_device
from engine.build.durations import parse_duration, parse_size
from engine.build.mounts import Mount, parse_mount
from engine.build.problems import DockerfileError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("target=/a", Mount(target="/a")),
        (
            "type=cache,target=/a,id=x,sharing=locked,uid=1,mode=0755",
            Mount("cache", target="/a", id="x", sharing="locked", uid=1, mode=0o755, read_only=False),
        ),
        ("type=tmpfs,dst=/a,size=1m", Mount("tmpfs", target="/a", size=1 << 20, read_only=False)),
        (
            "type=bind,from=b,src=/c,target=/a,rw",
            Mount(origin="b", source="/c", target="/a", read_only=False),
        ),
        ("type=secret,id=s,env=S,required", Mount("secret", id="s", env="S", required=True)),
        ("type=ssh,required=true,mode=0666", Mount("ssh", required=True, mode=0o666)),
        ('type=bind,"source=a,b",target=/a,ro=false', Mount(source="a,b", target="/a", read_only=False)),
    ],
)
def test_mounts(text: str, wanted: Mount) -> None:
    assert parse_mount(text, lambda word: word) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=cahce,target=/a", 'unsupported mount type "cahce" (did you mean cache?)'),
        ("tpye=cache", "unexpected key 'tpye' in 'tpye=cache' (did you mean type?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("type=bind,target=/a,mode=7", 'mode not allowed for "bind" type mounts'),
        ("type=secret", "one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=cache,target=/a,sharing=lock", 'unsupported sharing value "lock"'),
        ("type=tmpfs,target=/a,sharing=locked", "invalid cache sharing set for tmpfs mount"),
        ("type=cache,target=/a,size=1m", "unexpected key 'size' for mount type 'cache'"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=bind,required", "unexpected key 'required' for mount type 'bind'"),
        ('type=cache,t"arget=/a', 'column 13: bare " in non-quoted-field'),
        ('"type=cache"x', 'column 12: extraneous or missing " in quoted-field'),
        ('"type=cache', 'extraneous or missing " in quoted-field'),
        ("type=ssh,source=a", "ssh does not support source"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        parse_mount(text, lambda word: word)
    assert message in str(refused.value)


def test_devices() -> None:
    assert parse_device("vendor.com/gpu=0,required") == DeviceRequest("vendor.com/gpu=0", required=True)
    assert parse_device("name=vendor.com/gpu,required=false") == DeviceRequest("vendor.com/gpu")
    for text, message in (
        ("a,b", "invalid field 'b' must be a key=value pair"),
        ("a,requird=1", r"unexpected key 'requird' in 'requird=1' \(did you mean required\?\)"),
        ("a,required=x", "invalid value for required: x"),
        ("a,name=b", "device name already set to a"),
    ):
        with pytest.raises(DockerfileError, match=message):
            parse_device(text)


def test_durations_and_sizes() -> None:
    assert [parse_duration(text) for text in ("0", "1.5s", "1h2m", "-3ms", ".5us", "1ns")] == [
        0, 1_500_000_000, 3_720_000_000_000, -3_000_000, 500, 1,
    ]  # fmt: skip
    assert [parse_size(text) for text in ("1", "64m", "1.5GiB", "2kb")] == [1, 64 << 20, 3 << 29, 2048]
    for wrong in ("", "1", "s", "1x", "1s2", "--1s", "300000000h"):
        with pytest.raises(ValueError, match="invalid duration"):
            parse_duration(wrong)
