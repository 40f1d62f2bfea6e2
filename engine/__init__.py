"""The bundled isolation engine: a daemon that speaks the Docker Engine API, and everything below it."""
