"""save, load, import and export; skopeo reads what we write, and we read what it writes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import EngineError, InvalidInput, NotFound
from engine.images.archive import export_folder, import_tar, load, save
from engine.images.descriptor import Platform
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from tests import needs
from tests.engine.tars import tar_of

pytestmark = pytest.mark.kernel

Make = Callable[..., Image]
needs_skopeo = needs.programs("skopeo")


@pytest.fixture
def other(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = ImageStore(tmp_path / "other")
    yield made
    made.close()


def saved(store: ImageStore, *names: str) -> bytes:
    out = io.BytesIO()
    save(store, names, out.write)
    return out.getvalue()


def contents(store: ImageStore, image: Image) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in reversed(store.lowerdirs(image.id)):
        found |= {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return found


def skopeo(*words: str) -> bytes:
    done = subprocess.run(["skopeo", "--insecure-policy", *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_there_and_back(store: ImageStore, other: ImageStore, make_image: Make) -> None:
    base = make_image({"base": "1"}, name="r.example.com/base:1")
    image = make_image({"top": "2"}, name="app:1", parent=base)
    store.tag(image.id, Reference.parse("app:2"))
    data = saved(store, "app:1", "r.example.com/base:1", "app:2", base.id)
    loaded = load(other, io.BytesIO(data))
    assert [each.id for each in loaded] == [image.id, base.id]
    assert other.get("app:1").id == other.get("app:2").id == image.id
    assert other.get("r.example.com/base:1").id == base.id
    assert contents(other, loaded[0]) == {"base": "1", "top": "2"}
    assert saved(store, "app:1") == saved(store, "app:1")
    assert other.catalog.leased() == set()


def test_a_repository_is_all_its_tags(store: ImageStore, other: ImageStore, make_image: Make) -> None:
    image, second = make_image({"a": "1"}, name="app:1"), make_image({"b": "1"}, name="app:2")
    make_image({"c": "1"}, name="app/not:1")
    assert {each.id: each.tags for each in load(other, io.BytesIO(saved(store, "app")))} == {
        image.id: ("app:1",),
        second.id: ("app:2",),
    }


def test_an_image_of_no_layers(other: ImageStore) -> None:
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": None}, "history": None}
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": None}]
    archive = tar_of({"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()})
    (image,) = load(other, io.BytesIO(archive))
    assert (image.tags, image.config.rootfs.diff_ids) == ((), ())


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_by_id_it_has_no_name(
    store: ImageStore, other: ImageStore, make_image: Make, pack: Callable[[bytes], bytes]
) -> None:
    image = make_image({"a": "1"})
    (loaded,) = load(other, io.BytesIO(pack(saved(store, image.id))))
    assert (loaded.id, loaded.tags) == (image.id, ())
    with pytest.raises(NotFound):
        saved(store, "nothing")


@needs_skopeo
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_we_save(store: ImageStore, make_image: Make, tmp_path: Path, form: str) -> None:
    image = make_image({"top": "2"}, name="app:1", parent=make_image({"base": "1"}))
    (tmp_path / "saved.tar").write_bytes(saved(store, "app:1"))
    about = json.loads(skopeo("inspect", "--config", f"{form}:{tmp_path}/saved.tar"))
    assert about["rootfs"]["diff_ids"] == list(image.config.rootfs.diff_ids)
    skopeo("copy", "-q", f"{form}:{tmp_path}/saved.tar", f"dir:{tmp_path}/out")  # verifies every digest


@needs_skopeo
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_we_load_what_skopeo_saves(
    store: ImageStore, other: ImageStore, make_image: Make, tmp_path: Path, form: str
) -> None:
    image = make_image({"top": "2"}, name="app:1", parent=make_image({"base": "1"}))
    (tmp_path / "ours.tar").write_bytes(saved(store, "app:1"))
    skopeo("copy", "-q", f"docker-archive:{tmp_path}/ours.tar", f"{form}:{tmp_path}/theirs.tar:docker.io/library/app:2")
    with (tmp_path / "theirs.tar").open("rb") as stream:
        (loaded,) = load(other, stream)
    assert contents(other, loaded) == {"base": "1", "top": "2"}
    assert loaded.config.rootfs == image.config.rootfs
    assert loaded.tags == ("app:2",)


@needs_skopeo
def test_the_blobs_are_an_oci_layout_for_others(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, name="app:1")
    make_image({"b": "2"}, name="unpacked:1")
    _, described = store.manifest_of(image)
    store.tag(image.id, Reference.parse("r.example.com/team/app:2"))
    for name in ("docker.io/library/app:1", "r.example.com/team/app:2"):
        assert json.loads(skopeo("inspect", f"oci:{store.root}:{name}"))["Digest"] == described.digest
    again = ImageStore(store.root)
    again.remove("app:1")
    again.close()
    listed = json.loads((store.root / "index.json").read_text())["manifests"]
    assert [line["annotations"] for line in listed] == [
        {"org.opencontainers.image.ref.name": "r.example.com/team/app:2"}
    ]
    skopeo("copy", "-q", f"oci:{store.root}:r.example.com/team/app:2", f"dir:{store.root.parent}/out")


def test_docker_archives_of_old(other: ImageStore) -> None:
    """Layers as ID/layer.tar, the same ones as links, the config as a file: before 25 Docker wrote this."""
    layer = tar_of({"a": b"1"})
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id]}}
    ).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in (
            ("one/layer.tar", layer),
            ("c.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("two/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../one/layer.tar"
        tar.addfile(link)
    (image,) = load(other, io.BytesIO(raw.getvalue()))
    assert image.tags == ("old:1",)
    assert contents(other, image) == {"a": "1"}
    assert len(image.config.rootfs.diff_ids) == 2


def test_damaged_and_foreign_archives_leave_nothing(store: ImageStore, other: ImageStore, make_image: Make) -> None:
    make_image({"a": "1" * 5000}, name="app:1")
    good = saved(store, "app:1")
    layer = next(name for name in members(good) if name.startswith("blobs/sha256/"))
    for bad in (
        b"",
        b"no tar at all" * 100,
        tar_of({"file": b"1"}),
        tar_of({"manifest.json": b"{"}),
        tar_of({"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}),
        tar_of({"index.json": b'{"schemaVersion": 2, "manifests": []}'}),
        good[: len(good) // 2],
        tar_of({**members(good), layer: b"other bytes"}),
        tar_of({name: content for name, content in members(good).items() if name != layer}),
    ):
        with pytest.raises(EngineError) as caught:
            load(other, io.BytesIO(bad))
        assert "\n" not in str(caught.value)
        assert other.list(all=True) == []
        assert list(other.blobs) == [], "what was read is let go"
    (image,) = load(other, io.BytesIO(good))
    assert contents(other, image) == {"a": "1" * 5000}


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


@pytest.mark.parametrize("listing", ["manifest.json", "index.json"])
def test_a_config_that_does_not_fit_its_layers_is_not_added(
    store: ImageStore, other: ImageStore, make_image: Make, listing: str
) -> None:
    image = make_image({"a": "1"}, name="app:1")
    files = members(saved(store, "app:1"))
    manifest_digest = store.manifest_of(image)[1].digest
    wrong = json.loads(files[f"blobs/sha256/{image.id[7:]}"])
    wrong["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    config = json.dumps(wrong).encode()
    config_digest = hashlib.sha256(config).hexdigest()
    manifest = json.loads(files[f"blobs/sha256/{manifest_digest[7:]}"])
    manifest["config"] |= {"digest": f"sha256:{config_digest}", "size": len(config)}
    data = json.dumps(manifest).encode()
    files = {
        f"blobs/sha256/{config_digest}": config,
        f"blobs/sha256/{hashlib.sha256(data).hexdigest()}": data,
        **{name: content for name, content in files.items() if image.id[7:] not in name},
    }
    entry = {
        "manifest.json": [
            {
                "Config": f"blobs/sha256/{config_digest}",
                "RepoTags": ["app:1"],
                "Layers": ["blobs/sha256/" + layer["digest"][7:] for layer in manifest["layers"]],
            }
        ],
        "index.json": {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": manifest["mediaType"],
                    "digest": "sha256:" + hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                }
            ],
        },
    }
    for name in entry:
        files.pop(name)
    files[listing] = json.dumps(entry[listing]).encode()
    with pytest.raises(InvalidInput, match="instead of sha256:0000"):
        load(other, io.BytesIO(tar_of(files)))
    assert other.list(all=True) == []
    assert list(other.layers.folders()) == []
    assert list(other.blobs) == []


def test_the_platform_of_an_index(store: ImageStore, other: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, name="app:1")
    files = members(saved(store, "app:1"))
    line = json.loads(files["index.json"])["manifests"][0]
    index = json.dumps(
        {"schemaVersion": 2, "manifests": [{**line, "platform": {"architecture": "amd64", "os": "linux"}}]}
    )
    digest = hashlib.sha256(index.encode()).hexdigest()
    top = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": f"sha256:{digest}",
                "size": len(index),
                "annotations": {"org.opencontainers.image.ref.name": "nested:1"},
            }
        ],
    }
    del files["manifest.json"]
    archive = tar_of({**files, f"blobs/sha256/{digest}": index.encode(), "index.json": json.dumps(top).encode()})
    with pytest.raises(InvalidInput, match="no matching manifest for linux/arm64"):
        load(other, io.BytesIO(archive), platform=Platform.parse("linux/arm64"))
    (loaded,) = load(other, io.BytesIO(archive), platform=Platform.parse("linux/amd64"))
    assert (loaded.id, loaded.tags) == (image.id, ("nested:1",))


def test_import_and_export(store: ImageStore, upper: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    export_folder(upper, out.write)
    image = import_tar(
        store,
        io.BytesIO(gzip.compress(out.getvalue())),
        Reference.parse("imported:1"),
        changes=["CMD sh", "EXPOSE 80"],
        message="from a folder",
        epoch=0,
    )
    assert image.tags == ("imported:1",)
    assert image.config.config.cmd == ("/bin/sh", "-c", "sh")
    assert image.config.created == "1970-01-01T00:00:00Z"
    assert image.config.history[0].comment == "from a folder"
    assert (store.lowerdirs(image.id)[0] / "etc/shadow").read_text() == "secret\n"
    with pytest.raises(InvalidInput):
        import_tar(store, io.BytesIO(b"nonsense" * 1000))
    with pytest.raises(InvalidInput, match="damaged"):
        import_tar(store, io.BytesIO(gzip.compress(out.getvalue())[:-100]))
    assert len(store.list()) == 1
