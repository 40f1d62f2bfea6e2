from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.local import LocalStageClient
from pipeline.store import Store, open_store
from pipeline.wire import CALLS, PREFIX, kind_of
from tests.patience import wait_for
from workers.broker import Broker, stop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for socket names."""
    path = Path(tempfile.mkdtemp(prefix="sww"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    place = Path(tempfile.mkdtemp(prefix="swb"))
    broker = Broker(place / "data", place / "b.sock")
    process = broker.start()
    yield broker
    stop(process)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path = tmp_path_factory.mktemp("server") / "server.db"
    with open_store(f"sqlite:///{path}", lease_seconds=2.0, heartbeat_seconds=0.2) as store:
        yield store


class WorkerApi(ThreadingHTTPServer):
    """The worker API over a store, as the wire table says it, and nothing else of a server."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, store: Store) -> None:
        self.client = LocalStageClient(store)
        self.calls: list[tuple[str, float]] = []
        self.away = False
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: WorkerApi
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.removeprefix(PREFIX)
        status, answer = 503, b"{}"
        if not self.server.away:
            self.server.calls.append((name, time.time()))
            call = CALLS[name]
            try:
                result = getattr(self.server.client, name)(**call.arguments(body))
                status, answer = 200, call.encode_result(result)
            except PipelineError as error:
                kind, status = kind_of(error)
                answer = f'{{"error": "{error}", "kind": "{kind}"}}'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def api(store: Store) -> Iterator[WorkerApi]:
    with WorkerApi(store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    return wait_for
