"""`shipway registry` against a real registry and a real server."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main
from engine.registry.server.access import passwords
from engine.registry.server.access.accounts import Accounts
from pipeline.store import open_store
from tests.deploy import registries
from tests.deploy.registries import Pusher
from tests.server.story import WEB, Clock, Story, plan_of


@dataclass(frozen=True)
class Said:
    code: int
    stdout: str
    stderr: str


Shipway = Callable[..., Said]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registries.ours(tmp_path_factory.mktemp("registry")) as url:
        yield url


@pytest.fixture(scope="module")
def images(registry: str) -> dict[str, str]:
    push = Pusher(registry, "web")
    return {tag: push.image(tag, created=f"2024-01-0{tag[1]}T00:00:00Z") for tag in ("v1", "v2", "v3", "v4", "v5")}


@pytest.fixture(scope="module")
def server(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its releases are v1 and then v3; a run that waits for approval has pushed v2."""
    data = tmp_path_factory.mktemp("data")
    clock = Clock(time.time() - 3600)
    with open_store(f"sqlite:///{data / 'shipway.db'}", clock=clock) as store:
        story = Story(store, clock)
        story.host("web1", role="web")
        story.host("build1")
        for tag in ("v1", "v3"):
            run = story.push(plan_of(WEB), f"Release {tag}")
            story.until_published(run)
            story.deploy(run, WEB, f"127.0.0.1:7750/web@{images[tag]}", ("web1",))
        waiting = story.push(plan_of(WEB, approval=True), "Wait for Grace")
        for stage in ("image", "unit"):
            story.finish(story.claim(waiting, stage), 1.0, image=images["v2"], snapshot=images["v2"])
        story.finish(
            story.claim(waiting, "publish"), 1.0, image=f"127.0.0.1:7750/web@{images['v2']}", digest=images["v2"]
        )
    port = registries.free_port()
    with (data / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "--listen", f"127.0.0.1:{port}"],
            cwd=registries.ROOT,
            env={**os.environ, "SHIPWAY_DATA": str(data)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert process.poll() is None, (data / "log").read_text()
            assert time.monotonic() < deadline, (data / "log").read_text()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def shipway(registry: str, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shipway:
    """`shipway registry ARGUMENTS`, in this process: starting one each time would take most of the time."""

    def run(*arguments: str, server: str = server) -> Said:
        monkeypatch.setenv("SHIPWAY_SERVER_URL", server)
        monkeypatch.setenv("SHIPWAY_REGISTRY_URL", registry)
        with pytest.raises(SystemExit) as ended:
            main(["registry", *arguments])
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_what_is_there(shipway: Shipway, images: dict[str, str]):
    listed = shipway("list")
    assert listed.stdout.split() == ["REPOSITORY", "TAGS", "web", "5"]
    assert json.loads(shipway("list", "--json").stdout)["repositories"][0]["name"] == "web"
    lines = shipway("tags", "web").stdout.splitlines()
    assert lines[1].split()[:2] == ["v5", images["v5"]], "the newest image comes first"
    assert [image["tags"] for image in json.loads(shipway("tags", "web", "--json").stdout)["images"]][-1] == ["v1"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tags", "wbe"), 1, "wbe has no tags: see `shipway registry list`"),
        (("delete", "web"), 2, "'web': write REPOSITORY:TAG or REPOSITORY@DIGEST, such as web:v1"),
        (("delete", "web@latest"), 2, "write REPOSITORY:TAG or REPOSITORY@DIGEST"),
        (("delete", "web:v9"), 1, "web:v9: there is no such thing: see `shipway registry tags web`"),
        (("prune",), 2, "name the repositories to prune, or say --all"),
        (("prune", "web", "--keep", "0"), 2, "--keep"),
        (("list", "--username", "ada"), 2, "--username and --password-stdin go together"),
        (("list", "--at", "127.0.0.1:1"), 1, "the registry does not answer: connection refused"),
    ],
)
def test_bad_input(shipway: Shipway, arguments: tuple[str, ...], code: int, words: str):
    done = shipway(*arguments)
    assert done.code == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_in_use_is_not_deleted(shipway: Shipway, images: dict[str, str]):
    for reference in ("web:v3", f"web@{images['v1']}", "web:v2"):
        done = shipway("delete", reference)
        assert done.code == 1
        assert " is in use: a release or an unfinished run refers to it" in done.stderr
    away = shipway("prune", "--all", server="http://127.0.0.1:1")
    assert away.code == 1
    assert "no server answers at http://127.0.0.1:1" in away.stderr
    assert len(json.loads(shipway("tags", "web", "--json").stdout)["images"]) == 5


def _told(url: str) -> object:
    with urllib.request.urlopen(url) as answer:  # noqa: S310  (our own registry)
        return json.load(answer)


def test_what_is_in_use_is_held(shipway: Shipway, registry: str, images: dict[str, str]):
    assert shipway("hold").stdout == "3 images held\n"
    assert _told(f"{registry}/api/v1/holds") == {"shipway": sorted(images[tag] for tag in ("v1", "v2", "v3"))}
    assert shipway("hold", "--releases", "1").stdout == "2 images held\n"


def test_visibility(shipway: Shipway, registry: str):
    assert shipway("publish", "web").stdout == "web is seen by everyone\n"
    assert _told(f"{registry}/api/v1/repositories/web") == {"name": "web", "public": True}
    assert shipway("publish", "--private", "web").stdout == "web is seen by its group\n"
    assert "wbe: there is no such repository" in shipway("publish", "wbe").stderr
    assert "'Web' is no name of a repository" in shipway("publish", "Web").stderr


def test_users(shipway: Shipway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def user(*words: str, password: str = "") -> Said:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
        return shipway("user", *words, "--root", str(tmp_path))

    assert user("add", "ada", "--group", "team", password="password of ada").stdout == "ada is added\n"
    assert "less than 8 characters" in user("add", "bob", password="short").stderr
    assert user("change", "ada", "--admin", "--group", "tools").code == 0
    assert json.loads(user("list", "--json").stdout) == {"users": [{"name": "ada", "groups": ["tools"], "admin": True}]}
    assert user("change", "ada", "--no-groups", "--no-admin").code == 0
    assert "less than 8 characters" in user("change", "ada", "--password", password="short").stderr
    assert user("change", "ada", "--password", password="another of ada").code == 0
    kept = Accounts(tmp_path).users()["ada"].password
    assert [passwords.matches(each, kept) for each in ("another of ada", "password of ada")] == [True, False]
    assert user("list").stdout.split() == ["USER", "GROUPS", "ADMIN", "ada"]
    assert user("remove", "ada").stdout == "ada is removed\n"
    assert "no such user: ada" in user("remove", "ada").stderr
    assert "is no folder" in shipway("user", "list", "--root", str(tmp_path / "none")).stderr


def test_retention_and_deletion(shipway: Shipway, images: dict[str, str]):
    told = shipway("prune", "--all", "--keep", "1", "--dry-run", "--json")
    assert [image["tags"] for image in json.loads(told.stdout)["deleted"]] == [["v4"]]
    newest = shipway("prune", "web", "--keep", "1", "--releases", "1", "--dry-run", "--json")
    assert [image["tags"] for image in json.loads(newest.stdout)["deleted"]] == [["v1"], ["v4"]]

    done = shipway("prune", "--all", "--keep", "1")
    assert (done.code, done.stdout.splitlines()[-1]) == (0, "1 image deleted")
    left = json.loads(shipway("tags", "web", "--json").stdout)["images"]
    assert [image["digest"] for image in left] == [images[tag] for tag in ("v5", "v3", "v2", "v1")]

    gone = shipway("delete", "web:v5")
    assert (gone.code, gone.stdout) == (0, "web:v5 is deleted\n")
    forced = shipway("delete", "--force", "web:v1")
    assert forced.code == 0
    assert shipway("list").stdout.split()[-1] == "2"


def test_alone_it_is_the_registry(tmp_path: Path):
    port = registries.free_port()
    argv = (sys.executable, "-m", "cli", "registry", "--listen", f"127.0.0.1:{port}", "--root", str(tmp_path / "data"))
    process = subprocess.Popen(argv, cwd=registries.ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        digest = Pusher(f"http://127.0.0.1:{port}", "web").image("v1")
        assert digest.startswith("sha256:")
        second = subprocess.run(argv, cwd=registries.ROOT, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert second.stderr.startswith(f"shipway: the registry cannot serve on 127.0.0.1:{port}: ")
    finally:
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (0, "")
