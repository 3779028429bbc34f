"""The importers, by the name that a specification gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from .errors import UnknownDatasetError
from .listing import Listing
from .ucf101 import read_ucf101

Importer = Callable[[Path], Listing]

IMPORTERS: Mapping[str, Importer] = MappingProxyType({"ucf101": read_ucf101})


def importer(name: str) -> Importer:
    """Return the importer called `name`.

    Raises:
        UnknownDatasetError: there is none of that name.
    """
    try:
        return IMPORTERS[name]
    except KeyError:
        known = ", ".join(sorted(IMPORTERS))
        raise UnknownDatasetError(f"no data set format is called {name!r}; known: {known}") from None
