"""The stage process: Celery's prefork pool, each of its processes doing one attempt at a time.

Started by the agent as `python -m workers.stages`. Only hints arrive here; the work is in `runner`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown, worker_ready
from prometheus_client.multiprocess import mark_process_dead

from pipeline.errors import PipelineError
from pipeline.settings import Settings, load_settings
from workers.app import RUN_ATTEMPT, make_app
from workers.client import HttpStageClient
from workers.place import broker_url, ready_file, traffic_of, work_folder
from workers.process import end_with_parent
from workers.queues import stage_queues
from workers.runner import Runner

log = logging.getLogger(__name__)


def make_worker(settings: Settings) -> Celery:
    """The application with its one task."""
    app = make_app(broker_url(settings))
    client = HttpStageClient(settings.server_url, settings.read_worker_token)
    runner = Runner(client, settings.engine, work_folder(settings), settings.worker_name, traffic_of(settings))

    @app.task(name=RUN_ATTEMPT, typing=False)  # type: ignore[untyped-decorator]
    def run_attempt(attempt: str) -> None:
        try:
            runner.attempt(attempt)
        except PipelineError as error:
            # The server's sweep hints again: nothing to do here but to say so.
            log.warning("attempt %s: %s", attempt, error)

    return app


def main() -> None:
    """Runs until SIGTERM (ends its attempts' processes) or until the agent is gone."""
    end_with_parent(signal.SIGQUIT)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load_settings()
    app = make_worker(settings)
    ready = ready_file(settings)

    def mark_ready(**_: object) -> None:
        ready.write_text(str(os.getpid()))

    def begin_process(**_: object) -> None:
        logging.getLogger("urllib3").setLevel(logging.WARNING)

    def end_process(pid: int, **_: object) -> None:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]

    worker_ready.connect(mark_ready, weak=False)
    worker_process_init.connect(begin_process, weak=False)
    worker_process_shutdown.connect(end_process, weak=False)
    worker = app.Worker(
        hostname=f"stages@{settings.worker_name}",
        queues=stage_queues(settings.worker_name, settings.worker_labels),
        concurrency=settings.worker_concurrency,
        pool="prefork",
        loglevel="WARNING",
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        optimization="fair",
        statedb=None,
        pidfile=None,
    )
    worker.start()
    sys.exit(worker.exitcode)


if __name__ == "__main__":
    # Celery's children import the main module by this name.
    assert Path(__file__).name == "stages.py"
    main()
