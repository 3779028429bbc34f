"""The HTTP client of people's programs and the `hpo` command."""

from .http import Client, UnreachableError

__all__ = ["Client", "UnreachableError"]
