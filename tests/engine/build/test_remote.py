from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from engine.build import Builder, BuildRequest, DockerfileError, StepError
from engine.build.addresses import AddressPolicy
from engine.build.remote import GitSource, is_url, parse_git
from engine.build.steps.logins import Logins
from engine.config import EngineConfig
from engine.errors import Forbidden, InvalidInput, Unavailable
from engine.images.image import Image
from tests.engine.build.conftest import Bench
from tests.engine.tars import tar_of

pytestmark = pytest.mark.kernel

BODY = b"downloaded"
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture
async def site(bench: Bench) -> AsyncIterator[str]:
    """A web server on loopback that the builder is allowed to reach; counts requests in its app."""

    async def file(request: web.Request) -> web.Response:
        return web.Response(body=BODY, headers={"Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT"})

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    app = web.Application()

    async def context(request: web.Request) -> web.Response:
        sent = tar_of({"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": b"A"})
        return web.Response(body=gzip.compress(sent))

    async def lone(request: web.Request) -> web.Response:
        return web.Response(body=b"FROM scratch\nRUN write /x lone\n")

    async def private(request: web.Request) -> web.Response:
        asked = request.headers.get("Authorization", "nobody")
        return web.Response(body=asked.encode())

    app.router.add_get("/private", private)
    app.router.add_get("/d/file.bin", file)
    app.router.add_get("/context.tar.gz", context)
    app.router.add_get("/Dockerfile", lone)
    app.router.add_get("/away", away)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    bench.builder._policy = AddressPolicy(["127.0.0.1/32"])
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_url_becomes_a_file(bench: Bench, site: str) -> None:
    image = await bench.build(f"FROM scratch\nADD {site}/d/file.bin /to/\nADD {site}/d/file.bin /named\n")
    assert bench.files(image) == {"to/": "", "to/file.bin": "downloaded", "named": "downloaded"}
    status = (bench.images.lowerdirs(image.id)[0] / "named").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o600, 1_000_000_000)


async def test_a_checksum_is_checked_and_spares_the_download(bench: Bench, site: str) -> None:
    text = f"FROM scratch\nADD --checksum={DIGEST} {site}/d/file.bin /x\n"
    first = await bench.build(text)
    bench.builder._policy = AddressPolicy()
    assert (await bench.build(text)).id == first.id
    bench.builder._policy = AddressPolicy(["127.0.0.0/8"])
    with pytest.raises(StepError, match=f"digest mismatch {DIGEST}"):
        await bench.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {site}/d/file.bin /x\n")
    with pytest.raises(DockerfileError, match="invalid checksum"):
        await bench.build(f"FROM scratch\nADD --checksum=sha256:12 {site}/d/file.bin /x\n")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nothing", "404 Not Found"),
        ("/away?to=http://169.254.169.254/latest", "169.254.169.254, which is no public address"),
        ("/away?to=http://[::1]/x", "::1, which is no public address"),
        ("/away?to=file:///etc/passwd", "only http and https can be downloaded"),
        ("/away?to=/away?to=/away", "failed"),
    ],
)
async def test_failing_downloads(bench: Bench, site: str, path: str, message: str) -> None:
    with pytest.raises(StepError) as failed:
        await bench.build(f"FROM scratch\nADD {site}{path} /x\n")
    assert message in str(failed.value)


async def test_a_host_is_told_who_asks_and_no_other_is(bench: Bench, site: str) -> None:
    secrets = {"HTTP_AUTH_TOKEN_127.0.0.1": b"t0k\n", "HTTP_AUTH_TOKEN_localhost": b"other"}
    image = await bench.build(f"FROM scratch\nADD {site}/private /x\n", secrets=secrets)
    assert bench.files(image)["x"] == "Bearer t0k"
    bench.builder._policy = AddressPolicy(["127.0.0.1/32", "::1/128"])
    elsewhere = site.replace("127.0.0.1", "localhost")
    image = await bench.build(f"FROM scratch\nADD {site}/away?to={elsewhere}/private /x\n", secrets=secrets)
    assert bench.files(image)["x"] == "nobody"
    secrets["HTTP_AUTH_HEADER_127.0.0.1"] = b"Basic bWU="
    image = await bench.build(f"FROM scratch\nADD {site}/private /y\n", secrets=secrets)
    assert bench.files(image)["y"] == "Basic bWU="
    secrets["HTTP_AUTH_HEADER_127.0.0.1"] = b"x\r\nHost: y"
    with pytest.raises(StepError, match="must be one line"):
        await bench.build(f"FROM scratch\nADD {site}/private /z\n", secrets=secrets)


def test_what_git_tells_whom() -> None:
    logins = Logins({"GIT_AUTH_TOKEN": b"all", "GIT_AUTH_TOKEN.a.example": b"one", "GIT_AUTH_HEADER.b.example": b"X y"})
    assert logins.for_git("a.example") == "basic " + base64.b64encode(b"x-access-token:one").decode()
    assert logins.for_git("b.example") == "X y"
    assert logins.for_git("c.example") == "basic " + base64.b64encode(b"x-access-token:all").decode()
    assert logins.named().for_git("c.example") == ""
    assert logins.named().for_git("b.example") == "X y"
    assert "all" not in repr(logins)


async def test_a_url_without_a_name_needs_a_destination_file(bench: Bench, site: str) -> None:
    with pytest.raises(StepError, match="cannot determine a file name"):
        await bench.build(f"FROM scratch\nADD {site}/ /to/\n")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.1.1", False), ("172.16.0.1", False),
        ("169.254.1.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("100.64.0.1", False), ("::1", False),
        ("fe80::1%eth0", False), ("fc00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("255.255.255.255", False),
        ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True),
    ],
)  # fmt: skip
async def test_policy(address: str, allowed: bool) -> None:
    policy = AddressPolicy()
    if allowed:
        assert await policy.resolve(address, 80) == [address]
    else:
        with pytest.raises(Forbidden):
            await policy.resolve(address, 80)
    assert await AddressPolicy(["127.0.0.0/8"]).resolve("localhost", 80)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("https://example.com/a/b.git", GitSource("https://example.com/a/b.git")),
        ("https://example.com/a/b.git#v1:docs/x", GitSource("https://example.com/a/b.git", "v1", "docs/x")),
        ("git@example.com:a/b.git#main", GitSource("git@example.com:a/b.git", "main")),
        ("ssh://git@example.com/a", GitSource("ssh://git@example.com/a")),
        ("git://example.com/a#:sub", GitSource("git://example.com/a", "", "sub")),
        ("https://example.com/a.git?branch=b&subdir=s", GitSource("https://example.com/a.git", "refs/heads/b", "s")),
        ("https://example.com/a.git?tag=v1", GitSource("https://example.com/a.git", "refs/tags/v1")),
        (
            "https://example.com/a.git?ref=x&checksum=12&submodules=0&keep-git-dir#x:d",
            GitSource("https://example.com/a.git", "x", "d", "12", submodules=False, keep_git_dir=True),
        ),
        ("https://example.com/a/b.tar.gz", None),
        ("folder/file.git", None),
        ("a@b/c", None),
    ],
)
def test_git_sources(source: str, wanted: GitSource | None) -> None:
    assert parse_git(source) == wanted
    assert is_url(source) == (wanted is None and source.startswith("https:"))


@pytest.fixture
async def repository(tmp_path: Path, bench: Bench) -> AsyncIterator[str]:
    """A repository served by git itself on loopback."""
    work = tmp_path / "repos" / "one"
    work.mkdir(parents=True)

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words],
            cwd=work, check=True, capture_output=True, text=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    (work / "sub").mkdir()
    (work / "sub/file").write_text("in git")
    (work / "top").write_text("top")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = await asyncio.create_subprocess_exec(
        "git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}",
        f"--base-path={tmp_path}/repos", f"{tmp_path}/repos",
        stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.01)
    bench.builder._policy = AddressPolicy(["127.0.0.1/32"])
    yield f"git://127.0.0.1:{port}/one"
    os.killpg(daemon.pid, 15)
    await daemon.wait()


async def test_a_repository_becomes_files(bench: Bench, repository: str) -> None:
    image = await bench.build(
        f"FROM scratch\nADD {repository} /all/\nADD {repository}#v1:sub /sub\nADD --keep-git-dir {repository} /kept\n"
    )
    files = bench.files(image)
    assert files["all/top"] == "top"
    assert files["sub/file"] == "in git"
    assert "all/.git/HEAD" not in files
    assert "kept/.git/HEAD" in files


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("ref=a#b", "ref conflicts: a vs b"), ("tags=1", "did you mean tag"),
        ("subdir=", 'query "subdir" has no value'),
        ("ref=a&ref=b", 'query "ref" has multiple values'), ("mtime=commit", "not offered"),
    ],
)  # fmt: skip
def test_queries_that_make_no_sense(query: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        parse_git(f"https://example.com/a.git?{query}")


async def test_submodules_come_along(bench: Bench, repository: str, tmp_path: Path) -> None:
    outer = tmp_path / "repos" / "outer"
    outer.mkdir()

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.allow=always", *words],
            cwd=outer, check=True, capture_output=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
        )  # fmt: skip

    git("init", "-q", "-b", "main")
    git("submodule", "add", "-q", str(tmp_path / "repos/one"), "inner")
    git("config", "--file", ".gitmodules", "submodule.inner.url", "../one")
    git("commit", "-q", "-a", "-m", "outer")
    address = repository.removesuffix("one") + "outer"
    image = await bench.build(f"FROM scratch\nADD {address} /with/\nADD {address}?submodules=false /without/\n")
    files = bench.files(image)
    assert files["with/inner/sub/file"] == "in git"
    assert "with/inner/.git" not in files
    assert "without/inner/top" not in files
    git("config", "--file", ".gitmodules", "submodule.inner.url", "file:///etc")
    git("commit", "-q", "-a", "-m", "astray")
    with pytest.raises(StepError, match="only https, http, git, ssh addresses"):
        await bench.build(f"FROM scratch\nADD {address} /x/\n")


async def test_refused_repositories(bench: Bench, repository: str) -> None:
    for ref, message in (
        ("none", "git fetch failed"),
        (":nowhere", "no folder nowhere"),
        ("--upload-pack=x", "no name of a git"),
    ):
        with pytest.raises(StepError, match=message):
            await bench.build(f"FROM scratch\nADD {repository}#{ref} /x\n")
    with pytest.raises(StepError, match="expected checksum to match 0123"):
        await bench.build(f"FROM scratch\nADD --checksum=0123 {repository} /x\n")
    bench.builder._policy = AddressPolicy()
    with pytest.raises(StepError, match="no public address"):
        await bench.build(f"FROM scratch\nADD {repository} /x\n")


def commit_all(folder: Path) -> None:
    words = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for more in (["add", "."], ["commit", "-q", "-m", "more"]):
        subprocess.run([*words, *more], cwd=folder, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})


async def build_at(bench: Bench, address: str) -> Image:
    async with bench.builder.remote_context(address) as source:
        request = BuildRequest(context=source.context, dockerfile_content=source.dockerfile)
        return await bench.builder.build(request, bench.pull, bench.events.append)


async def test_contexts_from_addresses(bench: Bench, site: str) -> None:
    assert bench.files(await build_at(bench, f"{site}/context.tar.gz")) == {"a": "A"}
    assert bench.files(await build_at(bench, f"{site}/away?to=/Dockerfile")) == {"x": "lone"}
    with pytest.raises(Unavailable, match="404 Not Found"):
        await build_at(bench, f"{site}/nothing")
    with pytest.raises(InvalidInput, match="is no build context"):
        await build_at(bench, "/etc")


async def test_a_context_from_a_repository(bench: Bench, repository: str, tmp_path: Path) -> None:
    work = tmp_path / "repos" / "one"
    (work / "sub/Dockerfile").write_text("FROM scratch\nCOPY . /in/\n")
    commit_all(work)
    files = bench.files(await build_at(bench, f"{repository}#main:sub"))
    assert files["in/file"] == "in git"
    bench.builder._policy = AddressPolicy()
    with pytest.raises(Forbidden, match="no public address"):
        await build_at(bench, repository)


async def test_copy_takes_neither(bench: Bench) -> None:
    for source, message in (("https://a/b", "source can't be a URL"), ("git@a:b", "source can't be a git ref")):
        with pytest.raises(DockerfileError, match=message):
            await bench.build(f"FROM scratch\nCOPY {source} /x\n")


def test_builders_download_from_public_addresses_only(tmp_path: Path, bench: Bench) -> None:
    builder = Builder(EngineConfig(data_root=tmp_path / "b"), bench.images, bench.runner)
    assert not builder._policy._allowed
    builder.close()
    config = EngineConfig(data_root=tmp_path / "c", build_networks=("10.1.0.0/16",))
    builder = Builder(config, bench.images, bench.runner)
    builder._policy.check("inside", "10.1.2.3")
    builder.close()
