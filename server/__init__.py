"""Webhooks, the REST API, the live page and the metrics."""
