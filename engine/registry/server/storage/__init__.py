"""What the registry keeps on disk. Everything here is synchronous and safe to call from several threads."""
