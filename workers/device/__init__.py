"""The device that a worker trains on."""
