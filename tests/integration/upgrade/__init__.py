"""Upgrades: a worker of release 0.2.0 with this API, and this worker with an API of release 0.2.0."""
