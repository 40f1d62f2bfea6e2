"""Images in and out: the distribution client, and the registry that comes with the engine."""
