"""The Celery app, one executor a stage kind, the host agent and its leases."""
