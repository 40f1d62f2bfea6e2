"""ADD of a git repository: one commit's files, without the repository's power over the machine.

https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from engine.build.addresses import AddressPolicy
from engine.build.problems import DockerfileError
from engine.build.remote import GitSource
from engine.build.selection import Picked
from engine.build.steps.copy import Source
from engine.build.trees import FOLDER, FolderTree
from engine.errors import Unavailable

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_PLAIN_REF = re.compile(r"[A-Za-z0-9_./@+{}^~-]*\Z")
_SETTINGS = (
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "http.followRedirects=false",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
)
_LAST_WORDS = 400


def is_commit(ref: str) -> bool:
    """Whether a ref can mean one thing only."""
    return _COMMIT.match(ref) is not None


async def checkout(
    source: GitSource,
    folder: Path,
    *,
    keep_git_dir: bool,
    checksum: str,
    policy: AddressPolicy,
    agent: Path | None,
) -> Source:
    """Fetches one commit into the empty `folder`. Raises DockerfileError, Forbidden, Unavailable.

    `checksum` is the commit that it must be, whole or its beginning; `agent` an ssh agent's socket.
    """
    if source.ref.startswith("-") or not _PLAIN_REF.match(source.ref):
        raise DockerfileError(f"{source.ref} is no name of a git commit")
    pins = await _pinned_addresses(source.remote, policy)
    git = _Git(folder, pins, agent)
    await git.run("init", "--quiet")
    await git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--", source.remote, source.ref or "HEAD")
    await git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
    commit = (await git.run("rev-parse", "HEAD")).strip()
    if checksum and not commit.startswith(checksum.lower()):
        raise DockerfileError(f"{source.remote}: expected checksum to match {checksum}, got {commit}")
    if not keep_git_dir:
        await asyncio.to_thread(shutil.rmtree, folder / ".git")
    tree = FolderTree.at(folder, own_root=True)
    path = tree.resolve(source.subdirectory)
    entry = tree.entry(path) if path is not None else None
    if path is None or entry is None or entry.kind != FOLDER:
        tree.close()
        raise DockerfileError(f"{source.remote}: no folder {source.subdirectory} in {commit[:12]}")
    return Source(tree, Picked(path, "", entry), unpacked=True)


async def _pinned_addresses(remote: str, policy: AddressPolicy) -> list[str]:
    """Settings that make git connect to the very addresses that were checked."""
    if "://" not in remote:
        host = remote.partition("@")[2].partition(":")[0]
        await policy.resolve(host, 22)
        return []
    parts = urlsplit(remote)
    port = parts.port or {"https": 443, "http": 80, "ssh": 22}.get(parts.scheme, 9418)
    addresses = await policy.resolve(parts.hostname or "", port)
    if parts.scheme not in ("http", "https"):
        return []
    return [f"http.curloptResolve={parts.hostname}:{port}:{','.join(addresses)}"]


class _Git:
    def __init__(self, folder: Path, settings: list[str], agent: Path | None) -> None:
        self._folder = folder
        self._options = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
        self._env = _environment(agent)

    async def run(self, *words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "git",
            *self._options,
            *words,
            cwd=self._folder,
            env=dict(self._env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            said = " ".join(err.decode("utf-8", "replace").split())[-_LAST_WORDS:]
            raise Unavailable(f"git {words[0]} failed: {said}")
        return out.decode("utf-8", "replace")


def _environment(agent: Path | None) -> Mapping[str, str]:
    """Nothing of the engine's own: no settings, no credentials, no questions."""
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oUserKnownHostsFile=/dev/null",
    }
    if agent is not None:
        env["SSH_AUTH_SOCK"] = str(agent)
    for name in ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env
