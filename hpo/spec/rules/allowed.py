"""Finding configurations that the rules allow, also where they are rare.

Only the parameters that rules mention are varied, so that a few thousand tries cover them densely. Where there are few
combinations of their values, all are tried. Otherwise points spread evenly are tried, then the corners of the space and
the numbers that rules name, and then a descent from the points that come nearest.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Final

from ...trial import Params, ParamValue
from ..parameters import AnyParameter, CategoricalParameter
from ..values import all_values, count_of, unit_of, value_at
from .expressions import Constant
from .rulebook import Rulebook

MOST_ENUMERATED: Final = 2**16
"""Up to this number of combinations all are tried."""
SPREAD_POINTS: Final = 2**12
MOST_EXAMPLES: Final = 2**11
_MOST_CORNERS: Final = 2**10
_DESCENTS: Final = 24
_ENOUGH: Final = 64
"""With fewer allowed points than this, descents look for more: first from those that come nearest."""
_MORE_DESCENTS: Final = 64
"""From points anywhere, where the first descents have shown that there is something to find."""
_MOST_EVALUATIONS: Final = 20_000
"""A descent ends after evaluating this many rules."""
_MOST_LEFT_OUT: Final = 6
"""To name the rules that contradict each other, the last ones of this number are left out in turn."""
_MOST_CHOICES_TRIED: Final = 64
_STEPS: Final = tuple(0.5 * 0.25**power for power in range(24))
_BISECTIONS: Final = 12

Values = dict[str, ParamValue]


def allowed(book: Rulebook, fixed: Params | None = None) -> Iterator[Values]:
    """Yield allowed values of the parameters of `book.keys`, all different, spread over what is allowed.

    Those in `fixed` keep their values. Inactive parameters are left out. The order is always the same.
    """
    seen: set[frozenset[tuple[str, ParamValue]]] = set()
    for values in _tried(book, dict(fixed or {})):
        if book.allows(values) and (key := frozenset(values.items())) not in seen:
            seen.add(key)
            yield values


@lru_cache(maxsize=16)
def examples(book: Rulebook) -> Sequence[Values]:
    """Return the first of the allowed values: a sample of what is allowed, or all of it."""
    return list(itertools.islice(allowed(book), MOST_EXAMPLES))


def is_possible(book: Rulebook, fixed: Params | None = None) -> bool:
    """Return whether any configuration with the values in `fixed` was found that keeps all rules."""
    return next(allowed(book, fixed), None) is not None


def said(book: Rulebook) -> str:
    """Return what was tried before a configuration counts as impossible."""
    names, count = ", ".join(book.keys), _count(book, {})
    if count is not None:
        return f"all {count} combinations of {names} were tried" if count > 1 else "nothing that it mentions varies"
    return f"{SPREAD_POINTS} combinations of {names} were tried, and a search from those that come nearest"


def impossible(book: Rulebook, fixed: Params | None = None) -> tuple[int, list[int]]:
    """Return a rule that rules out every configuration, and the earlier ones that do so only together with it.

    Both are places in `book.rules`. Of many earlier ones some may be named that are not needed. With the values in
    `fixed`, the book must allow nothing.
    """

    def is_left(places: Sequence[int]) -> bool:
        return is_possible(book.of([book.rules[place] for place in places]), fixed)

    last = bisect_left(range(len(book.rules) - 1), True, key=lambda place: not is_left(range(place + 1)))
    if not is_left([last]):
        return last, []
    linked = _linked(book, last)
    for place in linked:
        if not is_left([place, last]):
            return last, [place]
    needed = linked if not is_left([*linked, last]) else list(range(last))
    for place in needed[-_MOST_LEFT_OUT:]:
        fewer = [other for other in needed if other != place]
        if not is_left([*fewer, last]):
            needed = fewer
    return last, needed


def _linked(book: Rulebook, last: int) -> list[int]:
    """Return the places of the earlier rules that share parameters with the rule at `last`, or with one that does."""
    names = set(book.rules[last].names)
    found: list[int] = []
    for _ in range(last):
        more = [place for place in range(last) if place not in found and names & set(book.rules[place].names)]
        found += more
        names |= {name for place in more for name in book.rules[place].names}
    return sorted(found)


def near(book: Rulebook, params: Params) -> Values | None:
    """Return allowed values of the parameters of `book.keys` close to `params`; None where a descent finds none."""
    present = ((key, params[key]) for key in book.keys if key in params)
    return _near(book, tuple(present))


@lru_cache(maxsize=4096)
def _near(book: Rulebook, present: tuple[tuple[str, ParamValue], ...]) -> Values | None:
    middle = {key: value_at(book.space[key], 0.5) for key in book.keys}
    found = book.active(_descent(book, {**middle, **dict(present)}, {}))
    return found if book.allows(found) else None


def nearest(book: Rulebook, params: Params) -> Iterator[Values]:
    """Yield allowed values of the parameters of `book.keys`, the nearest to `params` first.

    They are the `examples`, moved closer, and what a descent from `params` itself finds.
    """
    wanted = book.active(params)
    start = near(book, params)
    found = [*([] if start is None else [start]), *examples(book)]
    distance = partial(_distance, book, wanted)
    closest = heapq.nsmallest(_DESCENTS, found, key=distance)
    yield from sorted((_towards(book, values, wanted) for values in closest), key=distance)
    yield from sorted(found, key=distance)


# ---------------------------------------------------------------- what is tried


def _tried(book: Rulebook, fixed: Values) -> Iterator[Values]:
    fixed = {key: value for key, value in fixed.items() if key in book.keys}
    free = [key for key in book.keys if key not in fixed]
    total = _count(book, fixed)
    if total is not None:
        lists = {key: all_values(book.space[key]) for key in free}
        for place in range(total):
            yield book.active({**fixed, **_combination(lists, (place * _stride(total)) % total)})
        return
    best: list[tuple[float, int, Values]] = []
    found = 0
    for place in range(SPREAD_POINTS):
        values = {**fixed, **_values_at(book, free, place)}
        active = book.active(values)
        yield active
        if book.allows(active):
            found += 1
        elif found < _ENOUGH:
            entry = (-book.gap(active), place, values)
            (heapq.heappushpop if len(best) == _DESCENTS else heapq.heappush)(best, entry)
    lists = {key: _corners(book, key) for key in free}
    total = math.prod(map(len, lists.values()))
    for place in range(min(total, _MOST_CORNERS)):
        yield book.active({**fixed, **_combination(lists, (place * _stride(total)) % total)})
    if found < _ENOUGH:
        ends = [book.active(_descent(book, values, fixed)) for _, _, values in sorted(best, reverse=True)]
        yield from ends
        if any(map(book.allows, ends)):
            starts = ({**fixed, **_values_at(book, free, place)} for place in range(_MORE_DESCENTS))
            yield from (book.active(_descent(book, values, fixed)) for values in starts)


def _count(book: Rulebook, fixed: Params) -> int | None:
    """Return the number of combinations; None where there are too many to try all."""
    counts = [count_of(book.space[key]) for key in book.keys if key not in fixed]
    total = math.prod(count if count is not None else MOST_ENUMERATED + 1 for count in counts)
    return total if total <= MOST_ENUMERATED else None


def _combination(lists: Mapping[str, Sequence[ParamValue]], place: int) -> Values:
    values: Values = {}
    for key, choices in lists.items():
        place, index = divmod(place, len(choices))
        values[key] = choices[index]
    return values


def _stride(total: int) -> int:
    """Return a step that visits all of `total` places, neighbours far apart (the golden section)."""
    stride = max(round(total * 0.618), 1)
    while math.gcd(stride, total) > 1:
        stride += 1
    return stride


def _values_at(book: Rulebook, keys: Sequence[str], place: int) -> Values:
    """Return the values at a point of the additive recurrence with the generalised golden section (Roberts, 2018)."""
    ratio = _ratio(len(keys))
    units = ((0.5 + (place + 1) * ratio ** -(axis + 1)) % 1.0 for axis in range(len(keys)))
    return {key: value_at(book.space[key], u) for key, u in zip(keys, units, strict=True)}


@cache
def _ratio(dimensions: int) -> float:
    """Return the root of x ** (dimensions + 1) = x + 1 that is greater than 1."""
    ratio = 1.5
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    return ratio


def _corners(book: Rulebook, key: str) -> list[ParamValue]:
    """Return the ends of a range, and the numbers in it that rules name; the values of a parameter that has few."""
    parameter = book.space[key]
    count = count_of(parameter)
    if count is not None and count <= _MOST_CHOICES_TRIED:
        return list(all_values(parameter))
    named = [node.value for rule in book.rules for node in rule.root.walk() if isinstance(node, Constant)]
    return list(dict.fromkeys([*parameter.extremes, *(value for value in named if parameter.contains(value))]))


# ---------------------------------------------------------------- descent


def _descent(book: Rulebook, values: Values, fixed: Params) -> Values:
    """Return the values after changing one at a time, as long as that comes closer to what is allowed."""
    gap = book.gap(book.active(values))
    left = _MOST_EVALUATIONS
    while gap > 0:
        before = gap
        for key in book.keys:
            if key in fixed or gap == 0:
                continue
            part = book.about(key)
            here = part.gap(book.active(values))
            tries = [{**values, key: value} for value in _changes(book.space[key], values[key])]
            gaps = [part.gap(book.active(entry)) for entry in tries]
            left -= len(tries) * len(part.rules)
            if gaps and min(gaps) < here:
                values = tries[gaps.index(min(gaps))]
                gap = book.gap(book.active(values))
        if gap >= before or left < 0:
            break
    return values


def _changes(parameter: AnyParameter, value: ParamValue) -> list[ParamValue]:
    count = count_of(parameter)
    if count is not None and count <= _MOST_CHOICES_TRIED:
        return [other for other in all_values(parameter) if other != value]
    u = unit_of(parameter, value)
    steps = [*_STEPS] if count is None else [step for step in _STEPS if step > 0.5 / count]
    if count is not None:
        steps.append(1.0 / count)
    return [value_at(parameter, min(max(u + way * step, 0.0), 1.0)) for step in steps for way in (-1, 1)]


# ---------------------------------------------------------------- nearness


def _distance(book: Rulebook, wanted: Params, values: Params) -> float:
    """Return the squared distance in coordinates; 1 for another category, or for a parameter that only one has."""
    total = 0.0
    for key in book.keys:
        parameter = book.space[key]
        if values.get(key) == wanted.get(key):
            continue
        if isinstance(parameter, CategoricalParameter) or key not in values or key not in wanted:
            total += 1.0
        else:
            total += (unit_of(parameter, values[key]) - unit_of(parameter, wanted[key])) ** 2
    return total


def _towards(book: Rulebook, values: Values, wanted: Params) -> Values:
    """Return the values after moving the continuous ones as far towards `wanted` as the rules allow."""
    ends = {
        key: (unit_of(book.space[key], value), unit_of(book.space[key], wanted[key]))
        for key, value in values.items()
        if key in wanted and count_of(book.space[key]) is None
    }
    low, high, step = 0.0, 1.0, 1.0
    for _ in range(_BISECTIONS if ends else 0):
        moved = {key: value_at(book.space[key], start + step * (end - start)) for key, (start, end) in ends.items()}
        if book.allows({**values, **moved}):
            values, low = {**values, **moved}, step
        else:
            high = step
        step = (low + high) / 2
    return values
