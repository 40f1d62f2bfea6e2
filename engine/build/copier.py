"""Writes files into an image's root: the effects of COPY, ADD and WORKDIR.

The root is a descriptor of a folder whose content nobody trusts: links in it are followed as after a chroot,
and nothing is ever written outside of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.build.filematch import clean
from engine.build.ignore import IgnoreRules
from engine.build.modes import ChangeMode
from engine.build.problems import DockerfileError
from engine.build.selection import Picked, walk
from engine.build.trees import BLOCK, CHAR, FILE, FOLDER, LINK, MAX_LINKS, Entry, Tree
from engine.images.unpack import remove_tree
from engine.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


@dataclass(frozen=True)
class Look:
    """How copied files shall look. None keeps what the source has; `latest_ns` is the newest time allowed."""

    owner: tuple[int, int] | None = None
    mode: ChangeMode | None = None
    latest_ns: int | None = None


class Copier:
    """One instruction's writing. Not safe for threads; close it."""

    def __init__(self, root: int, look: Look, upper: int = -1) -> None:
        """`root` and `upper` stay the caller's.

        `upper` is the folder where an overlay at `root` keeps what is new: what goes into a folder that was not
        there is written to it directly, at half the cost. Only for a copier with one source, since an overlay
        need not see what is done behind its back. `look` may change between two sources.
        """
        self._root = root
        self.look = look
        self._upper = upper
        self._folder_path: str | None = None
        self._folder_fd = -1
        self._names: dict[object, str] = {}
        self.changed = False

    def close(self) -> None:
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd, self._folder_path = -1, None

    def locate(self, path: str) -> tuple[str, bool]:
        """Where `path` leads in the root with its links followed, and whether something is there."""
        return self._resolve(path, make=False, owner=(0, 0))

    def make_folder(self, path: str, owner: tuple[int, int] | None = None) -> str:
        """mkdir -p, mode 0755; only new folders get `owner` (default: the copied files'). Its real path."""
        return self._resolve(path, make=True, owner=owner or self.look.owner or (0, 0))[0]

    def put(
        self,
        tree: Tree,
        picked: Picked,
        destination: str,
        *,
        into: bool,
        excludes: Sequence[str] = (),
        implied: frozenset[str] | None = None,
    ) -> None:
        """Copies one source to the absolute `destination`; `into` says that it is a folder.

        A folder's content goes into the destination; a file becomes the destination, or lies in it. An archive's
        content (`implied`: its folders that it has no entry for) replaces what is of another kind, as tar does.
        """
        if picked.below is not None:
            destination, into = self._with_parents(tree, picked, picked.below, destination), True
        rules = IgnoreRules(excludes) if excludes else None
        if picked.entry.kind == FOLDER:
            self._put_folder(tree, picked, destination, rules, implied)
            return
        if rules is not None and picked.name and rules.matches(picked.name):
            return
        real, there = self.locate(destination)
        if into or (there and self._is_folder(real)):
            folder = self.make_folder(destination)
            self._put_one(tree, picked.path, f"{folder}/{picked.name}".strip("/"), picked.entry)
            return
        parent, _, name = real.rpartition("/") if there else clean(destination).strip("/").rpartition("/")
        folder = self.make_folder(parent)
        self._put_one(tree, picked.path, f"{folder}/{name}".strip("/"), picked.entry)

    def write_file(self, content: bytes, name: str, destination: str, *, into: bool, mode: int, mtime_ns: int) -> None:
        """A file made of bytes, placed as `put` places one."""
        real, there = self.locate(destination)
        if into or (there and self._is_folder(real)):
            path = f"{self.make_folder(destination)}/{name}".strip("/")
        else:
            parent, _, last = real.rpartition("/") if there else clean(destination).strip("/").rpartition("/")
            path = f"{self.make_folder(parent)}/{last}".strip("/")
        entry = Entry(FILE, mode, 0, 0, len(content), mtime_ns)
        fd = self._create(path)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            self._finish(fd, entry, {})
        finally:
            os.close(fd)

    # -- one source

    def _with_parents(self, tree: Tree, picked: Picked, below: str, destination: str) -> str:
        """--parents: the source's own folders, looking as they do there."""
        target = destination
        source = picked.pivot
        for part in below.split("/") if below else ():
            source = f"{source}/{part}".strip("/")
            target = f"{target}/{part}"
            if self.locate(target)[1]:
                continue
            made = self.make_folder(target)
            found = tree.resolve(source)
            entry = tree.entry(found) if found is not None else None
            if entry is not None:
                self._dress_folder(made, entry, {})
        return target

    def _put_folder(
        self, tree: Tree, picked: Picked, destination: str, rules: IgnoreRules | None, implied: frozenset[str] | None
    ) -> None:
        if picked.below is not None and picked.name:
            destination = f"{destination}/{picked.name}"
        real, there = self.locate(destination)
        if there and not self._is_folder(real):
            raise DockerfileError(f"cannot copy to non-directory: /{real}")
        base = self.make_folder(destination)
        if not there and self._upper >= 0:
            with self._behind(base) as direct:
                direct._fill("", tree, picked, rules, whole=picked.below is not None)
        elif implied is not None:
            self._unpack(base, tree, rules, implied)
        else:
            self._fill(base, tree, picked, rules, whole=not there and picked.below is not None)

    @contextlib.contextmanager
    def _behind(self, path: str) -> Iterator[Copier]:
        root = openat2(self._upper, path or ".", os.O_PATH | os.O_DIRECTORY, resolve=_PLAIN)
        direct = Copier(root, self.look)
        try:
            yield direct
        finally:
            direct.close()
            os.close(root)

    def _fill(self, base: str, tree: Tree, picked: Picked, rules: IgnoreRules | None, *, whole: bool) -> None:
        times: list[tuple[str, Entry]] = []
        if whole:
            # --parents copies the folder; otherwise only its content is copied, and the folder is a plain one.
            self._dress_folder(base, picked.entry, tree.xattrs(picked.path))
            times.append((base, picked.entry))
        for relative, entry in walk(tree, picked.path, rules):
            source = f"{picked.path}/{relative}".strip("/")
            target = f"{base}/{relative}".strip("/")
            if entry.kind == FOLDER:
                self._nested_folder(target)
                self._dress_folder(target, entry, tree.xattrs(source))
                times.append((target, entry))
            else:
                if rules is not None and rules.has_exceptions:
                    self.make_folder(target.rpartition("/")[0])
                self._put_one(tree, source, target, entry)
        # Only now: each file that was written changed its folder's time.
        for path, entry in reversed(times):
            self._stamp(path, entry)

    def _unpack(self, base: str, tree: Tree, rules: IgnoreRules | None, implied: frozenset[str]) -> None:
        times: list[tuple[str, Entry]] = []
        places = {"": base}  # of the archive's folders
        for relative, entry in walk(tree, "", rules):
            above, _, name = relative.rpartition("/")
            target = f"{self._place(places, above)}/{name}".strip("/")
            if entry.kind != FOLDER:
                self._clear(target, folders=True)
                self._put_one(tree, relative, target, entry)
            elif relative in implied and self._lies(target):
                places[relative] = self.make_folder(target)
            else:
                places[relative] = target
                if self._lies(target) and not self._is_folder(target):
                    self._clear(target)
                self._nested_folder(target)
                self._dress_folder(target, entry, tree.xattrs(relative))
                times.append((target, entry))
        for path, entry in reversed(times):
            self._stamp(path, entry)

    def _place(self, places: dict[str, str], folder: str) -> str:
        """Where a folder of the archive is. One that is excluded is made for what an exception brings back."""
        if folder not in places:
            above, _, name = folder.rpartition("/")
            places[folder] = self.make_folder(f"{self._place(places, above)}/{name}".strip("/"))
        return places[folder]

    def _lies(self, path: str) -> bool:
        parent, name = self._parent(path)
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _nested_folder(self, path: str) -> None:
        parent, name = self._parent(path)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise DockerfileError(f"cannot copy to non-directory: /{path}") from None
        self.changed = True

    def _put_one(self, tree: Tree, source: str, target: str, entry: Entry) -> None:
        self.changed = True
        if entry.same is not None and entry.same in self._names:
            self._clear(target)
            parent, name = self._parent(target)
            os.link(self._names[entry.same], name, src_dir_fd=self._root, dst_dir_fd=parent, follow_symlinks=False)
            return
        if entry.kind == FILE:
            fd = self._create(target)
            try:
                tree.copy_to(source, fd)
                self._finish(fd, entry, tree.xattrs(source))
            finally:
                os.close(fd)
            if entry.same is not None:
                self._names[entry.same] = target
            return
        self._clear(target)
        parent, name = self._parent(target)
        if entry.kind == LINK:
            os.symlink(entry.target, name, dir_fd=parent)
        else:
            kind = {CHAR: stat.S_IFCHR, BLOCK: stat.S_IFBLK}.get(entry.kind, stat.S_IFIFO)
            os.mknod(name, kind | 0o600, entry.device, dir_fd=parent)
        uid, gid = self.look.owner or (entry.uid, entry.gid)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != LINK:
            mode = self.look.mode(entry.mode, False) if self.look.mode else entry.mode
            os.chmod(name, mode, dir_fd=parent)
        times = (self._time(entry), self._time(entry))
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _create(self, path: str) -> int:
        self.changed = True
        parent, name = self._parent(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(path)
            return os.open(name, flags, 0o600, dir_fd=parent)

    def _clear(self, path: str, *, folders: bool = False) -> None:
        parent, name = self._parent(path)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.EPERM):
                if folders:
                    self.close()  # a folder that is open may be one of those
                    parent, name = self._parent(path)
                    remove_tree(parent, os.fsencode(name))
                    return
                raise DockerfileError(f"cannot replace the directory /{path} with a file") from None
            raise

    def _finish(self, fd: int, entry: Entry, xattrs: dict[str, bytes]) -> None:
        uid, gid = self.look.owner or (entry.uid, entry.gid)
        os.fchown(fd, uid, gid)
        # After the owner: changing it takes set-id bits and capabilities away.
        os.fchmod(fd, self.look.mode(entry.mode, False) if self.look.mode else entry.mode)
        for name, value in xattrs.items():
            os.setxattr(fd, name, value)
        os.utime(fd, ns=(self._time(entry), self._time(entry)))

    # -- folders

    def _dress_folder(self, path: str, entry: Entry, xattrs: dict[str, bytes]) -> None:
        fd = openat2(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_PLAIN)
        try:
            uid, gid = self.look.owner or (entry.uid, entry.gid)
            os.fchown(fd, uid, gid)
            os.fchmod(fd, self.look.mode(entry.mode, True) if self.look.mode else entry.mode)
            for name, value in xattrs.items():
                os.setxattr(fd, name, value)
        finally:
            os.close(fd)

    def _stamp(self, path: str, entry: Entry) -> None:
        fd = openat2(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_PLAIN)
        try:
            os.utime(fd, ns=(self._time(entry), self._time(entry)))
        finally:
            os.close(fd)

    def _time(self, entry: Entry) -> int:
        latest = self.look.latest_ns
        return entry.mtime_ns if latest is None else min(entry.mtime_ns, latest)

    def _is_folder(self, real: str) -> bool:
        if not real:
            return True
        parent, name = self._parent(real)
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)

    def _parent(self, path: str) -> tuple[int, str]:
        """The folder of a real path, opened, and the last name in it. One is kept: files come in rows."""
        folder, _, name = path.rpartition("/")
        if folder != self._folder_path:
            fd = openat2(self._root, folder or ".", os.O_PATH | os.O_DIRECTORY, resolve=_PLAIN)
            self.close()
            self._folder_fd, self._folder_path = fd, folder
        return self._folder_fd, name

    def _resolve(self, path: str, *, make: bool, owner: tuple[int, int]) -> tuple[str, bool]:
        done: list[str] = []
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        followed = 0
        while todo:
            part = todo.pop()
            if part == "..":
                if done:
                    done.pop()
                continue
            parent, name = self._parent("/".join([*done, part]))
            try:
                mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            except FileNotFoundError:
                if not make:
                    rest = [step for step in reversed(todo) if step != ".."]
                    return "/".join([*done, part, *rest]), False
                os.mkdir(name, 0o755, dir_fd=parent)
                os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103 - whatever the umask
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
                self.changed = True
                mode = stat.S_IFDIR
            if stat.S_ISLNK(mode):
                followed += 1
                if followed > MAX_LINKS:
                    raise DockerfileError(f"/{path.strip('/')}: too many levels of symbolic links")
                target = os.readlink(name, dir_fd=parent)
                if target.startswith("/"):
                    done = []
                todo += [step for step in reversed(target.split("/")) if step not in ("", ".")]
                continue
            if not stat.S_ISDIR(mode) and (todo or make):
                raise DockerfileError(f"/{'/'.join([*done, part])} is not a directory")
            done.append(part)
        return "/".join(done), True
