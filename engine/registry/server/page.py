"""A page for people: repositories, their tags, sizes and digests."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import jinja2
from aiohttp import web

from engine.images.manifest import Index, Manifest
from engine.registry.server import errors, state
from engine.registry.server.storage.manifests import StoredManifest, platforms
from engine.registry.server.storage.store import Storage

_PAGE = 200
_UNITS = ("B", "kB", "MB", "GB", "TB")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if count >= 99.95 or unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds else ""


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_templates.filters.update(size=_size, when=_when)


@dataclass(frozen=True)
class Tag:
    """One line of a repository's page. `size` is what a pull brings, in bytes; `pushed` is Unix seconds."""

    name: str
    digest: str
    size: int
    platforms: tuple[str, ...]
    pushed: float


@dataclass(frozen=True)
class Repository:
    """One line of the list. `size` is that of its blobs, in bytes; `pushed` when the youngest tag was, Unix seconds."""

    name: str
    public: bool
    tags: int
    size: int
    pushed: float


async def index(request: web.Request) -> web.Response:
    """`/?q=&last=`: the repositories that this client may see. `/?login` asks for a password first."""
    registry = state.of(request)
    if "login" in request.query:
        await registry.guard.sign_in(request)
    term = request.query.get("q", "").strip().lower()[:200]
    last = request.query.get("last", "")
    names = await asyncio.to_thread(registry.storage.repositories)
    names = await registry.guard.visible(request, [name for name in names if term in name and name > last])
    shown = await asyncio.to_thread(lambda: [_repository(registry.storage, name) for name in names[:_PAGE]])
    following = names[_PAGE - 1] if len(names) > _PAGE else None
    return _answer("repositories.html", repositories=shown, term=term, following=following)


async def repository(request: web.Request) -> web.Response:
    """`/repositories/NAME`: its tags, the youngest first."""
    registry, name = state.of(request), state.repository(request)
    seen = await registry.guard.visible(request, [name])
    if not seen or not registry.storage.exists(name):
        return _answer("absent.html", 404, name=name)
    tags = await asyncio.to_thread(_tags, registry.storage, name)
    size = await asyncio.to_thread(registry.storage.blobs.size_of, name)
    public = registry.storage.is_public(name)
    return _answer("repository.html", name=name, public=public, tags=tags, size=size, host=request.host)


def _answer(template: str, status: int = 200, **values: object) -> web.Response:
    text = _templates.get_template(template).render(values)
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)


def _repository(storage: Storage, name: str) -> Repository:
    tags = storage.manifests.tags(name)
    pushed = max((storage.manifests.pushed_at(name, tag) for tag in tags), default=0.0)
    return Repository(name, storage.is_public(name), len(tags), storage.blobs.size_of(name), pushed)


def _tags(storage: Storage, name: str) -> list[Tag]:
    found = []
    for tag in storage.manifests.tags(name):
        try:
            stored = storage.manifests.find(name, tag)
        except errors.RegistryError:
            continue
        manifest = storage.manifests.read(stored)
        size = _bytes(storage, name, stored, manifest)
        offered = tuple(platforms(manifest)) if manifest is not None else ()
        found.append(Tag(tag, stored.digest, size, offered, storage.manifests.pushed_at(name, tag)))
    return sorted(found, key=lambda tag: (-tag.pushed, tag.name))


def _bytes(storage: Storage, name: str, stored: StoredManifest, manifest: Manifest | Index | None) -> int:
    """Of a manifest's blobs; of an index's images all together, each blob once."""
    blobs: dict[str, int] = {}
    pending = [manifest]
    seen = {stored.digest}
    while pending:
        current = pending.pop()
        if isinstance(current, Manifest):
            blobs |= {blob.digest: blob.size for blob in (current.config, *current.layers)}
        elif isinstance(current, Index):
            for entry in current.manifests:
                if entry.digest not in seen:
                    seen.add(entry.digest)
                    try:
                        pending.append(storage.manifests.read(storage.manifests.find(name, entry.digest)))
                    except errors.RegistryError:
                        continue
    return sum(blobs.values())
