"""Listening where clients look for the engine."""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import ssl
from pathlib import Path

from engine.config import TlsFiles
from engine.errors import Conflict, InvalidInput, SystemFailure

_log = logging.getLogger(__name__)
_BACKLOG = 1024
_FIRST_PASSED = 3


def listen(host: str, *, group: str) -> list[socket.socket]:
    """The listening socket for `unix://PATH` or `tcp://HOST:PORT`; all that a service manager passed for `fd://`.

    Raises:
        InvalidInput: `host` is none of them, or nothing was passed.
        Conflict: someone listens there already.
        SystemFailure: the kernel refused.
    """
    scheme, _, rest = host.partition("://")
    try:
        if scheme == "unix":
            return [_listen_unix(Path(rest), group)]
        if scheme == "tcp":
            return [_listen_tcp(rest)]
        if scheme == "fd":
            return _passed()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"can't listen at {host}: something else does already") from None
        raise SystemFailure(f"can't listen at {host}: {error.strerror}", error.errno) from error
    raise InvalidInput(f'invalid host "{host}": use unix://PATH, tcp://HOST:PORT or fd://')


def _passed() -> list[socket.socket]:
    """The sockets of sd_listen_fds(3). They are the service manager's: nobody removes their files."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or count == "0":
        raise InvalidInput("host fd://: no sockets were passed: start it by a systemd socket, or use unix://PATH")
    passed = [socket.socket(fileno=_FIRST_PASSED + number) for number in range(int(count))]
    for one in passed:
        one.set_inheritable(False)
    return passed


def _listen_unix(path: Path, group: str) -> socket.socket:
    if len(os.fsencode(path)) > 107:
        raise InvalidInput(f"socket path {path} is too long: the kernel takes at most 107 bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        try:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        except KeyError:
            _log.debug("there is no group %s: only root can use %s", group, path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens at any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise Conflict(f"can't listen at {path}: another engine does already")


def _listen_tcp(address: str) -> socket.socket:
    name, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f'invalid address "tcp://{address}": end it with a port, as in tcp://127.0.0.1:2376')
    name = name.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    return socket.create_server((name, int(port)), family=family, backlog=_BACKLOG)


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """How to speak TLS. Raises SystemFailure when a file can't be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.verify:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise SystemFailure(f"TLS: {files.certificate}, {files.key}: {error}") from error
    return context
