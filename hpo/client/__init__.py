"""The HTTP clients of people's programs and the `hpo` command, and what the worker's client shares with them."""

from .asked_trial import AskedTrial
from .asking import Study
from .http import AsyncClient, Client
from .problems import UnreachableError

__all__ = ["AskedTrial", "AsyncClient", "Client", "Study", "UnreachableError"]
