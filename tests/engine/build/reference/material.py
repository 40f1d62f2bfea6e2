"""What the reference cases are made of: the cases, their build context, their base, and how results are listed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EPOCH = 1_000_000_000
ENV_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
BASE_GROUP = "root:x:0:\nnogroup:x:65534:\n"
# What every tool lays over a container's root, and what it is put on.
_SURROUNDINGS = ("dev", "proc", "sys", "run", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab")


def cases(file: str = "cases.txt") -> dict[str, str]:
    """Name → Dockerfile."""
    found: dict[str, str] = {}
    for part in (HERE / file).read_text().split("\n### ")[1:]:
        name, _, text = part.partition("\n")
        found[name] = text if text.endswith("\n") else text + "\n"
    return found


def make_base(folder: Path, busybox: Path = Path("/bin/busybox")) -> Path:
    """A root folder around a static busybox."""
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(mode)
    (folder / "bin/busybox").write_bytes(busybox.read_bytes())
    (folder / "bin/busybox").chmod(0o755)
    for applet in "cat chmod chown cp echo env false grep id ln ls mkdir mkfifo pwd rm sh sort touch true".split():  # noqa: SIM905
        (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc/passwd").write_text(BASE_PASSWD)
    (folder / "etc/group").write_text(BASE_GROUP)
    _settle(folder)
    return folder


def make_context(folder: Path) -> Path:
    """Files of every kind that COPY and ADD treat in their own way."""
    files = {
        "hello.txt": ("hello\n", 0o644), "script.sh": ("#!/bin/sh\n", 0o755), "secret": ("s\n", 0o600),
        "setuid": ("x\n", 0o4755), "with space.txt": ("spaces\n", 0o644), "app/main.py": ("main\n", 0o644),
        "app/lib/util.py": ("util\n", 0o640), "app/.hidden": ("h\n", 0o644), "dir700/f": ("f\n", 0o644),
        "a1.txt": ("1\n", 0o644), "a2.txt": ("2\n", 0o644), "b1.md": ("3\n", 0o644), "hard/one": ("h\n", 0o644),
        "not-a.tar.gz": ("no archive\n", 0o644), "links/target": ("t\n", 0o644),
    }  # fmt: skip
    for name, (content, mode) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    (folder / "app/data/empty").mkdir(parents=True)
    (folder / "dir700").chmod(0o700)
    os.link(folder / "hard/one", folder / "hard/two")
    links = {
        "link.txt": "hello.txt", "linkdir": "app", "links/relative": "target", "links/absolute": "/etc/passwd",
        "links/dangling": "nowhere",
    }  # fmt: skip
    for name, target in links.items():
        (folder / name).symlink_to(target)
    plain = _archive()
    (folder / "archive.tar").write_bytes(plain)
    (folder / "kinds.tar").write_bytes(_other_kinds())
    (folder / "archive.tar.gz").write_bytes(gzip.compress(plain, mtime=EPOCH))
    (folder / "archive.tar.xz").write_bytes(lzma.compress(plain))
    (folder / "archive.tar.bz2").write_bytes(bz2.compress(plain))
    _settle(folder)
    return folder


def _archive() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, bits, content in (
            ("inner", tarfile.DIRTYPE, 0o750, b""),
            ("inner/file", tarfile.REGTYPE, 0o640, b"inside\n"),
            ("inner/link", tarfile.SYMTYPE, 0o777, b"file"),
            ("inner/hard", tarfile.LNKTYPE, 0o640, b"inner/file"),
            ("deep/er/file", tarfile.REGTYPE, 0o755, b"deep\n"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime, info.uid, info.gid = kind, bits, EPOCH + 5, 1234, 5678
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            tar.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    return raw.getvalue()


def _other_kinds() -> bytes:
    """Names that are of other kinds where this is unpacked, links that lead on, and a folder that is only implied."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, content in (
            ("file", tarfile.REGTYPE, b"f\n"),
            ("folder", tarfile.DIRTYPE, b""),
            ("folder/in", tarfile.REGTYPE, b"in\n"),
            ("lib/implied", tarfile.REGTYPE, b"l\n"),
            ("linked", tarfile.DIRTYPE, b""),
            ("up", tarfile.SYMTYPE, b".."),
            ("up/etc/below", tarfile.REGTYPE, b"b\n"),
            ("away", tarfile.SYMTYPE, b"/folder"),
            ("away/too", tarfile.REGTYPE, b"t\n"),
            ("up/etc/hard", tarfile.LNKTYPE, b"away/too"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime, info.uid, info.gid = kind, 0o750, EPOCH + 6, 12, 34
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            tar.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    return raw.getvalue()


def _settle(folder: Path) -> None:
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            os.utime(Path(parent) / name, (EPOCH, EPOCH), follow_symlinks=False)


def list_files(root: Path) -> dict[str, str]:
    """Every name below `root` → kind, mode, owner, links, content, and the time where the case defines one."""
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent) / name
            relative = str(path.relative_to(root))
            if relative.split("/")[0] in _SURROUNDINGS or relative in _SURROUNDINGS:
                continue
            status = path.lstat()
            words = [stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}"]
            if path.is_symlink():
                words.append(f"-> {path.readlink()}")
            elif stat.S_ISREG(status.st_mode):
                words.append(hashlib.sha256(path.read_bytes()).hexdigest()[:12])
                words += [f"links={status.st_nlink}"] if status.st_nlink > 1 else []
                for attribute in os.listxattr(path):
                    if not attribute.startswith("security.selinux"):
                        words.append(f"{attribute}={os.getxattr(path, attribute).hex()}")
            if not stat.S_ISDIR(status.st_mode) and EPOCH <= status.st_mtime < EPOCH + 1000:
                words.append(f"time={status.st_mtime_ns // 10**9 - EPOCH}")
            found[relative] = " ".join(words)
    return dict(sorted(found.items()))


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """A Docker image's `config` without what says nothing."""
    kept = {
        key: value
        for key, value in config.items()
        if value
        and key
        in (
            "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
            "Shell", "Healthcheck", "OnBuild",
        )
    }  # fmt: skip
    labels = {name: value for name, value in kept.pop("Labels", {}).items() if name != "io.buildah.version"}
    return {**kept, "Labels": labels} if labels else kept
