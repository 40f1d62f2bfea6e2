"""`docker build ADDRESS`: a git repository, an archive, or a lone Dockerfile, fetched by the engine.

Under the same policy as ADD: who may build need not be allowed to reach what the engine can reach.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.build.addresses import AddressPolicy
from engine.build.context import Context, FolderContext
from engine.build.lexer import MAX_FILE
from engine.build.remote import is_url, parse_git
from engine.build.steps.add import unpacked
from engine.build.steps.copy import Source
from engine.build.steps.download import download
from engine.build.steps.logins import Logins
from engine.build.steps.repository import checkout
from engine.build.steps.workspace import Workspace
from engine.errors import InvalidInput
from engine.threads import to_the_end

_Later = Callable[[Callable[[], None]], object]


@dataclass(frozen=True)
class RemoteContext:
    """What came: a context, or a Dockerfile without any files."""

    context: Context | None
    dockerfile: bytes | None = None


@asynccontextmanager
async def fetched(
    address: str,
    spaces: Path,
    policy: AddressPolicy,
    agent: Path | None,
    secrets: Mapping[str, bytes],
    *,
    keep_git_dir: bool,
) -> AsyncIterator[RemoteContext]:
    """The context at `address` while the block lasts; `agent` is an ssh agent's socket, `secrets` are the build's.

    Raises InvalidInput, Forbidden, Unavailable.
    """
    with ExitStack() as stack:
        space = await to_the_end(lambda: Workspace(spaces, ()))
        stack.callback(space.remove)
        folder = space.scratch_folder("context")
        git = parse_git(address)
        if git is not None:
            source = await checkout(
                git,
                folder,
                keep_git_dir=bool(git.keep_git_dir) or keep_git_dir,
                checksum=git.checksum,
                policy=policy,
                agent=agent,
                logins=Logins(secrets),
            )
            stack.callback(source.tree.close)
            yield RemoteContext(FolderContext(folder / source.picked.path))
        elif is_url(address):
            source = await download(address, folder, "content", "", policy, Logins(secrets))
            stack.callback(source.tree.close)
            yield await _archive_or_file(address, source, folder, stack.callback)
        else:
            raise InvalidInput(f"{address} is no build context: name a git repository, or an http or https address")


async def _archive_or_file(address: str, source: Source, folder: Path, later: _Later) -> RemoteContext:
    found = await to_the_end(lambda: unpacked(source, folder))
    if found is not None:
        later(found[1].close)
        return RemoteContext(found[1])
    size = os.stat(folder / "content").st_size
    if size > MAX_FILE:
        raise InvalidInput(f"{address}: {size} bytes are no archive, and too many for a Dockerfile")
    return RemoteContext(None, await to_the_end((folder / "content").read_bytes))
