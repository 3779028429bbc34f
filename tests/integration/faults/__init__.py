"""Sick machines against a real service: real workers, of which one has a fault that a test puts there."""
