"""The worker's own small HTTP door: /metrics (its engine's among them), /healthz, /readyz."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from workers import metrics

log = logging.getLogger(__name__)

_ENGINE_TIMEOUT = 3.0


class Door(ThreadingHTTPServer):
    """Listens until closed. Raises OSError when the address is taken."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], *, ready: Callable[[], bool], metrics_folder: str, engine_url: str
    ) -> None:
        self.ready = ready
        self.metrics_folder = metrics_folder
        self.engine_url = engine_url
        super().__init__(address, _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def scrape(self) -> bytes:
        """Our own figures, then the engine's as it gives them."""
        own = generate_latest(metrics.collected(self.metrics_folder))
        return own + _engine_metrics(self.engine_url)


class _Handler(BaseHTTPRequestHandler):
    server: Door
    timeout = 10

    def do_GET(self) -> None:
        match urlsplit(self.path).path:
            case "/metrics":
                self._answer(200, self.server.scrape(), CONTENT_TYPE_LATEST)
            case "/healthz":
                self._answer(200, b"ok\n")
            case "/readyz":
                good = self.server.ready()
                self._answer(200 if good else 503, b"ready\n" if good else b"starting\n")
            case _:
                self._answer(404, b"see /metrics, /healthz, /readyz\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class _OnSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ENGINE_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ENGINE_TIMEOUT)
        self.sock.connect(self._path)


def _engine_metrics(url: str) -> bytes:
    """Empty when the engine has none: Docker's are elsewhere, Podman has none."""
    if not url.startswith("unix://"):
        return b""
    connection = _OnSocket(url.removeprefix("unix://"))
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        log.debug("the engine's metrics: %s", error)
        return b""
    finally:
        connection.close()
    return body if response.status == 200 and body.startswith(b"#") else b""
