"""The HTTP client of people's programs and the `hpo` command, and what the worker's client shares with it."""

from .connection import UnreachableError
from .http import Client

__all__ = ["Client", "UnreachableError"]
