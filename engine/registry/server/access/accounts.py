"""The registry's users, in one small file that an administrator may also write by other means."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.errors import Conflict, InvalidInput, NotFound
from engine.images.descriptor import MALFORMED
from engine.registry.server.access import passwords
from engine.registry.server.storage import files

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")
_MAX_NAME = 64
_LEAST_PASSWORD = 8


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """One who can log in. An administrator may do everything, everywhere."""

    password: str
    groups: tuple[str, ...] = ()
    admin: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    users: dict[str, User] = {}


class Accounts:
    """`accounts.json` below the registry's root; read again when it has changed. Safe for threads and processes."""

    def __init__(self, root: Path) -> None:
        self._path = root / "accounts.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._users: dict[str, User] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether there are accounts at all. Once there were, the registry stays closed, even if all are removed."""
        self.users()
        return self._closed

    def users(self) -> dict[str, User]:
        """All of them by name. Raises InvalidInput for a file that can't be read: better nobody than everybody."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            mark = None
        else:
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            if mark != self._seen:
                self._users = self._read() if mark is not None else {}
                self._seen = mark
                self._closed = self._closed or mark is not None
            return self._users

    def get(self, name: str) -> User | None:
        return self.users().get(name)

    def add(self, name: str, password: str, groups: tuple[str, ...] = (), *, admin: bool = False) -> None:
        """A new user. Raises Conflict when the name is taken, InvalidInput for names and passwords that won't do."""
        for each in (name, *groups):
            _check_name(each)
        if len(password) < _LEAST_PASSWORD:
            raise InvalidInput(f"the password of {name} has less than {_LEAST_PASSWORD} characters")
        with self._changing() as users:
            if name in users:
                raise Conflict(f"user {name} exists already: remove it first")
            _check_apart({**users, name: User("", groups)})
            users[name] = User(passwords.hashed(password), tuple(sorted(set(groups))), admin)

    def change(
        self,
        name: str,
        *,
        password: str | None = None,
        groups: tuple[str, ...] | None = None,
        admin: bool | None = None,
    ) -> None:
        """Changes what is given. Raises NotFound, InvalidInput."""
        for each in groups or ():
            _check_name(each)
        if password is not None and len(password) < _LEAST_PASSWORD:
            raise InvalidInput(f"the password of {name} has less than {_LEAST_PASSWORD} characters")
        with self._changing() as users:
            old = users.get(name)
            if old is None:
                raise NotFound(f"no such user: {name}")
            users[name] = User(
                old.password if password is None else passwords.hashed(password),
                old.groups if groups is None else tuple(sorted(set(groups))),
                old.admin if admin is None else admin,
            )
            _check_apart(users)

    def remove(self, name: str) -> None:
        """Raises NotFound."""
        with self._changing() as users:
            if users.pop(name, None) is None:
                raise NotFound(f"no such user: {name}")

    def _read(self) -> dict[str, User]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File).users
        except (*MALFORMED, OSError) as error:
            raise InvalidInput(f"{self._path} can't be read: {error}") from None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            users = dict(self._read() if self._path.exists() else {})
            yield users
            content = msgspec.json.format(msgspec.json.encode(_File(dict(sorted(users.items())))))
            files.write_atomic(self._path, content, self._path.parent)
            self._path.chmod(0o600)
        finally:
            os.close(fd)


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME or not _NAME.match(name):
        raise InvalidInput(f"invalid name {name[:100]!r}: lower-case letters and digits, with . _ - between them")


def _check_apart(users: dict[str, User]) -> None:
    """A user is the group of that name: nobody else may be in it."""
    for name, user in users.items():
        for group in user.groups:
            if group in users and group != name:
                raise Conflict(f"{group} is a user: it can't be a group of {name} as well")
