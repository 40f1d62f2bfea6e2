"""Repositories of strangers: read, never obeyed."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.source.git import MAX_FILE, Source, check_sha, check_url, checkout, run_git
from tests.pipeline.source.conftest import Repository

NO_SHA = "f" * 40


@pytest.fixture(autouse=True)
def _no_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def test_a_commit_is_read_without_its_history(repository: Repository) -> None:
    repository.commit(**{"pipelines.yaml": "old"})
    sha = repository.commit("First line\n\nand more", **{"pipelines.yaml": "näw", "app/main.py": "x"})
    with Source(repository.url, sha) as source:
        assert source.read("pipelines.yaml") == "näw"
        assert source.read("app/main.py") == "x"
        commit = source.commit()
        folder = source._folder
    assert (commit.sha, commit.author, commit.message) == (sha, "Ada Ü", "First line\n\nand more")
    assert commit.committed == 1767323045.0
    assert not folder.exists()


def test_a_checkout_is_the_commit_and_nothing_else(repository: Repository, tmp_path: Path) -> None:
    repository.commit(gone="x")
    repository.git("rm", "--quiet", "gone")
    repository.write("run", "#!/bin/sh")
    (repository.folder / "run").chmod(0o755)
    sha = repository.commit(**{"a/b c/ü": "text\r\n"})
    checkout(repository.url, sha, tmp_path / "out" / "here")
    files = sorted(str(path.relative_to(tmp_path / "out/here")) for path in (tmp_path / "out/here").rglob("*"))
    assert files == ["a", "a/b c", "a/b c/ü", "run"]
    assert (tmp_path / "out/here/a/b c/ü").read_bytes() == b"text\r\n"
    assert os.access(tmp_path / "out/here/run", os.X_OK)


def test_paths_that_changed(repository: Repository) -> None:
    before = repository.commit(same="1", changed="1", removed="1", moved="1" * 100)
    repository.git("mv", "moved", "to ü")
    repository.git("rm", "--quiet", "removed")
    sha = repository.commit(**{"changed": "2", "new/file": "1"})
    with Source(repository.url, sha) as source:
        assert sorted(source.changed(before) or []) == ["changed", "moved", "new/file", "removed", "to ü"]
        assert source.changed(sha) == []
        for unknown in (NO_SHA, "0" * 40, "", "--output=/tmp/x", "main"):
            assert source.changed(unknown) is None


def test_the_default_branch(repository: Repository) -> None:
    sha = repository.commit()
    repository.git("checkout", "--quiet", "-b", "trunk")
    with Source(repository.url, sha) as source:
        assert source.default_branch() == "refs/heads/trunk"
        repository.git("checkout", "--quiet", "--detach")
        assert source.default_branch() == ""


def test_a_commit_that_is_not_a_tip_any_more(repository: Repository) -> None:
    """A server that hands out tips only: the commit is found below the ref."""
    sha = repository.commit(**{"pipelines.yaml": "mine"})
    repository.commit(**{"pipelines.yaml": "newer"})
    repository.git("config", "uploadpack.allowAnySHA1InWant", "false")
    with Source(f"file://{repository.url}", sha, ref="refs/heads/main") as source:
        assert source.read("pipelines.yaml") == "mine"


def test_a_commit_that_was_replaced(repository: Repository) -> None:
    repository.commit()
    with pytest.raises(SourceError, match=r"commit ffffffffffff is not in refs/heads/main of .*: was it replaced\?"):
        Source(repository.url, NO_SHA, ref="refs/heads/main")
    with pytest.raises(SourceError, match="git fetch"):
        Source(repository.url, NO_SHA)


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not appear to be a git repository") as caught:
        Source(str(tmp_path / "none"), NO_SHA)
    assert "\n" not in str(caught.value)


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "/srv/web.git",
        "https://example.com/web.git",
        "ssh://git@example.com/web",
        "git@example.com:web.git",
        "file:///srv/w",
    ],
)
def test_addresses(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "", "web", "./web", "ext::sh -c touch% /tmp/x", "ext::https://a/b", "fd::17", "git://example.com/web",
        "ftp://example.com/web", "--upload-pack=touch /tmp/x", "-u", "http://[::1", "/srv/a\nb", "https://a/\0b",
        "javascript:alert(1)", "git@example.com:-x",
    ],
)  # fmt: skip
def test_addresses_that_git_does_not_get_to_see(url: str) -> None:
    with pytest.raises(SourceError, match="is not a repository's address"):
        Source(url, NO_SHA)


@pytest.mark.parametrize(
    "url", ["ssh://-oProxyCommand=touch%20{out}/x", "-oProxyCommand=touch {out}@x:y", "git@-oX={out}:y"]
)
def test_hosts_that_are_options_of_ssh(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh itself is replaced by a program that tells of being run with an option for a host."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nfor a; do case "$a" in -oProxy*|-oX*) touch {tmp_path}/x;; esac; done\nexit 1\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(SourceError):
        Source(url.format(out=tmp_path), NO_SHA)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("url", ["ext::sh -c touch% {out}", "git://127.0.0.1:1/x"])
def test_git_itself_knows_no_other_transports(url: str, tmp_path: Path) -> None:
    """For an address that a repository brings along, and that we never see."""
    with pytest.raises(SourceError, match=r"transport '(ext|git)' not allowed"):
        run_git("ls-remote", "--", url.format(out=tmp_path / "x"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("sha", ["", "main", "HEAD", "--help", "f" * 39, "F" * 40, "f" * 41, "f" * 40 + "\n", "g" * 40])
def test_what_is_no_commit(sha: str, repository: Repository) -> None:
    with pytest.raises(SourceError, match="is not a commit"):
        check_sha(sha)
    with pytest.raises(SourceError):
        Source(repository.url, sha)


@pytest.mark.parametrize(
    "ref", ["--upload-pack=x", "refs/heads/-x", "main", "refs/heads/a b", "refs/heads/a:b", "refs/notes/x"]
)
def test_refs_that_are_options(ref: str, repository: Repository) -> None:
    sha = repository.commit()
    with Source(repository.url, sha, ref=ref) as source:
        assert source.ref == ""


# Files


def test_a_file_that_is_not_there(repository: Repository) -> None:
    sha = repository.commit(**{"other/pipelines.yaml": "x"})
    with Source(repository.url, sha) as source:
        for path in ("pipelines.yaml", "other", "-x", ":(glob)**/*.yaml", "other/*.yaml", "../x", ""):
            with pytest.raises(SourceError, match=r"there is no such file|not a regular file|git ls-tree"):
                source.read(path)


@pytest.mark.parametrize("target", ["/etc/passwd", "real.yaml", "../../etc/passwd"])
def test_a_link_is_not_followed(repository: Repository, target: str) -> None:
    (repository.folder / "pipelines.yaml").symlink_to(target)
    sha = repository.commit(**{"real.yaml": "x"})
    with Source(repository.url, sha) as source, pytest.raises(SourceError, match="not a regular file at commit"):
        source.read("pipelines.yaml")


def test_files_that_no_pipeline_file_is(repository: Repository) -> None:
    sha = repository.commit(large="x" * (MAX_FILE + 1), full="x" * MAX_FILE, binary=b"\xff\xfe\0")
    with Source(repository.url, sha) as source:
        assert len(source.read("full")) == MAX_FILE
        with pytest.raises(SourceError, match="large: the file is larger than 1 MiB"):
            source.read("large")
        with pytest.raises(SourceError, match="binary: the file is not UTF-8 text"):
            source.read("binary")


def test_a_message_in_no_known_encoding(repository: Repository) -> None:
    tree = repository.git("write-tree")
    raw = f"tree {tree}\nauthor A\udcff <a> 1 +0000\ncommitter A <a> 1 +0000\n\n".encode(errors="surrogateescape")
    sha = repository.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=raw + b"caf\xe9 \xff\n" + b"x" * 20_000)
    repository.git("update-ref", "refs/heads/main", sha)
    with Source(repository.url, sha) as source:
        commit = source.commit()
    assert commit.message.startswith("caf")
    assert len(commit.message) <= 10_000
    commit.message.encode()
    commit.author.encode()


def test_nothing_of_a_repository_is_run(repository: Repository, tmp_path: Path) -> None:
    """Filters, hooks, monitors, submodules: what a checkout could be made to run, it does not."""
    trap = f"touch {tmp_path}/run"
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        repository.write(f".git/hooks/{hook}", f"#!/bin/sh\n{trap}\n")
    repository.write(".gitattributes", "* filter=trap diff=trap\n")
    repository.write(".gitmodules", f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "{trap}"\n')
    repository.write(".gitconfig", f'[filter "trap"]\n\tsmudge = {trap}\n\tclean = cat\n[core]\n\tfsmonitor = {trap}\n')
    sha = repository.commit(file="x")
    for hook in (repository.folder / ".git/hooks").iterdir():
        hook.chmod(0o755)
    checkout(repository.url, sha, tmp_path / "out")
    assert (tmp_path / "out/file").read_text() == "x"
    assert not (tmp_path / "run").exists()


def test_a_tree_that_would_write_outside_is_refused(repository: Repository, tmp_path: Path) -> None:
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"#!/bin/sh\n")
    for path in (".git/hooks/post-checkout", "../outside", ".GIT/config"):
        tree = blob
        kind, mode = "blob", "100755"
        for part in reversed(path.split("/")):
            entry = f"{mode} {kind} {tree}\t{part}\n".encode()
            tree = repository.git("mktree", stdin=entry)
            kind, mode = "tree", "040000"
        sha = repository.git("commit-tree", tree, "-m", "x")
        repository.git("update-ref", "refs/heads/main", sha)
        with pytest.raises(SourceError):
            checkout(repository.url, sha, tmp_path / "out")
    assert list(tmp_path.glob("outside")) == []


def test_links_are_links_in_a_checkout(repository: Repository, tmp_path: Path) -> None:
    (repository.folder / "link").symlink_to("/etc/passwd")
    sha = repository.commit()
    checkout(repository.url, sha, tmp_path / "out")
    assert os.readlink(tmp_path / "out/link") == "/etc/passwd"


# git itself


def test_git_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "touch /tmp/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text("[alias]\n\thello = !echo hello\n")
    assert run_git("config", "--get", "core.hooksPath") == b"/dev/null\n"
    with pytest.raises(SourceError, match="'hello' is not a git command"):
        run_git("hello")


def test_git_has_its_time(repository: Repository) -> None:
    with pytest.raises(SourceError, match="git took longer than 0 s with cat-file: try again"):
        run_git("cat-file", "--batch-command", "--buffer", git_dir=Path("/"), timeout=0.0)


class _Asked(BaseHTTPRequestHandler):
    headers_seen: list[str | None]

    def do_GET(self) -> None:
        _Asked.headers_seen.append(self.headers.get("Authorization"))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_token_is_not_sent_in_the_clear() -> None:
    _Asked.headers_seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Asked) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with pytest.raises(SourceError) as caught:
                Source(f"http://127.0.0.1:{server.server_address[1]}/web", NO_SHA, token="s3same")
        finally:
            server.shutdown()
            thread.join()
    assert _Asked.headers_seen == [None]
    assert "s3same" not in str(caught.value)
