"""The server's side of the queues: tells workers that there may be work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kombu.exceptions import OperationalError

from workers.app import RUN_ATTEMPT, RUN_STEP, hint, make_app
from workers.queues import stage_queue, steps_queue


class BrokerDown(Exception):
    """The hint could not be sent. Nothing is lost: the server's sweep sends it again."""


class Dispatcher:
    """Sends hints. Safe to share between threads."""

    def __init__(self, broker_url: str) -> None:
        self._app = make_app(broker_url)

    def attempt(self, attempt: str, labels: Mapping[str, str], near: str | None = None) -> str:
        """Hints at an attempt that is ready: to the worker `near`, else to one with all `labels`.

        Returns the queue's name. Raises BrokerDown, QueueError.
        """
        queue = stage_queue(labels, near)
        self._send(RUN_ATTEMPT, queue, attempt)
        return queue

    def step(self, step: int, host: str) -> None:
        """Hints at a host step of a rollout to that host's agent. Raises BrokerDown."""
        self._send(RUN_STEP, steps_queue(host), step)

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """Hints that wait in each queue. Raises BrokerDown."""
        try:
            with self._app.connection_for_read() as connection:
                client = connection.default_channel.client
                return {queue: int(client.llen(queue)) for queue in queues}
        except (OperationalError, OSError) as error:
            raise BrokerDown(f"the broker can't be reached: {error}") from error

    def close(self) -> None:
        self._app.close()

    def _send(self, task: str, queue: str, *args: object) -> None:
        try:
            hint(self._app, task, queue, *args)
        except OperationalError as error:
            raise BrokerDown(f"the broker can't be reached: {error}") from error
