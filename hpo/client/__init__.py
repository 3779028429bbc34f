"""The HTTP client of people's programs and the `hpo` command, and what the worker's client shares with it."""

from .http import Client
from .problems import UnreachableError

__all__ = ["Client", "UnreachableError"]
