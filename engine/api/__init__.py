"""The Docker Engine API, so that every tool made for Docker is a tool for this engine."""
