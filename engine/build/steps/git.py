"""The git command with nothing of the engine's own: no settings, no credentials, no questions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from engine.build.addresses import AddressPolicy
from engine.build.steps.logins import Logins
from engine.errors import Unavailable

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


def _login(remote: str, logins: Logins) -> dict[str, str]:
    parts = urlsplit(remote)
    login = logins.for_git(parts.hostname or "") if parts.scheme in ("http", "https") else ""
    host = parts.netloc.rpartition("@")[2]
    return {f"http.{parts.scheme}://{host}/.extraHeader": f"Authorization: {login}"} if login else {}


class Git:
    """Runs git in one folder, against addresses that were checked. Use `at`."""

    def __init__(self, folder: Path, settings: list[str], agent: Path | None, secret: Mapping[str, str]) -> None:
        """Settings that are `secret` are in no list of processes."""
        self.folder = folder
        self._options = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
        self._env = {**_environment(agent), "GIT_CONFIG_COUNT": str(len(secret))}
        for number, (key, value) in enumerate(secret.items()):
            self._env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}

    @classmethod
    async def at(cls, folder: Path, remote: str, policy: AddressPolicy, agent: Path | None, logins: Logins) -> Git:
        """For fetching from `remote`; `agent` is an ssh agent's socket. Raises Forbidden, OSError, DockerfileError."""
        return cls(folder, await _pinned_addresses(remote, policy), agent, _login(remote, logins))

    async def run(self, *words: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                *self._options,
                *words,
                cwd=self.folder,
                env=dict(self._env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            raise Unavailable("git is not installed on the engine's host: install it to add repositories") from None
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
