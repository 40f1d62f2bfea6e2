"""A container's upper folder becomes an image: copied or given away, changed, and always the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InvalidInput
from engine.images.config import ContainerConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.snapshot import commit, rfc3339
from engine.images.store import ImageStore

pytestmark = pytest.mark.kernel

Make = Callable[..., Image]


def test_what_was_written_is_on_top(store: ImageStore, make_image: Make, upper: Path) -> None:
    base = make_image({"base": "1"}, name="base")
    image = commit(
        store,
        upper=upper,
        parent=base,
        changes=['CMD ["serve"]', "ENV NEW=1 A=changed", "LABEL stage=test"],
        author="ann",
        comment="tested",
        created_by="pytest",
        ref=Reference.parse("app:tested"),
    )
    assert (upper / "etc/passwd").exists(), "a running container goes on"
    assert image.tags == ("app:tested",)
    assert image.parent == base.id
    assert image.config.config.cmd == ("serve",)
    assert image.config.config.env == ("A=changed", "NEW=1")
    assert image.config.config.labels == {"stage": "test"}
    step = image.config.history[-1]
    assert (step.created_by, step.comment, step.author) == ("pytest", "tested", "ann")
    top, below = store.lowerdirs(image.id)
    assert (top / "etc/shadow").read_text() == "secret\n"
    assert (below / "base").read_text() == "1"


def test_a_finished_containers_folder_is_given_away(store: ImageStore, make_image: Make, upper: Path) -> None:
    inode = (upper / "bin/tool").stat().st_ino
    image = commit(store, upper=upper, parent=make_image({"base": "1"}), donate=True)
    assert not upper.exists()
    assert (store.lowerdirs(image.id)[0] / "bin/tool").stat().st_ino == inode
    assert image.manifest is None, "nobody asked for bytes yet"
    assert len(list(store.blobs)) == 2, "two configs"


def test_changes_know_the_environment_so_far(store: ImageStore, make_image: Make, upper: Path) -> None:
    lines = [r'ENV A="say \"x\" $" B=1', "ENV C=$A/${B} D='$B' E=\\$B", "ENV F $A", "WORKDIR /$B", "CMD echo $B"]
    made = commit(store, upper=upper, parent=make_image({"base": "1"}), config=ContainerConfig(), changes=lines)
    said = 'say "x" $'
    assert made.config.config.env == (f"A={said}", "B=1", f"C={said}/1", "D=$B", "E=$B", f"F={said}")
    assert (made.config.config.working_dir, made.config.config.cmd) == ("/1", ("/bin/sh", "-c", "echo $B"))


def test_changes_are_lines_of_a_dockerfile(store: ImageStore, make_image: Make, upper: Path) -> None:
    changes = ["EXPOSE 80\n# the user\nUSER app\n\nENV A=1 \\\n  B=2", "CMD run"]
    made = commit(store, upper=upper, parent=make_image({"base": "1"}), config=ContainerConfig(), changes=changes)
    config = made.config.config
    assert (list(config.exposed_ports), config.user, config.env) == (["80/tcp"], "app", ("A=1", "B=2"))
    assert config.cmd == ("/bin/sh", "-c", "run")


def test_the_containers_own_config(store: ImageStore, make_image: Make, upper: Path) -> None:
    config = ContainerConfig(user="app", cmd=("run",))
    image = commit(store, upper=upper, parent=make_image({"base": "1"}), config=config, changes=["USER other"])
    assert (image.config.config.user, image.config.config.cmd) == ("other", ("run",))


@pytest.mark.parametrize("donate", [True, False])
def test_with_an_epoch_it_is_always_the_same(
    store: ImageStore, make_image: Make, upper: Path, tmp_path: Path, donate: bool
) -> None:
    base = make_image({"base": "1"})
    ids = set()
    for number in range(2):
        copy = tmp_path / f"copy{number}"
        subprocess.run(["cp", "-a", str(upper), str(copy)], check=True)
        os.utime(copy / "tmp", (1_800_000_000 + number, 1_800_000_000 + number))
        image = commit(store, upper=copy, parent=base, donate=donate, epoch=1_700_000_000)
        ids.add((image.id, store.manifest_of(image)[1].digest))
    assert len(ids) == 1
    assert image.created == "2023-11-14T22:13:20Z"


def test_an_unknown_change_leaves_everything(store: ImageStore, make_image: Make, upper: Path) -> None:
    base = make_image({"base": "1"})
    with pytest.raises(InvalidInput, match="RUN is not a valid change command"):
        commit(store, upper=upper, parent=base, changes=["RUN rm -rf /"], donate=True)
    assert upper.exists()
    assert [image.id for image in store.list()] == [base.id]


def test_times_as_configs_write_them() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert len(rfc3339()) in range(len("2024-01-01T00:00:00Z"), len("2024-01-01T00:00:00.123456789Z") + 1)
