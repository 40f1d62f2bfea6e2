"""Definitions, plans, run state, triggers and their store. No Celery, no HTTP server, no engine."""
