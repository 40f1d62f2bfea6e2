"""What a container's first process does between its birth and its program: it builds the world it will see.

It runs in the zygote's child, in its new namespaces, and ends in execve or in an error told to the zygote.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import termios

from engine.kernel import capabilities, libc
from engine.runtime.zygote import init, protocol, rehearsal, rootfs

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any, NoReturn

_CHANGED_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)
SETUP_FAILED = 255
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441
_DEVPTS = 0x1CD1
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def tell(sync: socket.socket, stage: str, error: OSError) -> NoReturn:
    """Reports the failure and ends."""
    try:
        sync.send(json.dumps(protocol.failure(error, stage)).encode())
    finally:
        os._exit(SETUP_FAILED)


def run_init(sync: socket.socket, stdio: list[int], request: dict[str, Any]) -> NoReturn:
    """The life of a container's init. `stdio`: three descriptors, or none for a terminal."""
    try:
        sync = socket.socket(fileno=_keep(sync.fileno(), stdio))
        os.setsid()
    except OSError as error:
        tell(sync, "prepare", error)
    _live(sync, request)


def wait_for_container(sync: socket.socket, like: bytes) -> NoReturn:
    """The life of one who waits in the pool: as `run_init`'s, once it is told whose init it is to be. `like` is a
    request as it may expect."""
    try:
        sync = socket.socket(fileno=_keep(sync.fileno(), []))
        os.setsid()
        rehearsal.build(like)
        doors, passed = protocol.receive_raw(sync, protocol.MOST_HANDED_OVER)
        if not doors:
            os._exit(0)
        memory, *passed = passed
        request = json.loads(os.pread(memory, os.fstat(memory).st_size, 0))
        number = int(doors)
        for door in passed[:number]:
            # Itself, by its one thread: what needs no wait for the kernel's other processors.
            os.write(door, b"0")
        libc.unshare(libc.CLONE_NEWCGROUP)
        for target, fd in enumerate(passed[number:]):
            os.dup2(fd, target)
        libc.close_range(sync.fileno() + 1, 0x7FFFFFFF)
    except OSError as error:
        tell(sync, "prepare", error)
    _live(sync, request)


def _live(sync: socket.socket, request: dict[str, Any]) -> NoReturn:
    spec = request["spec"]
    process = spec["process"]
    stage = "namespaces"
    try:
        if _wants(spec, "network"):
            loopback_up()
        word, trees = protocol.receive_raw(sync, len(spec.get("mounts", ())) + 1)
        if word != b"go":
            os._exit(SETUP_FAILED)
        if spec.get("hostname") and _wants(spec, "uts"):
            libc.sethostname(spec["hostname"])
        if spec.get("domainname") and _wants(spec, "uts"):
            libc.setdomainname(spec["domainname"])
        stage = "root filesystem"
        null = rootfs.enter(spec, trees, _become_root)
        _make_folder(process.get("cwd") or "/")
        stage = "sysctl"
        for key, value in spec.get("linux", {}).get("sysctl", {}).items():
            if key.startswith("net.") and not _has(spec, "network"):
                raise OSError(errno.EPERM, "it is the host's: the container has no network of its own", key)
            _write(f"/proc/sys/{key.replace('.', '/')}", value)
        rootfs.protect(spec, null)
        if process.get("terminal"):
            stage = "terminal"
            open_terminal(sync, process.get("consoleSize"), console=True)
        stage = "process"
        limits(process)
        sync.send(b"ready")
        # The gate: the launcher says when the program may begin.
        if sync.recv(16) != b"exec":
            os._exit(SETUP_FAILED)
        if init.ANNOTATION in spec.get("annotations", ()):
            init.stay(sync, process, request.get("seccomp"))
        become(sync, process, request.get("seccomp"))
    except OSError as error:
        tell(sync, stage, error)


def _make_folder(path: str) -> None:
    """Where there is none, in what is mounted as well. If it can't be made, whoever enters it says so."""
    if not os.path.isdir(path):
        try:
            os.makedirs(path, 0o755, exist_ok=True)
        except OSError:
            return


def become(sync: socket.socket, process: dict[str, Any], seccomp: str | None) -> NoReturn:
    """Drops what the program must not have, and becomes it. `sync` closes by itself when execve succeeds."""
    stage = "credentials"
    try:
        user = process.get("user", {})
        umask = user.get("umask")
        os.umask(0o022 if umask is None else umask)
        no_new_privileges = process.get("noNewPrivileges", False)
        program = bytes.fromhex(seccomp) if seccomp else None
        sets = capabilities.masks(process.get("capabilities") or {})
        if program and not no_new_privileges:
            # Without no_new_privs only a privileged process may load a filter; so it is loaded before the drop.
            libc.seccomp_load(program)
        capabilities.drop_bounding(sets["bounding"])
        libc.prctl(libc.PR_SET_KEEPCAPS, 1)
        os.setgroups(user.get("additionalGids", []))
        os.setresgid(*[user.get("gid", 0)] * 3)
        os.setresuid(*[user.get("uid", 0)] * 3)
        capabilities.apply(sets)
        # Changing ids made this process unreadable to its own user; execve decides it anew.
        stage = "working directory"
        os.chdir(process.get("cwd") or "/")
        # A working directory outside of the root would be a way out (CVE-2024-21626).
        if not os.getcwd().startswith("/"):
            raise OSError(2, "the working directory is outside of the container", process.get("cwd"))
        libc.prctl(libc.PR_SET_PDEATHSIG, 9)
        _restore_signals()
        if no_new_privileges:
            libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
            if program:
                libc.seccomp_load(program)
        stage = "exec"
        if not process["args"]:
            raise OSError(errno.EINVAL, "no command to execute")
        environment = dict(pair.partition("=")[::2] for pair in process.get("env", ()))
        path = find(process["args"][0], environment.get("PATH", ""))
        os.execve(path, process["args"], environment)  # noqa: S606
    except OSError as error:
        error.filename = process["args"][0] if stage == "exec" and process["args"] else error.filename
        tell(sync, stage, error)


def find(program: str, path: str) -> str:
    """Where execve will find `program`, as a shell looks for it. Raises FileNotFoundError, PermissionError."""
    if "/" in program:
        return program
    denied = False
    for folder in path.split(":"):
        candidate = f"{folder or '.'}/{program}"
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK, effective_ids=True):
                return candidate
            denied = True
    if denied:
        raise PermissionError(13, "Permission denied", program)
    raise FileNotFoundError(2, "executable file not found in $PATH", program)


def limits(process: dict[str, Any]) -> None:
    """Resource limits. A hard limit above ours is cut to it where we may not raise it."""
    for limit in process.get("rlimits", ()):
        kind = getattr(resource, limit["type"], None)
        if kind is None:
            raise OSError(22, f"unknown resource limit {limit['type']}")
        soft, hard = (_infinite(limit[side]) for side in ("soft", "hard"))
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            most = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (_least(soft, most), _least(hard, most)))


def _has(spec: dict[str, Any], kind: str) -> bool:
    """Whether it has a namespace of that kind, new or another's."""
    return any(namespace["type"] == kind for namespace in spec.get("linux", {}).get("namespaces", ()))


def _wants(spec: dict[str, Any], kind: str) -> bool:
    return any(
        namespace["type"] == kind and not namespace.get("path")
        for namespace in spec.get("linux", {}).get("namespaces", ())
    )


def loopback_up() -> None:
    """Of a new network namespace, as every runtime has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def _become_root() -> None:
    """Root of the user namespace, where there is one: until now this was the host's, who is nobody in it."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _keep(sync: int, stdio: list[int]) -> int:
    """Moves what is needed to 0, 1, 2 and 3 and closes everything else the zygote had open."""
    wanted = [*(stdio or [os.open("/dev/null", os.O_RDWR)] * 3), sync]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in wanted]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=target < 3)
    libc.close_range(len(wanted), 0x7FFFFFFF)
    return 3


def open_terminal(sync: socket.socket, size: dict[str, int] | None, *, console: bool = False) -> None:
    """A new terminal of the container's own devpts becomes its standard streams; its master goes to the zygote.

    Whatever a running container has put in the place of its devices is not used (CVE-2025-52565).
    """
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(master, True)
    if os.fstat(master).st_rdev != os.makedev(5, 2) or libc.filesystem(master) != _DEVPTS:
        raise OSError(errno.ENODEV, "the container's /dev/pts is not a file system of terminals", "/dev/pts")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size["height"], size["width"], 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for target in range(3):
        os.dup2(slave, target)
    if console:
        _show_console(slave)
    os.close(slave)
    protocol.send_raw(sync, b"terminal", (master,))
    os.close(master)


def _show_console(terminal: int) -> None:
    try:
        target = os.open("/dev/console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISREG(os.fstat(target).st_mode) or libc.filesystem(target) == rootfs.PROC:
            raise OSError(errno.EINVAL, "it is not the file that was made for it", "/dev/console")
        libc.mount(f"/proc/self/fd/{terminal}", f"/proc/self/fd/{target}", None, libc.MS_BIND)
    finally:
        os.close(target)


def _restore_signals() -> None:
    # The interpreter and the zygote changed these; all others are as they were born.
    for number in _CHANGED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def _infinite(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 1 << 63 else value


def _least(wanted: int, most: int) -> int:
    if most == resource.RLIM_INFINITY:
        return wanted
    return most if wanted == resource.RLIM_INFINITY else min(wanted, most)
