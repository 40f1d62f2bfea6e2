"""`docker build ADDRESS`: a git repository, an archive, or a lone Dockerfile, fetched by the engine.

Under the same policy as ADD: who may build need not be allowed to reach what the engine can reach.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.build.addresses import AddressPolicy
from engine.build.context import Context, FolderContext
from engine.build.lexer import MAX_FILE
from engine.build.remote import GitSource, is_url, parse_git
from engine.build.steps.add import unpacked
from engine.build.steps.download import download
from engine.build.steps.repository import checkout
from engine.build.steps.workspace import Workspace
from engine.build.threads import in_thread
from engine.build.trees import FolderTree
from engine.errors import InvalidInput

_Later = Callable[[Callable[[], None]], object]


@dataclass(frozen=True)
class RemoteContext:
    """What came: a context, or a Dockerfile without any files."""

    context: Context | None
    dockerfile: bytes | None = None


@asynccontextmanager
async def fetched(
    address: str, spaces: Path, policy: AddressPolicy, agent: Path | None = None
) -> AsyncIterator[RemoteContext]:
    """The context at `address` while the block lasts; `agent` is an ssh agent's socket.

    Raises InvalidInput, Forbidden, Unavailable.
    """
    with ExitStack() as stack:
        space = await in_thread(lambda: Workspace(spaces, ()))
        stack.callback(space.remove)
        folder = space.scratch_folder("context")
        git = parse_git(address)
        if git is not None:
            yield RemoteContext(await _repository(git, folder, policy, agent, stack.callback))
        elif is_url(address):
            yield await _archive_or_file(address, folder, policy, stack.callback)
        else:
            raise InvalidInput(f"{address} is no build context: name a git repository, or an http or https address")


async def _repository(
    git: GitSource,
    folder: Path,
    policy: AddressPolicy,
    agent: Path | None,
    later: _Later,
) -> Context:
    source = await checkout(
        git, folder, keep_git_dir=bool(git.keep_git_dir), checksum=git.checksum, policy=policy, agent=agent
    )
    later(source.tree.close)
    assert isinstance(source.tree, FolderTree)
    return FolderContext(folder / source.picked.path)


async def _archive_or_file(address: str, folder: Path, policy: AddressPolicy, later: _Later) -> RemoteContext:
    source = await download(address, folder, "content", "", policy)
    later(source.tree.close)
    found = await in_thread(lambda: unpacked(source, folder))
    if found is not None:
        later(found[1].close)
        return RemoteContext(found[1])
    size = os.stat(folder / "content").st_size
    if size > MAX_FILE:
        raise InvalidInput(f"{address}: {size} bytes are no archive, and too many for a Dockerfile")
    return RemoteContext(None, await in_thread((folder / "content").read_bytes))
