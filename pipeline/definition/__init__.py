"""The pipeline file: reading, checking, models."""
