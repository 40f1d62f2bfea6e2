"""uvicorn, told to let event streams go when it stops."""

from __future__ import annotations

import socket

import uvicorn

from pipeline.settings import Settings
from server.app import create_app
from server.dispatch import Dispatcher
from server.live import Feed


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 lets the system choose. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # socket.create_server leaves the protocol open, and asyncio then leaves Nagle's algorithm on: 40 ms an answer.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(512)
    except OSError:
        made.close()
        raise
    return made


class Serving(uvicorn.Server):
    """The application on sockets that are already open: `run(sockets=[…])` until SIGTERM or SIGINT."""

    def __init__(
        self, settings: Settings, dispatcher: Dispatcher, *, access_log: bool = False, last_words: int = 2
    ) -> None:
        app = create_app(settings, dispatcher)
        self.feed: Feed = app.state.feed
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=access_log,
            server_header=False,
            timeout_graceful_shutdown=last_words,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Streams have no end of their own: they are told first, else uvicorn would wait for them."""
        self.feed.close()
        await super().shutdown(sockets=sockets)
