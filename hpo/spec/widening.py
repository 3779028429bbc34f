"""Whether a changed space has all that it had before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .parameters import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter


def narrowed(old: Mapping[str, AnyParameter], new: Mapping[str, AnyParameter]) -> Iterator[tuple[str, str]]:
    """Yield the parameters that a new space cannot have, with why; none if every configuration of the old is in it."""
    for key, before in old.items():
        if key not in new:
            yield key, "a parameter cannot be taken out of a study; `hpo study clone` makes one without it"
        elif before != new[key] and (why := _why_not(before, new[key])) is not None:
            yield key, why
    for key in new.keys() - old.keys():
        yield key, "a study gets no new parameters; `hpo study clone` makes one with it"


def _why_not(old: AnyParameter, new: AnyParameter) -> str | None:
    if type(old) is not type(new):
        return f"it stays of the type {old.type}"
    match old, new:
        case FloatParameter() | IntParameter() as before, FloatParameter() | IntParameter() as after:
            return _why_no_range(before, after)
        case (
            CategoricalParameter() | OrdinalParameter() as before,
            CategoricalParameter() | OrdinalParameter() as after,
        ):
            return _why_no_choices(before, after)
    return None


def _why_no_range(old: FloatParameter | IntParameter, new: FloatParameter | IntParameter) -> str | None:
    if old.model_copy(update={"low": new.low, "high": new.high}) != new:
        return "of a range, only `low` and `high` can change"
    if new.low > old.low or new.high < old.high:
        return f"a space only grows: from {old.low:g} to {old.high:g} must be in it"
    if old.step is not None and not new.contains(old.low):
        return f"its steps of {old.step:g} must meet {old.low:g} still"
    return None


def _why_no_choices(
    old: CategoricalParameter | OrdinalParameter, new: CategoricalParameter | OrdinalParameter
) -> str | None:
    if old.model_copy(update={"choices": new.choices}) != new:
        return "of a choice, only `choices` can change"
    lost = [choice for choice in old.choices if not new.contains(choice)]
    return f"a space only grows: {', '.join(map(str, lost))} must stay" if lost else None
