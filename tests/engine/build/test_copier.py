from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from engine.build.context import FolderContext
from engine.build.copier import Copier, Look
from engine.build.ignore import IgnoreRules
from engine.build.modes import parse_mode
from engine.build.problems import DockerfileError
from engine.build.selection import digest_of, pick, walk
from engine.build.spool import SpooledContext, spool
from engine.build.trees import FolderTree, Tree

pytestmark = pytest.mark.kernel


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_text(content)
    return folder


def listing(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name + "/" if path.is_dir() else name] = "" if path.is_dir() else path.read_text()
    return found


def as_tar(folder: Path) -> SpooledContext:
    """The same files as a client would send them."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False)
    return spool([raw.getvalue()], folder.parent / "spool")


@pytest.fixture(params=["folder", "tar"])
def as_tree(request: pytest.FixtureRequest):
    """Both kinds of build context, which must not differ."""

    def made(folder: Path, ignore: tuple[str, ...] = ()) -> Tree:
        context = FolderContext(folder) if request.param == "folder" else as_tar(folder)
        tree = context.tree(IgnoreRules(ignore))
        request.addfinalizer(context.close)
        request.addfinalizer(tree.close)
        return tree

    return made


def copy(
    tree: Tree,
    root: Path,
    sources: list[str],
    destination: str,
    *,
    into: bool | None = None,
    look: Look | None = None,
    excludes: tuple[str, ...] = (),
    parents: bool = False,
) -> None:
    fd = os.open(root, os.O_PATH)
    copier = Copier(fd, look or Look())
    try:
        for picked in pick(tree, sources, parents=parents):
            copier.put(
                tree,
                picked,
                destination,
                into=destination.endswith("/") if into is None else into,
                excludes=excludes,
            )
    finally:
        copier.close()
        os.close(fd)


def test_file_to_file_to_folder_and_into_an_existing_folder(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"a": "A", "d/b": "B"}))
    root = write(tmp_path / "r", {"there/x": "X"})
    copy(tree, root, ["a"], "/file")
    copy(tree, root, ["d/b"], "/new/")
    copy(tree, root, ["a"], "/there")
    assert listing(root) == {
        "file": "A", "new/": "", "new/b": "B", "there/": "", "there/a": "A", "there/x": "X",
    }  # fmt: skip


def test_a_folder_gives_its_content(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"d/b": "B", "d/e/f": "F", "d/l": "-> e/f", "d/none/": ""}))
    root = write(tmp_path / "r", {"app/e/g": "G"})
    copy(tree, root, ["d"], "/app")
    assert listing(root / "app") == {"b": "B", "e/": "", "e/f": "F", "e/g": "G", "l": "-> e/f", "none/": ""}


def test_modes_times_and_owners_of_the_source_stay_but_for_root(tmp_path: Path, as_tree) -> None:
    context = write(tmp_path / "c", {"d/x": "X"})
    (context / "d/e").mkdir()
    (context / "d/e").chmod(0o700)
    (context / "d").chmod(0o700)
    os.chown(context / "d/x", 12, 34)
    (context / "d/x").chmod(0o4750)
    os.utime(context / "d/x", ns=(10**18, 10**18 + 123_000_000_000))
    os.utime(context / "d/e", ns=(10**18, 10**18))
    (root := tmp_path / "r").mkdir()
    copy(as_tree(context), root, ["d"], "/new")
    status = (root / "new/x").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o4750, 0, 0)
    assert status.st_mtime_ns == 10**18 + 123_000_000_000
    assert (root / "new/e").stat().st_mode & 0o777 == 0o700
    assert (root / "new/e").stat().st_mtime_ns == 10**18
    assert (root / "new").stat().st_mode & 0o777 == 0o755, "the folder itself is not copied, only its content"


def test_chown_chmod_and_a_latest_time(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"d/run.sh": "", "d/s/t": ""}))
    (root := tmp_path / "r").mkdir()
    copy(tree, root, ["d"], "/a/b", look=Look((5, 6), parse_mode("u=rwX,go=rX"), 7 * 10**9))
    for name in ("a", "a/b", "a/b/s", "a/b/s/t"):
        assert ((root / name).stat().st_uid, (root / name).stat().st_gid) == (5, 6)
    assert (root / "a/b/run.sh").stat().st_mode & 0o777 == 0o644
    assert (root / "a/b/s").stat().st_mode & 0o777 == 0o755
    assert (root / "a/b/s/t").stat().st_mtime_ns == 7 * 10**9


def test_hard_links_stay_links(tmp_path: Path, as_tree) -> None:
    context = write(tmp_path / "c", {"d/a": "A", "d/alone": "x"})
    os.link(context / "d/a", context / "d/b")
    (root := tmp_path / "r").mkdir()
    copy(as_tree(context), root, ["d"], "/")
    assert (root / "a").stat().st_ino == (root / "b").stat().st_ino
    assert (root / "alone").stat().st_nlink == 1


def test_wildcards_excludes_and_order(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"a.txt": "1", "b.txt": "2", "c.md": "3", "d/e.txt": "4", "d/f": "5"}))
    root = tmp_path / "r"
    root.mkdir()
    copy(tree, root, ["*.txt", "d"], "/x/", excludes=("b.*", "e.txt"))
    assert listing(root) == {"x/": "", "x/a.txt": "1", "x/f": "5"}
    assert [picked.name for picked in pick(tree, ["?.*"])] == ["a.txt", "b.txt", "c.md"]
    assert [picked.path for picked in pick(tree, ["**/*.txt"])] == ["a.txt", "b.txt", "d/e.txt"]


def test_parents_keep_folders_after_the_pivot(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"x/y/a": "A", "x/y/z/b": "B"}))
    root = tmp_path / "r"
    root.mkdir()
    copy(tree, root, ["x/y/a", "./x/./y/z"], "/to/", parents=True)
    assert listing(root / "to") == {
        "x/": "", "x/y/": "", "x/y/a": "A", "y/": "", "y/z/": "", "y/z/b": "B",
    }  # fmt: skip


def test_links_at_the_destination_are_followed_within_the_root(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"a": "A", "d/b": "B"}))
    outside = write(tmp_path / "outside", {"victim": "safe"})
    root = write(
        tmp_path / "r",
        {"run/": "", "var/run": "-> /run", "out": f"-> {outside}", "up": "-> ../../../../..", "file": "-> run/f"},
    )
    copy(tree, root, ["a"], "/var/run/")
    copy(tree, root, ["a"], "/out/")
    copy(tree, root, ["d"], "/up/in")
    copy(tree, root, ["a"], "/file")
    assert listing(outside) == {"victim": "safe"}
    found = listing(root)
    assert found["run/a"] == "A"
    assert found[f"{str(outside).lstrip('/')}/a"] == "A"
    assert found["in/b"] == "B"
    assert found["file"] == "A"


def test_a_link_is_replaced_not_written_through(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"d/passwd": "mine"}))
    victim = tmp_path / "victim"
    victim.write_text("safe")
    root = write(tmp_path / "r", {"etc/passwd": f"-> {victim}"})
    copy(tree, root, ["d"], "/etc/")
    assert victim.read_text() == "safe"
    assert not (root / "etc/passwd").is_symlink()


def test_links_in_the_context_never_leave_it(tmp_path: Path, as_tree) -> None:
    (tmp_path / "secret").write_text("secret")
    context = write(tmp_path / "c", {"l": "-> ../secret", "abs": f"-> {tmp_path}/secret", "good": "-> d/x", "d/x": "X"})
    tree = as_tree(context)
    for name in ("l", "abs"):
        with pytest.raises(DockerfileError, match="file not found in build context"):
            pick(tree, [name])
    root = tmp_path / "r"
    root.mkdir()
    copy(tree, root, ["good"], "/at/")
    assert listing(root) == {"at/": "", "at/good": "X"}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nothing"], '"nothing": file not found in build context or excluded by .dockerignore'),
        (["d/mian.py"], "(did you mean main.py?)"),
        (["[a"], "syntax error in pattern: [a"),
    ],
)
def test_missing_sources(tmp_path: Path, as_tree, sources: list[str], message: str) -> None:
    tree = as_tree(write(tmp_path / "c", {"d/main.py": ""}))
    with pytest.raises(DockerfileError) as refused:
        pick(tree, sources)
    assert message in str(refused.value)


def test_files_and_folders_in_each_other_s_place(tmp_path: Path, as_tree) -> None:
    tree = as_tree(write(tmp_path / "c", {"d/x/y": "", "f/x": ""}))
    with pytest.raises(DockerfileError, match="cannot copy to non-directory: /x"):
        copy(tree, write(tmp_path / "r1", {"x": "file"}), ["d"], "/")
    with pytest.raises(DockerfileError, match="cannot replace the directory /x with a file"):
        copy(tree, write(tmp_path / "r2", {"x/full": ""}), ["f"], "/")
    with pytest.raises(DockerfileError, match="/x is not a directory"):
        copy(tree, write(tmp_path / "r3", {"x": "file"}), ["f/x"], "/x/y/z")


def test_ignored_files_are_not_there(tmp_path: Path, as_tree) -> None:
    files = {"a/b/keep": "", "a/b/drop": "", "node_modules/x": "", "top": "", ".dockerignore": ""}
    tree = as_tree(write(tmp_path / "c", files), ("node_modules", "a", "!a/b/keep", ".*"))
    assert [path for path, _ in walk(tree, "")] == ["a", "a/b", "a/b/keep", "top"]
    assert tree.entry("node_modules/x") is None
    assert tree.entry("a/b") is not None


def test_digest_sees_content_and_modes_but_no_times(tmp_path: Path, as_tree) -> None:
    def digest(name: str, mode: int = 0o644, content: str = "x", mtime: int = 0) -> str:
        context = write(tmp_path / name, {"d/f": content})
        (context / "d/f").chmod(mode)
        os.utime(context / "d/f", (mtime, mtime))
        tree = as_tree(context)
        return digest_of(tree, pick(tree, ["d"]))

    first = digest("one")
    assert digest("two", mtime=5) == first
    assert digest("three", mode=0o755) != first
    assert digest("four", content="y") != first


def test_folder_and_tar_contexts_have_the_same_digest(tmp_path: Path) -> None:
    context = write(tmp_path / "c", {"d/f": "x", "d/e/g": "y", "d/l": "-> f"})
    os.link(context / "d/f", context / "d/h")
    trees = [FolderTree.at(context, own_root=True), as_tar(context).tree()]
    assert len({digest_of(tree, pick(tree, ["d", "d/f"])) for tree in trees}) == 1
    trees[0].close()


@pytest.mark.parametrize(
    ("text", "mode", "folder", "wanted"),
    [
        ("0755", 0o600, False, 0o755), ("4755", 0o600, False, 0o4755), ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, False, 0o644), ("go-w", 0o666, False, 0o644), ("+x", 0o644, False, 0o755),
        ("a=r", 0o777, True, 0o444), ("u+s", 0o755, False, 0o4755), ("g=u", 0o740, False, 0o770),
        ("+t", 0o755, True, 0o1755), ("u=rwx,g+w-x", 0o611, False, 0o721),
    ],
)  # fmt: skip
def test_modes(text: str, mode: int, folder: bool, wanted: int) -> None:
    assert parse_mode(text)(mode, folder) == wanted


@pytest.mark.parametrize("text", ["9", "77777", "rwx", "u=z", "", "u+r,"])
def test_wrong_modes(text: str) -> None:
    with pytest.raises(ValueError, match="invalid chmod parameter"):
        parse_mode(text)
