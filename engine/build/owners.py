"""`--chown` and a folder's owner: names and numbers, looked up in the image's own /etc/passwd and /etc/group.

https://docs.docker.com/reference/dockerfile/#copy---chown---chmod
"""

from __future__ import annotations

from engine.build.problems import DockerfileError, did_you_mean
from engine.build.trees import FILE, Tree

_MAX_FILE = 16 << 20
_MAX_ID = (1 << 32) - 2


def find_owner(tree: Tree, text: str) -> tuple[int, int]:
    """`user`, `user:group`, `1000`, `1000:1000` → uid and gid. Raises DockerfileError.

    A number alone is the group's number too; a name alone brings the group that it has in /etc/passwd.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise DockerfileError(f'invalid owner "{text}": write it as user, user:group or with numbers')
    uid, gid = _user(tree, user)
    return uid, _group(tree, group) if group else gid


def _user(tree: Tree, name: str) -> tuple[int, int]:
    if name.isdecimal():
        return _number(name), _number(name)
    rows = _rows(tree, "etc/passwd", 4)
    for row in rows:
        if row[0] == name and row[2].isdecimal() and row[3].isdecimal():
            return int(row[2]), int(row[3])
    raise DockerfileError(f"no such user: {name}{did_you_mean(name, [row[0] for row in rows])}")


def _group(tree: Tree, name: str) -> int:
    if name.isdecimal():
        return _number(name)
    rows = _rows(tree, "etc/group", 3)
    for row in rows:
        if row[0] == name and row[2].isdecimal():
            return int(row[2])
    raise DockerfileError(f"no such group: {name}{did_you_mean(name, [row[0] for row in rows])}")


def _number(text: str) -> int:
    if len(text) > 10 or int(text) > _MAX_ID:
        raise DockerfileError(f"{text} is no user or group id: the largest is {_MAX_ID}")
    return int(text)


def _rows(tree: Tree, path: str, least: int) -> list[list[str]]:
    real = tree.resolve(path)
    entry = tree.entry(real) if real else None
    if not real or entry is None or entry.kind != FILE:
        return []
    lines = tree.read(real, _MAX_FILE).decode("utf-8", "surrogateescape").splitlines()
    return [row for line in lines if len(row := line.split(":")) >= least]
