"""Which sources of ADD are URLs and which are git repositories.

https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, urlsplit, urlunsplit

from engine.build.mounts import boolean
from engine.build.problems import DockerfileError, did_you_mean

_SCP_LIKE = re.compile(r"(?:[a-zA-Z0-9._-]+@)[a-zA-Z0-9._\[\]:-]*?:(?!//).+")
_SWITCHES = ("submodules", "keep-git-dir", "fetch-by-commit")
_QUERIES = ("ref", "tag", "branch", "subdir", "checksum", "commit", "mtime", *_SWITCHES)


@dataclass(frozen=True)
class GitSource:
    """A repository, what to take of it (empty for its HEAD) and the folder in it (empty for the whole).

    `checksum` is the commit that it must be; `keep_git_dir` None where the address does not say.
    """

    remote: str
    ref: str = ""
    subdirectory: str = ""
    checksum: str = ""
    submodules: bool = True
    keep_git_dir: bool | None = None


def is_url(source: str) -> bool:
    """Whether ADD downloads it as a file."""
    return source.startswith(("http://", "https://")) and not is_git(source)


def is_git(source: str) -> bool:
    """Whether ADD fetches it with git."""
    return _split(source) is not None


def parse_git(source: str) -> GitSource | None:
    """`git@host:path`, `git://`, `ssh://`, `https://….git`, each with `#ref:folder` or `?ref=…&subdir=…`.

    None for all else. Raises DockerfileError for a query that makes no sense.
    """
    parts = _split(source)
    if parts is None:
        return None
    remote, query, fragment = parts
    ref, _, folder = fragment.partition(":")
    found = GitSource(remote, ref, folder)
    return _with_query(found, query) if query else found


def _split(source: str) -> tuple[str, str, str] | None:
    """A repository's address, its query and its fragment."""
    if not source.startswith(("http://", "https://", "git://", "ssh://")):
        remote, _, fragment = source.partition("#")
        return (remote, "", fragment) if _SCP_LIKE.match(remote) else None
    try:
        url = urlsplit(source)
    except ValueError:
        return None
    if url.scheme in ("http", "https") and not url.path.endswith(".git"):
        return None
    return urlunsplit((url.scheme, url.netloc, url.path, "", "")), url.query, url.fragment


def _with_query(source: GitSource, query: str) -> GitSource:
    refs = {source.ref} if source.ref else set()
    folders = {source.subdirectory} if source.subdirectory else set()
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if len(values) > 1:
            raise DockerfileError(f'query "{name}" has multiple values')
        (value,) = values
        if not value and name not in _SWITCHES:
            raise DockerfileError(f'query "{name}" has no value')
        match name:
            case "ref":
                refs.add(value)
            case "tag":
                refs.add(value if value.startswith("refs/tags/") else f"refs/tags/{value}")
            case "branch":
                refs.add(value if value.startswith("refs/heads/") else f"refs/heads/{value}")
            case "subdir":
                folders.add(value)
            case "checksum" | "commit":
                source = replace(source, checksum=value)
            case "submodules":
                source = replace(source, submodules=not value or boolean(name, value))
            case "keep-git-dir":
                source = replace(source, keep_git_dir=not value or boolean(name, value))
            case "mtime":
                if value != "checkout":
                    raise DockerfileError(f'mtime "{value}" is not offered: files get the time of the checkout')
            case "fetch-by-commit":
                pass  # commits are always asked for by their own name
            case _:
                raise DockerfileError(f'unexpected query "{name}"{did_you_mean(name, _QUERIES)}')
    for what, given in (("ref", refs), ("subdir", folders)):
        if len(given) > 1:
            raise DockerfileError(f"{what} conflicts: {' vs '.join(sorted(given))}")
    return replace(source, ref="".join(refs), subdirectory="".join(folders))
