"""The bench of the worker's tests, with an API that looks for expired leases all the time."""

from __future__ import annotations

from ..cli.conftest import hpo
from ..workers.conftest import bench, service, videos

__all__ = ["bench", "hpo", "service", "videos"]
