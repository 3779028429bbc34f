"""What a person guesses to be good: values of some parameters, and whether they lie in the space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..meanings import nearest
from ..trial import Params, ParamValue
from .parameters import AnyParameter, FloatParameter, IntParameter
from .rules import Rulebook, impossible, is_possible

_MOST_WITHOUT_A_WAY: Final = 3


def problems_of(space: Mapping[str, AnyParameter], guess: Params) -> Iterator[tuple[str, str]]:
    """Yield (parameter, sentence) for everything that keeps `guess` from being a part of a configuration of `space`.

    A conditional parameter needs its parents in the guess: which of several values was meant is not known.
    """
    if not guess:
        yield "", "this guess is empty; give the value of at least one parameter"
    for key, value in guess.items():
        if key not in space:
            near = nearest(key, space)
            hint = f"did you mean {near!r}?" if near is not None else "it has: " + ", ".join(space)
            yield key, f"there is no such parameter in the space; {hint}"
        elif not space[key].contains(value):
            yield key, not_in_space(space[key], value)
        else:
            yield from ((key, sentence) for sentence in _unmet(space[key].when, guess))


def broken_by(book: Rulebook, guesses: Sequence[Params]) -> Iterator[tuple[int, str]]:
    """Yield (place, sentence) for each guess that breaks a rule, or leaves no way to keep all of them.

    The guesses lie in the space. Finding out that there is no way takes seconds: this ends after a few such guesses.
    """
    without_a_way = 0
    for place, guess in enumerate(guesses):
        open_keys = [key for key in book.keys if key not in guess and _may_exist(book.space[key], guess)]
        broken = [rule for rule in book.broken_all(guess) if not set(open_keys) & set(rule.names)]
        if broken:
            yield place, f"this guess {book.sentence(broken[0], guess)}; change one of the two"
        elif open_keys and not is_possible(book, guess):
            yield place, _without_a_way(book, guess, open_keys)
            without_a_way += 1
        if without_a_way == _MOST_WITHOUT_A_WAY:
            return


def _without_a_way(book: Rulebook, guess: Params, open_keys: Sequence[str]) -> str:
    last, needed = impossible(book, guess)
    rules = [book.rules[place] for place in (*needed, last)]
    left = " and ".join(key for key in open_keys if any(key in rule.names for rule in rules))
    texts = " and ".join(f"`{rule.text}`" for rule in rules)
    return f"with this guess no {left} was found that keeps {texts}; change one of them"


def _may_exist(parameter: AnyParameter, guess: Params) -> bool:
    return all(parent not in guess or guess[parent] in values for parent, values in parameter.when.items())


def not_in_space(parameter: AnyParameter, value: object) -> str:
    """Return a sentence: the parameter has no such `value`, and which it has."""
    return f"{value!r} is not in the space; give {_described(parameter)}"


def _unmet(when: Mapping[str, list[ParamValue]], guess: Params) -> Iterator[str]:
    for parent, values in when.items():
        allowed = " or ".join(map(repr, values))
        if parent not in guess:
            yield f"exists only where {parent} is {allowed}; give {parent} too"
        elif guess[parent] not in values:
            yield f"exists only where {parent} is {allowed}, not {guess[parent]!r}"


def _described(parameter: AnyParameter) -> str:
    if isinstance(parameter, FloatParameter | IntParameter):
        kind = "a number" if isinstance(parameter, FloatParameter) else "an integer"
        grid = f" in steps of {parameter.step:g}" if parameter.step not in (None, 1) else ""
        return f"{kind} from {parameter.low:g} to {parameter.high:g}{grid}"
    return "one of: " + ", ".join(map(str, parameter.choices))
