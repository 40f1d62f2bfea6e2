"""Where forges and repositories say that something happened."""
