"""All rules of a study: which configurations they allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ...trial import Params, ParamValue
from ..parameters import AnyParameter, FloatParameter, IntParameter, matches
from .expressions import Kind, kind_of
from .kinds import Setting
from .rule import Rule, read_rule

ABSENT: Final = None
"""In the place of a value: the parameter does not exist in this configuration."""
_MOST_REMEMBERED: Final = 50_000


class Rulebook:
    """The rules of a study, over its space and the settings that the space does not vary. Equal where both are."""

    def __init__(
        self, texts: Sequence[str], space: Mapping[str, AnyParameter], settings: Mapping[str, Any], order: Sequence[str]
    ) -> None:
        """Read the rules.

        `settings` are the values of base and the defaults; `order` has the parameters, parents first.

        Raises:
            RuleError: a text is not a rule.
        """
        self.rules: Sequence[Rule] = [read_rule(text) for text in texts]
        self.space = space
        mentioned = {name for rule in self.rules for name in rule.names}
        self.keys: Sequence[str] = [key for key in order if key in _with_parents(mentioned, space)]
        """The parameters that decide whether a configuration is allowed, parents first."""
        self._fixed = {name: settings[name] for name in mentioned if name in settings and name not in space}
        self._about: dict[str, Rulebook] = {}
        self._known: dict[tuple[ParamValue | None, ...], bool] = {}

        self._content = repr(
            ([rule.text for rule in self.rules], [(key, space[key]) for key in self.keys], self._fixed)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rulebook) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def problems(self, settings: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
        """Yield (place of the rule, sentence) for each rule that has no meaning over the space and `settings`."""
        known = {name: Setting(_kinds_of(value)) for name, value in settings.items()}
        known |= {key: _setting_of(parameter) for key, parameter in self.space.items()}
        for place, rule in enumerate(self.rules):
            for message in rule.problems(known):
                yield place, message

    def broken(self, params: Params) -> Rule | None:
        """Return the first rule that a configuration breaks; None where it keeps all."""
        return None if self.allows(params) else next(iter(self.broken_all(params)))

    def broken_all(self, params: Params) -> Sequence[Rule]:
        """Return all rules that a configuration breaks."""
        values = {**self._fixed, **params}
        return [rule for rule in self.rules if not rule.holds(values)]

    def allows(self, params: Params) -> bool:
        """Return whether a configuration, without inactive parameters, keeps all rules."""
        return not self.rules or self.allows_values(tuple(params.get(key, ABSENT) for key in self.keys))

    def allows_values(self, values: tuple[ParamValue | None, ...]) -> bool:
        """Return the same for the values of `keys`; `ABSENT` stands for a parameter that is inactive."""
        known = self._known.get(values)
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            present = self._present(values)
            known = self._known[values] = all(rule.holds(present) for rule in self.rules)
        return known

    def allows_columns(self, columns: Sequence[Sequence[ParamValue]]) -> list[bool]:
        """Return which of many configurations keep all rules.

        There is one column for each of `keys`, with a value for inactive parameters too.
        """
        rows = zip(*columns, strict=True)
        if not any(self.space[key].when for key in self.keys):
            return [self.allows_values(values) for values in rows]
        return [self.allows(self.active(dict(zip(self.keys, values, strict=True)))) for values in rows]

    def gap(self, params: Params) -> float:
        """Return how far a configuration is from keeping all rules: 0 where it does, without a unit."""
        values = {**self._fixed, **params}
        return sum(rule.gap(values) for rule in self.rules)

    def sentence(self, rule: Rule, params: Params) -> str:
        """Return what a configuration that breaks `rule` has where the rule looks."""
        return f"breaks the rule `{rule.text}` ({self.shown(rule, params)})"

    def shown(self, rule: Rule, params: Params) -> str:
        """Return the settings that a rule mentions, with the values that base or a configuration gives them."""
        return rule.shown({**self._fixed, **params})

    def active(self, params: Params) -> dict[str, ParamValue]:
        """Return the values of `keys` in `params` of which the conditions hold."""
        kept: dict[str, ParamValue] = {}
        for key in self.keys:
            if key in params and matches(self.space[key].when, kept):
                kept[key] = params[key]
        return kept

    def about(self, key: str) -> Rulebook:
        """Return the rules that a change of the parameter `key` can matter to."""
        if key not in self._about:
            names = {other for other in self.keys if key in _with_parents({other}, self.space)}
            self._about[key] = self.of([rule for rule in self.rules if names & set(rule.names)])
        return self._about[key]

    def of(self, rules: Sequence[Rule]) -> Rulebook:
        """Return a rulebook of some of the rules."""
        return Rulebook([rule.text for rule in rules], self.space, self._fixed, self.keys)

    def _present(self, values: tuple[ParamValue | None, ...]) -> dict[str, ParamValue]:
        pairs = zip(self.keys, values, strict=True)
        return self._fixed | {key: value for key, value in pairs if value is not ABSENT}


def _with_parents(names: set[str], space: Mapping[str, AnyParameter]) -> set[str]:
    found: set[str] = set()
    pending = [name for name in names if name in space]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(parent for parent in space[name].when if parent in space)
    return found


def _setting_of(parameter: AnyParameter) -> Setting:
    if isinstance(parameter, FloatParameter | IntParameter):
        return Setting(frozenset({"number"}))
    choices = tuple(parameter.choices)
    kinds = {kind for choice in choices if (kind := kind_of(choice)) is not None}
    return Setting(frozenset(kinds), choices)


def _kinds_of(value: object) -> frozenset[Kind]:
    kind = kind_of(value)
    return frozenset() if kind is None else frozenset({kind})
