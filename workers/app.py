"""The Celery application. Its messages are hints: which attempt, or which host step, to go and claim.

A hint lost, doubled or late changes nothing, for whoever takes it asks the server first. So no task has a
result, and Celery's own redelivery (the visibility timeout) is kept out of the way: leases decide.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

RUN_ATTEMPT = "shipway.attempt"
RUN_STEP = "shipway.step"

VISIBILITY = 24 * 3600
"""Seconds until Redis gives an unacknowledged hint to somebody else. Longer than any stage: a shorter one
makes a second hint for each stage that runs longer, which is harmless but is noise."""


def make_app(broker_url: str) -> Celery:
    """An application on this broker, with our settings and no tasks."""
    app = Celery("shipway", set_as_current=False)
    app.conf.update(
        broker_url=broker_url,
        broker_transport_options={
            "visibility_timeout": VISIBILITY,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 5,
            "priority_steps": [0],
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "retry_on_timeout": True,
            "health_check_interval": 10,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_create_missing_queues=True,
        task_default_queue="any",
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0, "interval_step": 0.2},
    )
    return app


def hint(app: Celery, task: str, queue: str, *args: Any) -> None:
    """Sends one hint. Raises kombu's OperationalError when the broker can't be reached."""
    app.send_task(task, args=args, queue=queue, ignore_result=True)
