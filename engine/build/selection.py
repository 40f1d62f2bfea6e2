"""Which files the sources of COPY and ADD mean in a tree, and a digest of all that would be copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.build.filematch import PatternError, clean, compiled, has_wildcards, unescape
from engine.build.ignore import IgnoreRules
from engine.build.problems import DockerfileError, did_you_mean
from engine.build.trees import FILE, FOLDER, Entry, Tree


@dataclass(frozen=True)
class Picked:
    """One source found: where it is in its tree, links followed, and the name it has at its destination.

    With --parents `below` is the path of folders to keep, and `pivot` where that path begins in the tree.
    """

    path: str
    name: str
    entry: Entry
    below: str | None = None
    pivot: str = ""


def pick(tree: Tree, sources: Sequence[str], *, parents: bool = False, what: str = "build context") -> list[Picked]:
    """The files and folders that `sources` name, in their order, wildcards in the order of names.

    Wildcards may match nothing, as BuildKit has it. Raises DockerfileError where a source without them is not there.
    """
    found: list[Picked] = []
    for source in sources:
        pivot, pattern = _pivot(source) if parents else ("", clean("/" + source).lstrip("/"))
        if has_wildcards(pattern):
            try:
                paths = list(_glob(tree, pivot, pattern.split("/")))
            except PatternError as error:
                raise DockerfileError(str(error)) from None
        else:
            paths = [unescape(pattern)]
        for path in paths:
            whole = f"{pivot}/{path}".strip("/")
            real = tree.resolve(whole)
            entry = tree.entry(real) if real is not None else None
            if real is None or entry is None:
                raise DockerfileError(_missing(tree, whole, source, what))
            folder, _, name = path.rpartition("/")
            found.append(Picked(real, name, entry, folder if parents else None, pivot))
    return found


def _pivot(source: str) -> tuple[str, str]:
    """--parents keeps the folders after `/./`, or all of them."""
    before, mark, after = source.partition("/./")
    if not mark:
        before, after = "", source
    return clean("/" + before).lstrip("/"), clean("/" + after).lstrip("/")


def _glob(tree: Tree, root: str, parts: list[str]) -> Iterator[str]:
    """Paths below `root`, relative to it. `**` is any number of folders."""
    first, *rest = parts
    base = tree.resolve(root)
    if base is None:
        return
    entry = tree.entry(base)
    if entry is None or entry.kind != FOLDER:
        return
    if first == "**" and rest:
        yield from _glob(tree, root, rest)
        for name, child in tree.children(base):
            if child.kind == FOLDER:
                yield from (f"{name}/{path}" for path in _glob(tree, f"{base}/{name}".strip("/"), parts))
        return
    if not has_wildcards(first):
        names = [unescape(first)]
    else:
        matches = compiled(first).fullmatch
        names = [name for name, _ in tree.children(base) if matches(name)]
    for name in names:
        below = f"{base}/{name}".strip("/")
        if rest:
            yield from (f"{name}/{path}" for path in _glob(tree, below, rest))
        elif tree.entry(below):
            yield name


def _missing(tree: Tree, path: str, source: str, what: str) -> str:
    folder, _, name = path.rpartition("/")
    parent = tree.resolve(folder)
    entry = tree.entry(parent) if parent is not None else None
    siblings = [known for known, _ in tree.children(parent or "")] if entry and entry.kind == FOLDER else []
    excluded = " or excluded by .dockerignore" if what == "build context" else ""
    return f'"{source}": file not found in {what}{excluded}{did_you_mean(name, siblings)}'


def walk(tree: Tree, path: str, excluded: IgnoreRules | None = None) -> Iterator[tuple[str, Entry]]:
    """What is below a folder, each folder before its content, names sorted. Paths are relative to it."""
    todo: list[tuple[str, Iterator[tuple[str, Entry]]]] = [("", tree.children(path))]
    while todo:
        prefix, names = todo[-1]
        for name, entry in names:
            relative = prefix + name
            hidden = bool(excluded) and excluded is not None and excluded.matches(relative)
            if hidden and not (entry.kind == FOLDER and excluded is not None and excluded.has_exceptions):
                continue
            if not hidden:
                yield relative, entry
            if entry.kind == FOLDER:
                todo.append((relative + "/", tree.children(f"{path}/{relative}".strip("/"))))
                break
        else:
            todo.pop()


def digest_of(tree: Tree, picked: Sequence[Picked], excludes: Sequence[str] = ()) -> str:
    """SHA-256 over names, kinds, modes, owners, links, attributes and contents. Times do not count."""
    rules = IgnoreRules(excludes) if excludes else None
    hasher = hashlib.sha256()
    shared: dict[object, int] = {}

    def take(label: str, path: str, entry: Entry) -> None:
        same = shared.setdefault(entry.same, len(shared)) if entry.same is not None else ""
        content = tree.digest(path) if entry.kind == FILE else ""
        attributes = sorted(tree.xattrs(path).items()) if entry.kind in (FILE, FOLDER) else ()
        record = (label, *entry[:4], entry.target, entry.device, same, content, attributes)
        hasher.update(repr(record).encode("utf-8", "surrogateescape"))

    for root in picked:
        take(f"{root.below or ''}/{root.name}", root.path, root.entry)
        if root.entry.kind == FOLDER:
            for relative, entry in walk(tree, root.path, rules):
                take(relative, f"{root.path}/{relative}".strip("/"), entry)
    return hasher.hexdigest()
