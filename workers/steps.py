"""The host's ear: takes hints about host steps from its own queue, and does the steps in threads.

A plain kombu consumer in the agent's process. Steps never compete with stages for a slot, so a coordinator
can always count on them.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kombu.connection import Connection
from kombu.entity import Queue
from kombu.message import Message
from kombu.messaging import Consumer
from kombu.mixins import ConsumerMixin

from pipeline.errors import PipelineError
from workers.queues import steps_queue
from workers.runner import Runner

log = logging.getLogger(__name__)

_PARALLEL = 8


class Steps(ConsumerMixin):
    """Runs in a thread of its own (`start`), until `stop`."""

    connect_max_retries = None

    def __init__(self, connection: Connection, runner: Runner) -> None:
        self.connection = connection
        self._runner = runner
        self._queue = Queue(steps_queue(runner.worker), routing_key=steps_queue(runner.worker))  # type: ignore[no-untyped-call]
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="step")
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.run, name="steps", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Takes no more hints. Steps under way are left: their leases end with this process."""
        self.should_stop = True
        self._thread.join(5)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def take(self, step: int) -> None:
        """Does the step unless this process does it already. Returns at once."""
        with self._lock:
            if step in self._busy:
                return
            self._busy.add(step)
        self._pool.submit(self._do, step)

    def get_consumers(self, consumer: type[Consumer], channel: Any) -> list[Consumer]:
        """For the mixin."""
        return [consumer([self._queue], callbacks=[self._hinted], accept=["json"], prefetch_count=_PARALLEL)]

    def _hinted(self, body: Any, message: Message) -> None:
        """Celery's message body is `[args, kwargs, embed]`."""
        message.ack()  # type: ignore[no-untyped-call]
        try:
            self.take(int(body[0][0]))
        except (LookupError, TypeError, ValueError):
            log.warning("a message on %s is no hint", self._queue.name)

    def _do(self, step: int) -> None:
        try:
            self._runner.step(step)
        except PipelineError as error:
            log.warning("step %s: %s", step, error)
        except Exception:
            log.exception("step %s", step)
        finally:
            with self._lock:
                self._busy.discard(step)
