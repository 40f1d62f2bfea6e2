"""Services, releases, rollouts, traffic, health and rollback; and the operations assets in `ops/`."""
