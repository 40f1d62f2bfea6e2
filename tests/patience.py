"""How many times longer than elsewhere a test waits for what must happen: emulated machines are slow."""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("SHIPWAY_TEST_PATIENCE", "1"))
