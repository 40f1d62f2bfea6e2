"""ADD of a git repository: one commit's files, without the repository's power over the machine.

https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository
"""

from __future__ import annotations

import asyncio
import posixpath
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from engine.build.addresses import AddressPolicy
from engine.build.filematch import clean
from engine.build.problems import DockerfileError
from engine.build.remote import GitSource
from engine.build.selection import Picked
from engine.build.steps.copy import Source
from engine.build.steps.git import Git
from engine.build.steps.logins import Logins
from engine.build.trees import FOLDER, FolderTree

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_PLAIN_REF = re.compile(r"[A-Za-z0-9_./@+{}^~-]*\Z")
_SCHEMES = ("https", "http", "git", "ssh")
_MOST_SUBMODULES = 100
_DEEPEST = 5


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
    logins: Logins,
) -> Source:
    """Fetches one commit into the empty `folder`. Raises DockerfileError, Forbidden, Unavailable.

    `checksum` is the commit that it must be, whole or its beginning; `agent` an ssh agent's socket.
    """
    if source.ref.startswith("-") or not _PLAIN_REF.match(source.ref):
        raise DockerfileError(f"{source.ref} is no name of a git commit")
    fetching = _Fetching(policy, agent, logins)
    wanted = source.ref or (checksum if is_commit(checksum) else "") or "HEAD"
    git = await fetching.fetch(folder, source.remote, wanted)
    commit = (await git.run("rev-parse", "HEAD")).strip()
    if checksum and not commit.startswith(checksum.lower()):
        raise DockerfileError(f"{source.remote}: expected checksum to match {checksum}, got {commit}")
    if source.submodules:
        await fetching.submodules(git, source.remote, _DEEPEST)
    if not keep_git_dir:
        for made in fetching.folders:
            await asyncio.to_thread(shutil.rmtree, made / ".git")
    tree = FolderTree.at(folder, own_root=True)
    path = tree.resolve(source.subdirectory)
    entry = tree.entry(path) if path is not None else None
    if path is None or entry is None or entry.kind != FOLDER:
        tree.close()
        raise DockerfileError(f"{source.remote}: no folder {source.subdirectory} in {commit[:12]}")
    return Source(tree, Picked(path, "", entry), unpacked=True)


class _Fetching:
    """A repository and its submodules, each address checked before it is asked."""

    def __init__(self, policy: AddressPolicy, agent: Path | None, logins: Logins) -> None:
        self._policy = policy
        self._agent = agent
        self._logins = logins
        self._host = ""  # of the repository that was asked for
        self.folders: list[Path] = []

    async def fetch(self, folder: Path, remote: str, ref: str) -> Git:
        known = not self.folders or _host(remote) == self._host
        self._host = self._host or _host(remote)
        git = await Git.at(folder, remote, self._policy, self._agent, self._logins if known else self._logins.named())
        self.folders.append(folder)
        await git.run("init", "--quiet")
        await git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", remote, ref)
        await git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
        return git

    async def submodules(self, git: Git, remote: str, depth: int) -> None:
        """Those that .gitmodules names, and theirs. git's own way would ask addresses that nobody has checked."""
        listing = git.folder / ".gitmodules"
        if listing.is_symlink() or not listing.is_file():
            return
        for path, address in _listed(await git.run("config", "--null", "--list", "--file", ".gitmodules")):
            commit = await self._recorded(git, path)
            folder = git.folder / path
            if not commit or folder.resolve() != git.folder.resolve() / path:
                continue
            if depth == 0 or len(self.folders) > _MOST_SUBMODULES:
                raise DockerfileError(f"{remote}: too many submodules, at {path}")
            target = _resolved(address, remote)
            inner = await self.fetch(folder, target, commit)
            await self.submodules(inner, target, depth - 1)

    async def _recorded(self, git: Git, path: str) -> str:
        """The commit that the tree has at `path`; empty where there is no submodule."""
        found = (await git.run("ls-tree", "HEAD", "--", path)).split()
        return found[2] if found[:2] == ["160000", "commit"] else ""


def _host(remote: str) -> str:
    return urlsplit(remote).hostname or ""


def _listed(settings: str) -> list[tuple[str, str]]:
    """Path and address of each submodule."""
    found: dict[str, dict[str, str]] = {}
    for setting in settings.split("\0"):
        key, _, value = setting.partition("\n")
        section, _, name = key.rpartition(".")
        if section.startswith("submodule.") and name in ("path", "url"):
            found.setdefault(section, {})[name] = value
    pairs = ((one.get("path", ""), one.get("url", "")) for one in found.values())
    return [(path, url) for path, url in pairs if path and url and _plain(path)]


def _plain(path: str) -> bool:
    return clean(path) == path and not path.startswith(("/", "..", ".git"))


def _resolved(address: str, remote: str) -> str:
    """A submodule's address: one beginning with a dot is relative to the repository's own. Raises DockerfileError."""
    if address.startswith(("./", "../")):
        if "://" in remote:
            parts = urlsplit(remote)
            address = f"{parts.scheme}://{parts.netloc}{posixpath.normpath(posixpath.join(parts.path, address))}"
        else:
            host, _, path = remote.partition(":")
            address = f"{host}:{posixpath.normpath(posixpath.join(path, address))}"
    scheme, mark, _ = address.partition("://")
    if address.startswith("-") or (scheme not in _SCHEMES if mark else "@" not in address.partition(":")[0]):
        raise DockerfileError(f"submodule {address}: only {', '.join(_SCHEMES)} addresses can be fetched")
    return address
