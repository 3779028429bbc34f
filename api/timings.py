"""How long the API takes: counted in this process, unlike what stands in the database.

Several processes behind one port answer a scrape by turns, so each must know the counts of all: they then share a
folder of files, the multi-process mode of prometheus-client, which `PROMETHEUS_MULTIPROC_DIR` turns on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder; prometheus-client reads it when it is imported."""
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds. A decision takes 1 to 5 ms; one with a fit of curves a second or more."""


class Timings:
    """One per application."""

    def __init__(self) -> None:
        self.decisions = Histogram(
            "hpo_decision_seconds",
            "Time to decide after a report whether a trial goes on.",
            registry=None,
            buckets=_BOUNDS,
        )

    def collect(self) -> Iterator[Metric]:
        """Yield each family with its samples, those of the other processes at this port included."""
        folder = os.environ.get(SHARED_FOLDER)
        if folder is None:
            yield from self.decisions.collect()
        else:
            yield from MultiProcessCollector(CollectorRegistry(), folder).collect()  # type: ignore[no-untyped-call]  # of prometheus-client
