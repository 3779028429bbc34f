"""What models demand of a configuration, by their cards, written as rules of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models import ModelInfo, Value

    from ..spec import StudySpec
    from ..spec.rules import Rulebook


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One thing that a model demands of the settings of a study."""

    rule: str
    """In the language of `rules` of a spec."""
    words: str
    """Such as `beta_inv must divide width`."""
    is_of_clip: bool


def demands(spec: StudySpec, model: str) -> Iterator[Demand]:
    """Yield what the trials of `model` must keep; what all of them keep in any case is left out."""
    from models import model_info

    info = model_info(model)
    known: dict[str, Value] = {**info.defaults(), **dict(info.fixed)}
    for rule in info.rules:
        if all(name in known or name == "frames" for name in (rule.divisor, rule.of)):
            of_clip = "frames" in (rule.divisor, rule.of)
            statement = f"{_term(spec, info, rule.divisor, known)} divides {_term(spec, info, rule.of, known)}"
            words = f"{rule.divisor} must divide {rule.of}"
            yield from _needed(spec, info, Demand(rule=statement, words=words, is_of_clip=of_clip))
    for words, statement in _of_clip(spec, info, known):
        yield from _needed(spec, info, Demand(rule=statement, words=words, is_of_clip=True))


def _of_clip(spec: StudySpec, info: ModelInfo, known: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    """Yield what a model demands of clips, in words and as a rule."""
    for name, least in (("frames", info.min_frames), ("size", info.min_size)):
        yield f"clip.{name} must be at least {least}", f"{_term(spec, info, name, known)} >= {least}"
    for name in info.clip_options:
        statement = f"{_option(spec, info, name, known)} == {_term(spec, info, name, known)}"
        yield f"model.{name} must be clip.{name}", statement
    size = _term(spec, info, "test_size", known)
    if "size" in info.clip_options:
        yield (
            "clip.test_size must be 0 or model.size",
            f"({size} == 0 or {size} == {_option(spec, info, 'size', known)})",
        )
    else:
        least = info.min_size
        yield f"clip.test_size must be 0 or at least {least}", f"({size} == 0 or {size} >= {least})"


def rulebook_of(spec: StudySpec, model: str) -> Rulebook:
    """Return the demands of one model alone."""
    texts = [demand.rule for demand in demands(spec, model)]
    return spec.model_copy(update={"rules": [], "model_rules": texts}).rulebook


def pinned(spec: StudySpec, model: str) -> Mapping[str, str]:
    """Return what a configuration has in any case when it is one of `model`."""
    return {"model": model} if "model" in spec.space else {}


def _needed(spec: StudySpec, info: ModelInfo, demand: Demand) -> Iterator[Demand]:
    """Yield the demand, for this model alone, unless every configuration of the study meets it."""
    from ..spec.rules import is_possible

    against = spec.model_copy(update={"rules": [f"not ({demand.rule})"], "model_rules": []})
    if is_possible(against.rulebook, pinned(spec, info.name)):
        quote = "'" if '"' in info.name else '"'
        rule = f"if model == {quote}{info.name}{quote} then {demand.rule}"
        yield Demand(rule=rule, words=demand.words, is_of_clip=demand.is_of_clip)


def _term(spec: StudySpec, info: ModelInfo, name: str, known: Mapping[str, Value]) -> str:
    """Return how a rule writes a number of the model, or of its clip."""
    is_of_clip = name in ("frames", "size", "test_size")
    if not is_of_clip:
        return _option(spec, info, name, known)
    return _setting(spec, info, f"clip.{name}", spec.task.defaults()[f"clip.{name}"])


def _option(spec: StudySpec, info: ModelInfo, name: str, known: Mapping[str, Value]) -> str:
    """Return how a rule writes an option of the model."""
    return _setting(spec, info, f"model.{name}", known[name])


def _setting(spec: StudySpec, info: ModelInfo, key: str, default: object) -> str:
    is_of_clip = key.startswith("clip.")
    otherwise = spec.task.base.get(key, default)
    parameter = spec.space.get(key)
    if parameter is None:
        return key if key in spec.task.base or is_of_clip else _written(otherwise)
    if info.name not in parameter.when.get("model", [info.name]):
        return _written(otherwise)
    return key if set(parameter.when) <= {"model"} else f"default({key}, {_written(otherwise)})"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
