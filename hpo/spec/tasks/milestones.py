"""Milestones of a learning rate: shares of a run, written as text so that a categorical parameter can search them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, StrictStr


def milestones(text: str) -> tuple[float, ...]:
    """Return the shares of a run that `text` lists, such as ``"0.5, 0.75"``.

    Raises:
        ValueError: they are not numbers between 0 and 1, each greater than the one before.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = (0.0,)
    if not all(low < high for low, high in zip((0.0, *shares), (*shares, 1.0), strict=True)):
        raise ValueError(f"{text!r} are not shares of the run in increasing order, such as 0.5, 0.75")
    return shares


def _listed(value: object) -> object:
    """Return a list of numbers as text; anything else as it is."""
    if isinstance(value, list | tuple) and all(type(item) in (int, float) for item in value):
        return ", ".join(str(item) for item in value)
    return value


def _checked(text: str) -> str:
    return ", ".join(f"{share:g}" for share in milestones(text))


Milestones = Annotated[StrictStr, BeforeValidator(_listed), AfterValidator(_checked)]
"""A list of numbers is taken too; the text that is kept has one form."""
