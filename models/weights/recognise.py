"""Recognising the program and the network that a file comes from, by the names and shapes of its tensors."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from ..errors import WeightsError
from . import layouts
from .layout import AS_IT_IS, Layout, Reading, State


def recognise(state: State, path: Path) -> tuple[str, Reading]:
    """Return the name of the layout of the file at `path` and its reading; of no other layout, it is read as it is.

    Raises WeightsError for a file that has the names of a layout, but lacks a tensor or an axis that such files have,
    or has a tensor twice.
    """
    for layout in all_layouts():
        try:
            reading = layout.read(state)
        except KeyError as error:
            raise WeightsError(f"{path} has names of {layout.name}, but lacks the tensor {error.args[0]}") from error
        except (IndexError, RuntimeError, WeightsError) as error:
            raise WeightsError(
                f"{path} has names of {layout.name}, but not the tensors of such a file in their shapes ({error})"
            ) from error
        if reading is not None:
            return layout.name, reading
    return AS_IT_IS, Reading(network="", state=state, names={name: name for name in state})


@cache
def all_layouts() -> tuple[Layout, ...]:
    """Return all layouts in the order in which they are asked."""
    found: list[Layout] = []
    for module in pkgutil.iter_modules(layouts.__path__):
        found += importlib.import_module(f"{layouts.__name__}.{module.name}").LAYOUTS
    return tuple(sorted(found, key=lambda layout: (layout.order, layout.name)))
