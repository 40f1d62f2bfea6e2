"""The zygote: a small single-threaded process whose children the containers are. It forks, reaps and pumps logs.

It outlives the daemon. Standard library only; started with `python -I -S`.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import time
from functools import partial

from engine.kernel import capabilities, libc
from engine.kernel.cgroup.host import cgroup, hierarchies
from engine.runtime.zygote import protocol
from engine.runtime.zygote.container import Container, exit_code
from engine.runtime.zygote.execs import Execs
from engine.runtime.zygote.gate import Gate
from engine.runtime.zygote.leisure import Leisure
from engine.runtime.zygote.logpump import Sink
from engine.runtime.zygote.loop import Loop
from engine.runtime.zygote.making import Maker
from engine.runtime.zygote.ownmounts import HostMounts
from engine.runtime.zygote.pool import Pool
from engine.runtime.zygote.pumps import Pumps

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any


class Zygote:
    """Serves launchers: what they ask, and what becomes of the containers meanwhile."""

    def __init__(self, exec_root: str, cgroup_parent: str, hosts: HostMounts) -> None:
        self._loop = Loop()
        self._pumps = Pumps(self._loop)
        self._containers: dict[str, Container] = {}
        self._clients: list[socket.socket] = []
        pool = Pool()
        self._leisure = Leisure(pool)
        self._maker = Maker(exec_root, cgroup_parent, hosts, pool)
        self._gate = Gate(self._loop, self._pumps)
        self._execs = Execs(self._loop, self._announce)
        self._packet = b""
        """The request at hand as it came."""
        self._going = True

    def serve(self, listener: socket.socket) -> None:
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))
        while self._going or self._containers:
            if not self._loop.turn(self._leisure.patience):
                self._leisure.use()
        self._leisure.close()

    def close(self) -> None:
        self._maker.close()

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
        # Its id is taken as long as there is anything of it, also where it can't be made.
        container = self._containers[name] = Container(name, request["spec"], request.get("log"))
        try:
            self._maker.make(container, request, self._packet, self._watch)
        except OSError:
            if container.pidfd < 0:
                self._forget(container)
            raise
        reply = partial(self._reply, client, request["id"])
        return self._gate.listen(container, reply, start=bool(request.get("start")))

    def _do_start(self, client: socket.socket, request: dict[str, Any], _: list[int]) -> dict[str, Any] | None:
        return self._gate.start(self._get(request), partial(self._reply, client, request["id"]))

    def _do_ready(self, client: socket.socket, request: dict[str, Any], _: list[int]) -> dict[str, Any] | None:
        """Answers when the container waits at the gate, or can't."""
        return self._gate.ready(self._get(request), partial(self._reply, client, request["id"]))

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
        tree = self._maker.mount(request["rootfs"], request["linux"])
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

    def _watch(self, container: Container) -> None:
        self._loop.watch(container.pidfd, partial(self._reap, container))

    def _kill(self, container: Container) -> None:
        signal.pidfd_send_signal(container.pidfd, signal.SIGKILL)
        # A frozen process hears it when it thaws.
        with contextlib.suppress(OSError):
            cgroup(container.cgroup).thaw()

    def _reap(self, container: Container) -> None:
        self._loop.unwatch(container.pidfd)
        self._gate.hear_the_rest(container)
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
            self._gate.died(container)
        if container.doomed:
            self._forget(container)
        if container.mounts >= 0:
            self._leisure.ended(container.name, container.mounts)

    def _forget(self, container: Container) -> None:
        self._containers.pop(container.name, None)
        self._maker.forget(container)
        for answer in container.deleters:
            answer()

    def _get(self, request: dict[str, Any]) -> Container:
        container = self._containers.get(request["container"])
        if container is None:
            raise OSError(errno.ENOENT, "no such container", request["container"])
        return container


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
    zygote.close()
