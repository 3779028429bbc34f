"""The configurations of a finite space: how many there are, and each of them.

Two configurations differ if an active parameter has another value; those that break a rule do not count. Parameters
that no condition and no rule connects vary independently, so each group of connected ones is listed for itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from ..trial import ParamValue
from .parameters import matches
from .rules import Rulebook
from .study import StudySpec
from .values import all_values, count_of

MOST_STEPS: Final = 2**17
"""A group of connected parameters is listed in this many steps, or counts as one too large to be counted."""

Values = dict[str, ParamValue]


def count_configurations(spec: StudySpec) -> int | None:
    """Return the number of configurations of the space of a study that keep its rules.

    None where a parameter is continuous, and where conditions or rules connect too many values to list them.
    """
    groups = _groups(_Content(text=repr(spec.space), book=spec.rulebook, spec=spec))
    return None if groups is None else math.prod(map(len, groups))


def configurations(spec: StudySpec) -> Iterator[Values]:
    """Yield every configuration that keeps the rules, always in the same order; none where they cannot be counted."""
    groups = _groups(_Content(text=repr(spec.space), book=spec.rulebook, spec=spec))
    if groups is None:
        return
    for parts in itertools.product(*groups):
        found = {key: value for part in parts for key, value in part.items()}
        yield {key: found[key] for key in spec.space if key in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What the configurations depend on; specs that are equal in it are listed once."""

    text: str
    book: Rulebook
    spec: StudySpec = field(compare=False)


@lru_cache(maxsize=64)
def _groups(content: _Content) -> Sequence[Sequence[Values]] | None:
    """Return, for each group of connected parameters, all their values that keep the rules."""
    spec, book = content.spec, content.book
    if any(count_of(parameter) is None for parameter in spec.space.values()):
        return None
    if not book.of([rule for rule in book.rules if not set(rule.names) & set(spec.space)]).allows({}):
        return [[]]
    found: list[Sequence[Values]] = []
    for keys in _connected(spec):
        listed = _listed(spec, keys)
        if listed is None:
            return None
        found.append(listed)
    return found


def _connected(spec: StudySpec) -> Sequence[Sequence[str]]:
    """Return the groups of parameters that conditions and rules connect, each with parents first."""
    links = [{key, *parameter.when} for key, parameter in spec.space.items()]
    links += [set(rule.names) & set(spec.space) for rule in spec.rulebook.rules]
    groups: list[set[str]] = []
    for link in links:
        apart = [group for group in groups if not group & link]
        groups = [*apart, link.union(*(group for group in groups if group & link))]
    return [[key for key in spec.parameter_order if key in group] for group in groups if group]


def _listed(spec: StudySpec, keys: Sequence[str]) -> Sequence[Values] | None:
    """Return all values of a group, without inactive parameters; None where that takes too many steps.

    A rule is asked as soon as all its parameters have their values.
    """
    book, left = spec.rulebook, set(keys)
    due: list[Sequence[Rulebook]] = []
    for key in keys:
        left.discard(key)
        due.append([book.of([rule]) for rule in book.rules if key in rule.names and not left & set(rule.names)])
    partial: list[Values] = [{}]
    steps = 0
    for key, rules in zip(keys, due, strict=True):
        parameter, longer = spec.space[key], list[Values]()
        active = sum(matches(parameter.when, values) for values in partial)
        # Counted before they are listed: a range may have more values than there is memory.
        steps += len(partial) - active + active * (count_of(parameter) or 0)
        if steps > MOST_STEPS:
            return None
        choices = all_values(parameter) if active else ()
        for values in partial:
            is_active = matches(parameter.when, values)
            tried = [{**values, key: choice} for choice in choices] if is_active else [values]
            longer += [entry for entry in tried if all(rule.allows(entry) for rule in rules)]
        partial = longer
    return partial
