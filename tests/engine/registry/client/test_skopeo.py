"""What we push, skopeo takes; what skopeo puts there, we take."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import Any

import pytest

from engine.images.manifest import parse
from engine.images.reference import Reference
from engine.registry.client import pull, push
from tests import needs
from tests.engine.registry.client.conftest import files_of
from tests.engine.registry.client.handmade import Handmade
from tests.engine.registry.client.test_platforms import PLATFORMS

pytestmark = needs.programs("skopeo")

FILES = {"etc/motd": b"hello\n", "bin/tool": os.urandom(100_000)}
MORE = {"srv/app.py": b"print(1)\n"}


async def skopeo(*words: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        "skopeo", "--insecure-policy", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out


async def test_skopeo_takes_what_we_pushed(registry, repository, client, store, make_image, tmp_path):
    image = make_image(store, FILES, MORE)
    reference = Reference.parse(f"{registry.host}/{repository}:1")
    pushed = await push(client, store, image, reference)
    about = json.loads(await skopeo("inspect", "--tls-verify=false", f"docker://{reference}"))
    assert about["Digest"] == pushed.digest
    assert about["Env"] == ["A=b"]
    await skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"oci:{tmp_path}/layout:1")
    manifest = parse((tmp_path / "layout/blobs" / pushed.digest.replace(":", "/")).read_bytes())
    for blob in (manifest.config, *manifest.layers):
        assert (tmp_path / "layout/blobs" / blob.digest.replace(":", "/")).stat().st_size == blob.size


@pytest.mark.parametrize("form", ["v2s2", "oci"])
async def test_we_take_what_skopeo_pushed(registry, repository, client, new_store, make_image, tmp_path, form):
    here, there = new_store(), new_store()
    image = make_image(here, FILES, MORE)
    await push(client, here, image, Reference.parse(f"{registry.host}/{repository}/ours:1"))
    ours, theirs = (f"docker://{registry.host}/{repository}/{who}:1" for who in ("ours", "theirs"))
    await skopeo("copy", "-q", "--src-tls-verify=false", "--dest-decompress", ours, f"dir:{tmp_path}/plain")
    await skopeo("copy", "-q", "--dest-tls-verify=false", "--format", form, f"dir:{tmp_path}/plain", theirs)
    pulled = await pull(client, Reference.parse(theirs.removeprefix("docker://")), there)
    assert files_of(there, pulled) == FILES | MORE
    assert pulled.config.rootfs == image.config.rootfs
    manifest = parse(there.manifest_of(pulled)[0])
    assert ("docker" in manifest.media_type) == (form == "v2s2")


async def test_we_take_an_index_that_skopeo_copied_whole(ours, client, store, tmp_path):
    made = Handmade(ours, "app")
    entries = [
        {**await made.image({"p": name.encode()}, architecture=str(platform["architecture"])), "platform": platform}
        for name, platform in PLATFORMS.items()
    ]
    described = await made.index(entries, "1")
    await skopeo(
        *("copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"),
        *(f"docker://{ours.host}/app:1", f"docker://{ours.host}/copy:1"),
    )
    image = await pull(client, Reference.parse(f"{ours.host}/copy:1"), store, platform="linux/arm64")
    assert files_of(store, image) == {"p": b"linux/arm64"}
    assert f"{ours.host}/copy@{described['digest']}" in image.digests
