"""Comparison of our optimizer with its peers on known problems: `python -m benchmarks.optimizer run`, then `report`."""
