"""Benchmarks: `run.py` for the parts, `optimizer` for the quality of the search."""
