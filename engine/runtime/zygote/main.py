"""The zygote: a small single-threaded process whose children the containers are. It forks, reaps and pumps logs.

It outlives the daemon. Standard library only; started with `python -I -S`.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

from engine.kernel import capabilities, libc
from engine.kernel.cgroup.base import Cgroup
from engine.kernel.cgroup.host import cgroup, hierarchies
from engine.runtime.zygote import child, detached, protocol
from engine.runtime.zygote.birth import born, map_ids, owned, score_oom, user_namespace
from engine.runtime.zygote.container import Container, exit_code
from engine.runtime.zygote.execs import Execs
from engine.runtime.zygote.leisure import Leisure
from engine.runtime.zygote.logpump import Sink
from engine.runtime.zygote.loop import Loop
from engine.runtime.zygote.ownmounts import HostMounts
from engine.runtime.zygote.pool import Pool
from engine.runtime.zygote.pumps import Pumps

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

FOLDERS = ("rootfs", "containers", "lower", "upper")
"""Below the exec root: where a root is mounted, notes of control groups, where layers are mounted for a moment."""


class Zygote:
    """Serves launchers: what they ask, and what becomes of the containers meanwhile."""

    def __init__(self, exec_root: str, cgroup_parent: str, hosts: HostMounts) -> None:
        self._root = exec_root
        self._parent = cgroup_parent
        self._hosts = hosts
        self._loop = Loop()
        self._pumps = Pumps(self._loop)
        self._containers: dict[str, Container] = {}
        self._clients: list[socket.socket] = []
        self._pool = Pool()
        self._leisure = Leisure(self._pool)
        self._execs = Execs(self._loop, self._announce)
        self._packet = b""
        """The request at hand as it came."""
        self._going = True
        for folder in FOLDERS:
            os.makedirs(f"{exec_root}/{folder}", mode=0o700, exist_ok=True)

    def serve(self, listener: socket.socket) -> None:
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))
        while self._going or self._containers:
            if not self._loop.turn(self._leisure.patience):
                self._leisure.use()
        self._leisure.close()

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        protocol.widen(client)
        self._clients.append(client)
        self._loop.watch(client.fileno(), lambda: self._serve_client(client))

    def _serve_client(self, client: socket.socket) -> None:
        try:
            packet = protocol.receive(client)
        except OSError:
            packet = None
        if packet is None:
            self._loop.unwatch(client.fileno())
            self._clients.remove(client)
            client.close()
            return
        request, descriptors, self._packet = packet
        try:
            answer = getattr(self, f"_do_{request['op']}")(client, request, descriptors)
        except OSError as error:
            answer = {"error": protocol.failure(error)}
        except Exception as error:  # a fault of ours must not take the containers with it
            answer = {"error": {"errno": 0, "message": f"{type(error).__name__}: {error}", "stage": "zygote"}}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if answer is not None:
            self._reply(client, request["id"], answer)

    def _reply(
        self, client: socket.socket, request: int, answer: dict[str, Any], descriptors: tuple[int, ...] = ()
    ) -> None:
        try:
            protocol.send(client, {"id": request, **answer}, descriptors)
        except OSError:
            return  # the launcher has gone; the next one asks for the list

    def _announce(self, event: dict[str, Any]) -> None:
        for client in self._clients:
            try:
                protocol.send(client, event)
            except OSError:
                continue

    # Operations

    def _do_create(self, client: socket.socket, request: dict[str, Any], _: list[int]) -> dict[str, Any] | None:
        """Answers once its first process is born, so that it can be put on its networks while it builds its world; with
        a terminal, once that is there. What fails later on is told to whoever starts it. With `start` this is a
        start, too."""
        name = request["container"]
        if name in self._containers:
            raise OSError(errno.EEXIST, "a container of this id exists", name)
        self._leisure.begun(name)
        container = Container(name, request["spec"], request.get("log"))
        try:
            self._spawn(container, request)
        except OSError:
            if container.pidfd < 0:
                self._forget(container)
            raise
        self._containers[name] = container
        self._loop.watch(container.sync.fileno(), partial(self._hear, container))
        born = {"ok": {"pid": container.pid}}
        reply = partial(self._reply, client, request["id"])
        if not container.tty:
            self._pumps.begin(container)
        if request.get("start"):
            container.starter = lambda answer: reply(answer if "error" in answer else born)
            return None
        if container.tty:
            container.creator = reply
            return None
        return born

    def _hear(self, container: Container) -> None:
        """What its first process says until it is the program."""
        message, descriptors = container.hear()
        if message is None:
            return
        if message == b"terminal":
            container.terminal = descriptors[0]
            return
        if message == b"ready":
            container.ready = True
            if container.tty:
                self._pumps.begin(container)
            if container.creator is not None:
                container.creator({"ok": {"pid": container.pid}})
                container.creator = None
            self._tell(container.onlookers, {"ok": {}})
            container.onlookers.clear()
            self._open_gate(container)
            return
        self._loop.unwatch(container.sync.fileno())
        container.sync.close()
        if message or not container.begun:
            self._fail(container, _told(message))
            return
        container.status = "running"
        container.started_at = time.time()
        if container.starter is not None:
            container.starter({"ok": {}})

    def _fail(self, container: Container, error: dict[str, Any]) -> None:
        container.error = error
        asked = [each for each in (container.creator, container.starter) if each is not None]
        self._tell([*asked, *container.onlookers], {"error": error})
        container.onlookers.clear()
        # Nobody knows of it whose creation was never answered.
        container.doomed = container.doomed or container.creator is not None

    @staticmethod
    def _tell(answers: list[Callable[[dict[str, Any]], None]], answer: dict[str, Any]) -> None:
        for each in answers:
            each(answer)

    def _spawn(self, container: Container, request: dict[str, Any]) -> None:
        spec = request["spec"]
        group = cgroup(container.cgroup)
        group.create()
        self._note_group(container)
        container.oom_base = group.oom_kills()
        stdio, far = ([], []) if container.tty else _pipes(request.get("open_stdin", False))
        try:
            owned(far, spec)
            pid, ours = self._beget(group, request, far)
        except OSError:
            for fd in (*stdio, *far):
                if fd >= 0:
                    os.close(fd)
            raise
        for fd in far:
            os.close(fd)
        container.begin(pid, ours, stdio)
        self._loop.watch(container.pidfd, lambda: self._reap(container))
        container.hold_mounts(spec)
        users = None
        try:
            users = map_ids(pid, spec)
            # Only now: under a limit of one process nobody could be born beside the visiting zygote.
            group.apply(spec["linux"].get("resources") or {})
            score_oom(pid, spec["process"].get("oomScoreAdj"))
            trees = detached.mounts(request, users, self._root, self._hosts)
            try:
                protocol.send_raw(ours, b"go", tuple(trees))
            finally:
                for fd in trees:
                    os.close(fd)
        except OSError:
            # Its end is seen and cleared up by _reap, as any other's.
            container.doomed = True
            signal.pidfd_send_signal(container.pidfd, signal.SIGKILL)
            raise
        finally:
            if users is not None:
                os.close(users)

    def _note_group(self, container: Container) -> None:
        """A group that is not below the engine's own is found by this note, should nobody be left to tell of it."""
        if not container.cgroup.startswith(f"{self._parent}/"):
            with open(f"{self._root}/containers/{container.name}", "w", encoding="utf-8") as note:
                note.write(container.cgroup)

    def _beget(self, group: Cgroup, request: dict[str, Any], stdio: list[int]) -> tuple[int, socket.socket]:
        """The container's first process, from the pool or newly born: its pid, and our end of its socket."""
        doors = group.doors()
        if doors is not None:
            try:
                taken = self._pool.hand_over(request, self._packet, doors, stdio)
            finally:
                for door in doors:
                    os.close(door)
            if taken is not None:
                return taken
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = born(request["spec"], group, lambda: child.run_init(theirs, stdio, request))
        theirs.close()
        return pid, ours

    def _do_start(self, client: socket.socket, request: dict[str, Any], _: list[int]) -> dict[str, Any] | None:
        container = self._get(request)
        if container.status != "created" or container.starter is not None:
            raise OSError(errno.EINVAL, f"the container is {container.status}", container.name)
        if container.error is not None:
            return {"error": container.error}
        container.starter = partial(self._reply, client, request["id"])
        self._open_gate(container)
        return None

    def _open_gate(self, container: Container) -> None:
        if container.ready and container.starter is not None and not container.begun:
            # Whether it has gone meanwhile is seen by its end.
            with contextlib.suppress(OSError):
                container.sync.send(b"exec")
                container.begun = True

    def _do_ready(self, client: socket.socket, request: dict[str, Any], _: list[int]) -> dict[str, Any] | None:
        """Answers when the container waits at the gate, or can't."""
        container = self._get(request)
        if container.error is not None:
            return {"error": container.error}
        if not container.ready:
            container.onlookers.append(partial(self._reply, client, request["id"]))
            return None
        return {"ok": {}}

    def _do_exec(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        self._execs.start(self._get(request), request, fds, partial(self._reply, client, request["id"]))

    def _do_attach(self, client: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        """Descriptors: where stdout goes, where stderr goes. The reply carries stdin's, if it is open.

        What is logged up to the reply's `at` came before the first byte that the descriptors get; with `unfinished`
        they get first what is held back from the log until its line is whole.
        """
        container = self._get(request)
        for stream, fd in zip(container.streams, fds, strict=False):
            sink = Sink(os.dup(fd))
            stream.sinks.append(sink)
            if request["unfinished"]:
                sink.write(stream.unfinished)
            self._pumps.settle(stream)
        stdin = container.terminal if container.terminal is not None else container.stdin
        answer = {"ok": {"at": time.time_ns()}}
        self._reply(client, request["id"], answer, (stdin,) if stdin is not None else ())

    def _do_close_stdin(self, _: socket.socket, request: dict[str, Any], __: list[int]) -> dict[str, Any]:
        self._get(request).close_stdin()
        return {"ok": {}}

    def _do_resize(self, _: socket.socket, request: dict[str, Any], __: list[int]) -> dict[str, Any]:
        self._get(request).resize(request["rows"], request["cols"])
        return {"ok": {}}

    def _do_kill(self, _: socket.socket, request: dict[str, Any], __: list[int]) -> dict[str, Any]:
        container = self._get(request)
        target = container.execs[request["exec"]] if request.get("exec") else container
        if request.get("all"):
            for pid in cgroup(container.cgroup).processes():
                _signal(pid, request["signal"])
        elif target.pidfd >= 0:
            signal.pidfd_send_signal(target.pidfd, request["signal"])
        return {"ok": {}}

    def _do_mount(self, client: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        """The reply carries the mount of `rootfs`, as a container with these mappings would see it."""
        linux = request["linux"]
        users = user_namespace(linux) if linux.get("uidMappings") else None
        try:
            wanted = {"rootfs": request["rootfs"], "spec": {"linux": linux}}
            (tree,) = detached.mounts(wanted, users, self._root, self._hosts)
        finally:
            if users is not None:
                os.close(users)
        self._reply(client, request["id"], {"ok": {}}, (tree,))
        os.close(tree)

    def _do_list(self, _: socket.socket, __: dict[str, Any], ___: list[int]) -> dict[str, Any]:
        containers = [container.state() for container in self._containers.values()]
        return {"ok": {"protocol": protocol.VERSION, "containers": containers}}

    def _do_delete(self, client: socket.socket, request: dict[str, Any], _: list[int]) -> dict[str, Any] | None:
        container = self._containers.get(request["container"])
        if container is None:
            return {"ok": {}}
        if container.status == "running":
            raise OSError(errno.EBUSY, "the container still runs", container.name)
        if container.status == "created" and container.pidfd >= 0:
            # Its id is free once its first process has gone.
            container.deleters.append(partial(self._reply, client, request["id"], {"ok": {}}))
            container.doomed = True
            self._kill(container)
            return None
        self._forget(container)
        return {"ok": {}}

    def _do_shutdown(self, _: socket.socket, __: dict[str, Any], ___: list[int]) -> dict[str, Any]:
        self._going = False
        for container in list(self._containers.values()):
            container.doomed = True
            if container.pidfd < 0:  # it has ended, perhaps before it began
                self._forget(container)
            else:
                self._kill(container)
        return {"ok": {}}

    # Ends

    def _kill(self, container: Container) -> None:
        signal.pidfd_send_signal(container.pidfd, signal.SIGKILL)
        # A frozen process hears it when it thaws.
        with contextlib.suppress(OSError):
            cgroup(container.cgroup).thaw()

    def _reap(self, container: Container) -> None:
        self._loop.unwatch(container.pidfd)
        self._hear_the_rest(container)
        code = exit_code(os.waitid(os.P_PIDFD, container.pidfd, os.WEXITED))
        group = cgroup(container.cgroup)
        if not container.own_pids:
            # Else the kernel has killed all the others already: they lived in its first process's namespace.
            for pid in group.processes():
                _signal(pid, signal.SIGKILL)
        self._pumps.end(container)
        container.end(code, group.oom_kills() > container.oom_base)
        if container.status == "stopped":
            self._announce({"event": "exit", "container": container.name, "exec": None, **container.exit_record()})
        elif container.error is None:
            self._fail(container, _told(b""))
        if container.doomed:
            self._forget(container)
        if container.mounts >= 0:
            self._leisure.ended(container.name, container.mounts)

    def _hear_the_rest(self, container: Container) -> None:
        """What was reported before the end and not yet read: the end may be seen first."""
        while (handler := self._loop.handler(container.sync.fileno())) is not None:
            handler()

    def _forget(self, container: Container) -> None:
        self._containers.pop(container.name, None)
        try:
            cgroup(container.cgroup).remove()
        except OSError as error:
            print(f"{container.name}: its cgroup stays: {error}", file=sys.stderr, flush=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._root}/containers/{container.name}")
        for answer in container.deleters:
            answer()

    def _get(self, request: dict[str, Any]) -> Container:
        container = self._containers.get(request["container"])
        if container is None:
            raise OSError(errno.ENOENT, "no such container", request["container"])
        return container


def _pipes(open_stdin: bool) -> tuple[list[int], list[int]]:
    """Near ends [stdin or -1, stdout, stderr] and far ends in the same order."""
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    if open_stdin:
        read, write = os.pipe2(os.O_CLOEXEC)
    else:
        read, write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    return [write, out[0], err[0]], [read, out[1], err[1]]


def _told(message: bytes) -> dict[str, Any]:
    if not message:
        return {"errno": 0, "message": "the container's first process was killed", "stage": "prepare"}
    told: dict[str, Any] = json.loads(message)
    return told


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def main(exec_root: str, cgroup_parent: str, listener_fd: int, hosts_mounts: int, hosts_root: int) -> None:
    """Serves on the listening socket that the launcher hands over, until it is told to end."""
    for number in signal.valid_signals():
        # Whoever started the engine may have let it ignore some, as nohup does: its containers must not inherit that.
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    libc.prctl(libc.PR_SET_NAME, b"shipway-zygote")
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    listener = socket.socket(fileno=listener_fd)
    for fd in (hosts_mounts, hosts_root):
        os.set_inheritable(fd, False)
    zygote = Zygote(exec_root, cgroup_parent, HostMounts(hosts_mounts, hosts_root))
    # What every child would look up for itself.
    capabilities.own_bounding()
    hierarchies()
    gc.collect()
    libc.trim_heap()
    gc.freeze()
    gc.disable()
    zygote.serve(listener)
    os.unlink(f"{exec_root}/zygote.sock")
    for folder in FOLDERS:
        os.rmdir(f"{exec_root}/{folder}")
    cgroup(cgroup_parent).remove()
