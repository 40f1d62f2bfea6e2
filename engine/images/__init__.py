"""Images: content-addressed blobs, manifests, layers on disk, snapshots. Synchronous and safe for threads."""
