"""Moving a container to another engine: its configuration, files and volumes (docs/moving.md).

The engine that has the container leads. The other one does what it is told over its API, and says what it lacks.
"""
