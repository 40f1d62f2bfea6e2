"""What a container is, and its life."""
