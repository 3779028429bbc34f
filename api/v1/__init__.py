"""The routes under `/v1`, one resource a module."""
