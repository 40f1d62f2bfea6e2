"""The life of a run and its stages: pure tables and decisions."""
