"""Names, images and what they hold on to; removal, pruning and collection beside work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.errors import Conflict, InvalidInput, NotFound, SystemFailure
from engine.images import digest as digests
from engine.images.catalog import Catalog
from engine.images.config import ContainerConfig, History, ImageConfig, RootFS
from engine.images.image import Deleted, Image, ImageUser
from engine.images.manifest import Manifest, parse
from engine.images.reference import Reference
from engine.images.store import ImageStore

Make = Callable[..., Image]


def names(deleted: list[Deleted]) -> list[str]:
    return [each.untagged or f"-{(each.deleted or '')[7:19]}" for each in deleted]


def short(image: Image) -> str:
    return f"-{image.id[7:19]}"


def loose(store: ImageStore) -> int:
    """How many blobs and layers there are."""
    return len(list(store.blobs)) + len(list(store.layers.folders()))


# -- names


def test_found_by_name_by_id_and_by_its_start(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, name="app:1")
    encoded = image.id[7:]
    for name in ("app:1", "docker.io/library/app:1", image.id, encoded, encoded[:12], f"sha256:{encoded[:6]}"):
        assert store.get(name).id == image.id
    for name in ("app:2", "app", "sha256:" + "0" * 64, "0" * 64, "ffffffffff", "sha256:"):
        with pytest.raises((NotFound, InvalidInput)):
            store.get(name)


def test_the_start_of_two_ids_is_nobody(store: ImageStore) -> None:
    by_first: dict[str, str] = {}
    for number in range(17):  # two of seventeen begin alike
        made = store.create_image(ImageConfig(comment := "", created=str(number)), [], None)
        assert comment == ""
        first = made.id[7]
        if first in by_first:
            with pytest.raises(NotFound):
                store.get(f"sha256:{first}")
            return
        by_first[first] = made.id
    raise AssertionError("unreachable: sixteen digits, seventeen images")


def test_a_name_looks_like_an_id_and_wins(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"})
    named = make_image({"b": "1"}, name=f"{image.id[7:13]}:latest")
    assert store.get(image.id[7:13]).id == named.id


def test_tags_move(store: ImageStore, make_image: Make) -> None:
    first, second = make_image({"a": "1"}, name="app:1"), make_image({"a": "2"})
    store.tag(second.id, Reference.parse("app:1"))
    assert store.get("app:1").id == second.id
    assert store.get(first.id).tags == ()
    store.untag(Reference.parse("app:1"))
    with pytest.raises(NotFound):
        store.untag(Reference.parse("app:1"))
    with pytest.raises(InvalidInput, match="digest reference"):
        store.tag(first.id, Reference.parse(f"app@sha256:{'0' * 64}"))
    with pytest.raises(NotFound):
        store.tag("sha256:" + "0" * 64, Reference.parse("app:2"))


def test_the_list_hides_what_others_are_built_on(store: ImageStore, make_image: Make) -> None:
    base = make_image({"a": "1"})
    top = make_image({"b": "1"}, parent=base)
    assert [image.id for image in store.list()] == [top.id]
    assert {image.id for image in store.list(all=True)} == {base.id, top.id}
    store.tag(base.id, Reference.parse("base"))
    assert [image.id for image in store.list()] == [top.id, base.id]


def test_images_need_their_layers(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"})
    layer = store.layers_of(image.id)[0]
    missing = "sha256:" + "1" * 64
    with pytest.raises(NotFound, match=missing):
        store.create_image(ImageConfig(rootfs=RootFS((missing,))), [], None)
    with pytest.raises(InvalidInput, match="diff IDs"):
        store.create_image(ImageConfig(rootfs=RootFS((missing,))), [layer], None)
    made = store.create_image(ImageConfig(author="me"), [layer], Reference.parse("app"))
    assert made.config.rootfs.diff_ids == image.config.rootfs.diff_ids
    assert len(store.lowerdirs(made.id)) == 1


def test_history(store: ImageStore, make_image: Make) -> None:
    base = make_image({"a": "12345"}, name="base:1")
    config = msgspec.structs.replace(
        base.config,
        history=(
            History(created="2024-01-01T00:00:00Z", created_by="ADD", comment="first"),
            History(created="2024-01-01T01:00:00.5+01:00", created_by="ENV", empty_layer=True),
        ),
    )
    image = store.create_image(config, [], Reference.parse("app:1"), parent=base.id)
    steps = store.history(image)
    assert [(s["Id"], s["CreatedBy"], s["Size"], s["Created"]) for s in steps] == [
        (image.id, "ENV", 0, 1_704_067_200),
        (base.id, "ADD", 5, 1_704_067_200),
    ]
    assert steps[1]["Tags"] == ["base:1"]


def test_a_manifest_is_made_once_and_kept(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, parent=make_image({"b": "2"}))
    data, described = store.manifest_of(image)
    assert store.manifest_of(image) == (data, described)
    manifest = parse(data, described.media_type)
    assert isinstance(manifest, Manifest)
    assert manifest.config.digest == image.id
    assert all(store.blobs.has(layer.digest) for layer in manifest.layers)
    assert store.get(image.id).manifest == described


def test_registered_by_tag_and_digest(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"})
    data, described = store.manifest_of(image)
    index = "sha256:" + "2" * 64
    store.register_manifest(Reference("r.example.com", "app", "1", index), data, described.media_type)
    for name in ("r.example.com/app:1", f"r.example.com/app@{index}", f"r.example.com/app@{described.digest}"):
        assert store.get(name).id == image.id
    with pytest.raises(NotFound):
        store.get(f"r.example.com/other@{index}")


def test_a_manifest_that_lies_about_a_layer_is_not_believed(store: ImageStore, make_image: Make) -> None:
    image, other = make_image({"a": "1"}), make_image({"a": "2"})
    manifest, foreign = (parse(store.manifest_of(each)[0]) for each in (image, other))
    assert isinstance(manifest, Manifest)
    assert isinstance(foreign, Manifest)
    with pytest.raises(InvalidInput, match="its image's config says"):
        store.register_manifest(None, Manifest(manifest.config, foreign.layers).encode())
    # A layer that is unpacked need not be there as a blob; nobody has checked what such a blob would hold.
    unknown = msgspec.structs.replace(manifest.layers[0], digest="sha256:" + "3" * 64)
    store.register_manifest(None, Manifest(manifest.config, (unknown,)).encode())
    assert store.catalog.diff_ids_of(unknown.digest) == []
    assert parse(store.manifest_of(image)[0]) == manifest


def test_a_catalogue_of_another_time_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    db = sqlite3.connect(tmp_path / "images.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(SystemFailure, match="has format 99"):
        Catalog(tmp_path / "images.db")


def test_a_catalogue_of_old_is_brought_up_to_date(tmp_path: Path) -> None:
    import sqlite3

    Catalog(tmp_path / "images.db").close()
    db = sqlite3.connect(tmp_path / "images.db")
    db.execute("INSERT INTO layers VALUES ('chain', NULL, 'diff', 7, NULL, 0, NULL)")
    db.execute("ALTER TABLE layers DROP COLUMN crc")
    db.execute("DROP TABLE loans")
    db.execute("ALTER TABLE tags DROP COLUMN given")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    for _ in range(2):
        catalog = Catalog(tmp_path / "images.db")
        row = catalog.layer("chain")
        assert row is not None
        assert (row.size, row.crc) == (7, None)
        assert catalog.last_tagged("none") == 0
        catalog.close()


def test_transactions_are_whole(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "images.db")

    def half() -> None:
        with catalog.transaction():
            catalog.add_image("sha256:a", None, None, 0, "")
            with catalog.transaction():
                catalog.set_tag("app:1", "sha256:a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert catalog.images() == []
    assert catalog.all_tags() == []
    catalog.close()


# -- removal


def test_the_last_name_takes_the_image_along(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, name="app:1")
    store.tag(image.id, Reference.parse("app:2"))
    assert names(store.remove("app:1")) == ["app:1"]
    assert names(store.remove("app:2")) == ["app:2", short(image)]
    assert loose(store) == 0


def test_unnamed_parents_go_along_unless_they_are_needed(store: ImageStore, make_image: Make) -> None:
    base = make_image({"a": "1"})
    middle = make_image({"b": "1"}, parent=base)
    first = make_image({"c": "1"}, name="one", parent=middle)
    second = make_image({"d": "1"}, name="two", parent=middle)
    assert names(store.remove("one")) == ["one:latest", short(first)]
    assert names(store.remove("two", prune=False)) == ["two:latest", short(second)]
    assert {image.id for image in store.list(all=True)} == {base.id, middle.id}
    assert names(store.remove(middle.id)) == [short(middle), short(base)]
    assert loose(store) == 0


def test_layers_that_others_share_stay(store: ImageStore, make_image: Make) -> None:
    base = make_image({"a": "1"}, name="base")
    make_image({"b": "1"}, name="app", parent=base)
    store.remove("app")
    assert [path.name for path in store.lowerdirs(base.id)[0].iterdir()] == ["a"]


def test_what_is_in_use_is_refused_in_dockers_words(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, name="app:1")
    child = make_image({"b": "1"}, name="child", parent=image)
    with pytest.raises(Conflict, match="has dependent child images"):
        store.remove(image.id, force=True)
    store.remove("child")
    assert store.catalog.image(child.id) is None
    users = [ImageUser("c" * 64, running=False)]
    store.users = lambda image_id: users if image_id == image.id else ()
    with pytest.raises(Conflict, match=r'unable to remove repository reference "app:1" \(must force\)'):
        store.remove("app:1")
    with pytest.raises(Conflict, match="being used by stopped container cccccccccccc"):
        store.remove(image.id)
    users[0] = ImageUser("c" * 64, running=True)
    with pytest.raises(Conflict, match="being used by running container"):
        store.remove(image.id, force=True)
    assert names(store.remove("app:1", force=True)) == ["app:1"], "unnamed, and still there"
    assert store.get(image.id).id == image.id
    users.clear()
    store.tag(image.id, Reference.parse("one/a"))
    store.tag(image.id, Reference.parse("two/a"))
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        store.remove(image.id)
    assert names(store.remove(image.id, force=True)) == ["one/a:latest", "two/a:latest", short(image)]
    assert loose(store) == 0


def test_digests_of_a_repository_go_with_its_last_tag(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, name="r.example.com/app:1")
    for more in ("r.example.com/app:2", "other:1"):
        store.tag(image.id, Reference.parse(more))
    digest = store.manifest_of(image)[1].digest
    store.add_origin(image.id, Reference.parse("r.example.com/app:1"), digest)
    assert names(store.remove("r.example.com/app:1")) == ["r.example.com/app:1"]
    assert names(store.remove("r.example.com/app:2")) == ["r.example.com/app:2", f"r.example.com/app@{digest}"]
    assert names(store.remove("other:1")) == ["other:1", short(image)]


# -- pruning and collection


def test_prune_takes_the_nameless_and_all_takes_the_unused(store: ImageStore, make_image: Make) -> None:
    make_image({"a": "1"})
    named = make_image({"b": "1" * 100}, name="named")
    used = make_image({"c": "1"}, name="used")
    store.users = lambda image_id: [ImageUser("c", running=False)] if image_id == used.id else ()
    deleted, freed = store.prune()
    assert len(deleted) == 1
    assert freed > 0
    deleted, freed = store.prune(dangling=False, keep=lambda image: image.id == named.id)
    assert deleted == []
    deleted, freed = store.prune(dangling=False)
    assert names(deleted) == ["named:latest", short(named)]
    assert freed >= 100
    assert [image.id for image in store.list()] == [used.id]


def test_collection_takes_what_is_loose_and_old(store: ImageStore, make_image: Make, tmp_path: Path) -> None:
    image = make_image({"a": "1"}, name="app")
    store.manifest_of(image)
    kept = set(store.blobs) | set(store.layers.folders())
    orphan = store.blobs.put(b"loose bytes")
    folder = tmp_path / "loose"
    folder.mkdir()
    (folder / "file").write_text("loose")
    layer = store.add_layer_from_dir(None, folder)
    stray = store.layers.root / ("f" * 32)
    stray.mkdir()
    assert store.collect() == 0, "young: somebody may be about to use it"
    assert store.blobs.has(orphan)
    assert store.collect(grace=-1) == len(b"loose bytes") + len("loose")
    assert set(store.blobs) | set(store.layers.folders()) == kept
    assert store.layer(layer.chain_id) is None
    assert store.lowerdirs(image.id)


def test_leases_spare_what_they_name_and_what_that_stands_on(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"}, parent=make_image({"b": "1"}))
    _, described = store.manifest_of(image)
    chains = image.config.chain_ids
    blob = store.blobs.put(b"a blob alone")
    with store.lease(chains[-1], blob) as lease:
        lease.add(described.digest)
        store.catalog.delete_image(image.id)
        assert image.parent is not None
        store.catalog.delete_image(image.parent)
        store.collect(grace=-1)
        assert all(store.layers.has(chain) for chain in chains)
        assert store.blobs.has(blob)
        assert store.blobs.has(described.digest)
    store.collect(grace=-1)
    assert loose(store) == 0


def test_a_leased_image_is_not_pruned(store: ImageStore, make_image: Make) -> None:
    image = make_image({"a": "1"})
    with store.lease(image.id):
        assert store.prune()[0] == []
    assert names(store.prune()[0]) == [short(image)]


def test_leases_of_the_dead_run_out(store: ImageStore) -> None:
    blob = store.blobs.put(b"leased by one who died")
    store.lease(blob, seconds=0.01)
    deadline = time.monotonic() + 5
    while store.catalog.leased():
        assert time.monotonic() < deadline
    store.collect(grace=-1)
    assert not store.blobs.has(blob)


def test_a_layer_that_is_asked_for_again_is_young_again(store: ImageStore, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "file").write_text("x")
    layer = store.add_layer_from_dir(None, folder, donate=False)
    assert layer.descriptor is not None
    store.import_layer(layer.descriptor, layer.diff_id)
    before = time.time()
    store.import_layer(layer.descriptor, layer.diff_id)
    assert store.catalog.layers(before) == []


def test_collection_beside_building(store: ImageStore, make_image: Make) -> None:
    """Images appear and go while everything loose is swept without any grace: only leases protect them."""
    stop = threading.Event()
    problems: list[BaseException] = []

    def sweep() -> None:
        try:
            while not stop.is_set():
                store.collect(grace=3600)
                store.prune()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for number in range(20):
            image = make_image({"file": str(number)}, name="app")
            assert (store.lowerdirs(image.id)[0] / "file").read_text() == str(number)
            store.manifest_of(image)
    finally:
        stop.set()
        thread.join()
    assert problems == []
    assert [image.id for image in store.list()] == [image.id]


def test_configs_are_read_once(store: ImageStore) -> None:
    image = store.create_image(ImageConfig(config=ContainerConfig(env=("A=b",))), [], None)
    assert store.config(image.id) is store.config(image.id)
    assert digests.sha256(store.config(image.id).encode()) == image.id
