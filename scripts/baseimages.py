"""Base images made on the spot from Debian packages, for machines that no public registry answers."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

BUSYBOX = "busybox:1.35"
PYTHON = "python:3.11-slim"

_USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
_GROUPS = "root:x:0:\nnogroup:x:65534:\n"


def busybox_root(binary: Path = Path("/bin/busybox")) -> bytes:
    """The tar of a root folder that holds busybox-static, a link for each of its commands and little else."""
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode in [
            ("bin", 0o755),
            ("etc", 0o755),
            ("root", 0o700),
            ("tmp", 0o1777),
            ("var", 0o755),
        ]:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "bin/busybox", binary.read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname, link.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
                tar.addfile(link)
        _add(tar, "etc/passwd", _USERS.encode())
        _add(tar, "etc/group", _GROUPS.encode())
    return buffer.getvalue()


def python_root(cache: Path) -> Path:
    """The tar of a Debian root with Python, made with mmdebstrap once and kept in the folder `cache`."""
    kept = cache / "debian-python.tar"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            fresh = Path(scratch) / "root.tar"
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=essential", "--include=python3", "bookworm", fresh],
                check=True,
                env={**os.environ, "TMPDIR": scratch},
            )
            fresh.rename(kept)
    return kept


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
