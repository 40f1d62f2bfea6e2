"""`python -m server`, and the command `shipway server`."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from typing import Any

import click

from pipeline.errors import PipelineError
from pipeline.settings import Settings, load_settings

_LAST_WORDS = 2
"""Seconds that answers under way get once the server was told to stop."""


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="In place of the settings' listen_host and listen_port.")
@click.option("--debug", is_flag=True, help="Say more, such as each request.")
def server(listen: str | None, debug: bool) -> None:
    """Run the server: webhooks, the API, the page, /metrics.

    \b
    Settings come from SHIPWAY_* or /etc/shipway/config.yaml.
    Example: SHIPWAY_DATABASE_URL=postgresql://ci@db/shipway shipway server --listen 0.0.0.0:7700
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.INFO if debug else logging.WARNING)
    try:
        settings = load_settings(**_address(listen))
        with _listen(settings) as listener:
            _serve(settings, listener, debug)
    except PipelineError as error:
        raise click.ClickException(str(error)) from None


def _address(listen: str | None) -> dict[str, Any]:
    if listen is None:
        return {}
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter("write HOST:PORT, such as 127.0.0.1:7700", param_hint="--listen")
    return {"listen_host": host.strip("[]"), "listen_port": int(port)}


def _listen(settings: Settings) -> socket.socket:
    from server.serving import listen

    host, port = settings.listen_host, settings.listen_port
    try:
        return listen(host, port)
    except OSError as error:
        raise click.ClickException(
            f"{host}:{port}: {error.strerror}: choose another address with --listen or SHIPWAY_LISTEN_PORT"
        ) from None


def _serve(settings: Settings, listener: socket.socket, debug: bool) -> None:
    from server.serving import Serving
    from workers.dispatch import Dispatcher
    from workers.place import broker_url

    serving = Serving(settings, Dispatcher(broker_url(settings)), access_log=debug, last_words=_LAST_WORDS)
    host, port = listener.getsockname()[:2]
    logging.getLogger("shipway.server").info("listening on %s:%s", host, port)
    # uvicorn stops at a signal and then raises it again; it has been obeyed by then.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):
        serving.run(sockets=[listener])


if __name__ == "__main__":
    server()
