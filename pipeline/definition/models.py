"""The pipeline file as values."""

from __future__ import annotations

from pipeline.values import Frozen


class Definition(Frozen):
    """One pipeline file, checked."""
