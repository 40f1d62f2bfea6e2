"""docs/webhooks.md: what it tells people to copy works as written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.settings import Settings, load_settings
from tests import needs
from tests.server.conftest import settings_of
from tests.server.gitrepo import PIPELINES, GitRepo
from tests.server.running import SECRET, Running

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "webhooks.md").read_text()


def block(language: str, number: int = 0) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    text: str = found[number]
    return text


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> GitRepo:
    """A bare repository, with the hook of the page and its settings."""
    repo = GitRepo(tmp_path_factory.mktemp("srv") / "web.git")
    repo.git("config", "core.bare", "true")
    shutil.move(repo.folder / ".git", repo.folder.with_suffix(".bare"))
    shutil.rmtree(repo.folder)
    shutil.move(repo.folder.with_suffix(".bare"), repo.folder)
    return repo


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, bare: GitRepo) -> Settings:
    return settings_of(tmp_path_factory.mktemp("documented"), web={"url": bare.url, "secret": SECRET})


@pytest.fixture(scope="module")
def secret_file(bare: GitRepo) -> Path:
    path = bare.folder.parent / "web.secret"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture
def pushed(server: Running, bare: GitRepo, secret_file: Path, tmp_path: Path) -> tuple[str, str]:
    """(the commit, what the push said) after all that the page says was done."""
    hook = bare.folder / "hooks" / "post-receive"
    hook.write_text(block("python").replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
    hook.chmod(0o755)
    for name, value in (
        ("url", f"{server.url}/hooks/generic"),
        ("repository", "web"),
        ("secret-file", str(secret_file)),
    ):
        assert f"git config shipway.{name} " in PAGE
        bare.git("config", f"shipway.{name}", value)
    work = GitRepo(tmp_path / "work")
    sha = work.commit("Pushed by hand", {"pipelines.yaml": PIPELINES, "where": str(tmp_path)})
    done = subprocess.run(
        ["git", "push", "--force", bare.url, "main"], cwd=work.folder, capture_output=True, text=True, check=True
    )
    return sha, done.stderr


def test_the_hook_of_the_page_is_the_one_in_examples() -> None:
    assert block("python") == (ROOT / "examples" / "hooks" / "post-receive").read_text()


def test_the_settings_of_the_page_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(block("yaml"))
    (name,) = yaml.safe_load(block("yaml"))["repositories"]
    assert load_settings({}, file).repositories[name].pipelines_file == "pipelines.yaml"


def test_a_push_begins_runs_and_says_so(server: Running, pushed: tuple[str, str]) -> None:
    sha, said = pushed
    numbers = [int(number) for number in re.findall(r"shipway: run (\d+)", said)]
    assert [server.api(f"/runs/{number}")["pipeline"] for number in numbers] == ["web", "docs"]
    assert {server.api(f"/runs/{number}")["sha"] for number in numbers} == {sha}


def test_the_few_lines_of_shell_do_the_same(server: Running, pushed: tuple[str, str], bare: GitRepo) -> None:
    needs.program("openssl")
    needs.program("curl")
    environment = {**os.environ, "SHIPWAY_SERVER_URL": server.url, "GIT_DIR": bare.url, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["sh", "-euc", block("sh")], cwd=bare.folder.parent, env=environment, capture_output=True, text=True, check=True
    )
    assert re.search(r'"ok":true,"event":\d+,"runs":\[\d+,\d+\]', done.stdout), done.stdout
