"""The study spec: what a person POSTs. One object in YAML, JSON and Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StrictBool, StrictInt, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from ..meanings import nearest
from ..trial import CUSTOM, Params, ParamValue
from .checkpoints import CheckpointPolicy
from .finalists import FinalistsConfig
from .guesses import not_in_space, problems_of
from .optimizer import NAME_PATTERN, OptimizerConfig
from .parameters import AnyParameter, CategoricalParameter, OrdinalParameter, Strict, matches
from .resources import Resources, unshared_batches
from .rules import Rulebook, RuleError, located, read_rule
from .tasks import AnyTask
from .tasks.task import Direction

MOST_RULES: Final = 32
Location = tuple[str | int, ...]
Problem = tuple[Location, str]
"""Where a spec is wrong, and a sentence about it."""
_CONSTRAINT = re.compile(r"^\s*(\w+)\s*(<=|>=)\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*$")
_INCLUDE: dict[str, Any] = {
    "properties": {
        "include": {
            "description": "Models whose recommended ranges join the space; what is stored has the ranges themselves.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
        }
    }
}


class Objective(Strict):
    """A reported metric to maximize or minimize."""

    metric: str
    direction: Annotated[Direction, Field(json_schema_extra=lambda schema: schema.pop("default"))] = "maximize"
    """In a study, the natural direction of the metric when none is given."""
    last_epochs: Annotated[StrictInt, Field(ge=1)] = 1
    """The value of a trial is the mean over this many of its last epochs, or over all that it has done."""
    noise_sd: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the metric when the same configuration is trained again, where it is known; in its unit."""


class Constraint(Strict):
    """An outcome constraint, written `METRIC <= NUMBER` or `METRIC >= NUMBER`."""

    metric: str
    relation: Literal["<=", ">="]
    bound: float

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = _CONSTRAINT.match(value)
        if found is None:
            raise ValueError(f"cannot read {value!r}; write METRIC <= NUMBER or METRIC >= NUMBER")
        return {"metric": found[1], "relation": found[2], "bound": float(found[3])}

    def violation(self, value: float) -> float:
        """Return how far `value` lies beyond the bound; 0 or less where it holds."""
        return value - self.bound if self.relation == "<=" else self.bound - value


class NoStopping(Strict):
    """Every trial runs to its last epoch."""

    name: Literal["none"]


class _Stopping(Strict):
    min_epochs: Annotated[StrictInt, Field(ge=1)] = 1
    """No trial is stopped before it has done this many epochs."""
    startup_trials: Annotated[StrictInt, Field(ge=0)] = 4
    """This many trials of the study complete before any is stopped."""


class MedianStopping(_Stopping):
    """Stop a trial whose best value so far is worse than the median of the others at the same epoch."""

    name: Literal["median"]


class PercentileStopping(_Stopping):
    """Keep the trials whose best value so far is in the best `percentile` of the others at the same epoch."""

    name: Literal["percentile"]
    percentile: Annotated[float, Field(gt=0, lt=100)] = 50.0


class _RungStopping(_Stopping):
    pause: StrictBool = False
    """Pause a trial with its checkpoint instead of stopping it; it continues once the rule would let it pass."""


class AshaStopping(_RungStopping):
    """Asynchronous successive halving: at each rung the best 1/`reduction` continue (Li et al., 2020)."""

    name: Literal["asha"]
    reduction: Annotated[StrictInt, Field(ge=2)] = 3


class HyperbandStopping(_RungStopping):
    """Several successive-halving brackets with different first rungs (Li et al., 2018)."""

    name: Literal["hyperband"]
    reduction: Annotated[StrictInt, Field(ge=2)] = 3


class CurvesStopping(_RungStopping):
    """Stop a trial that, by a model of all curves of the study, is unlikely to end among the best."""

    name: Literal["curves"]
    startup_trials: Annotated[StrictInt, Field(ge=1)] = 1
    """This many trials of the study complete before any is stopped: they show how curves continue late."""
    probability: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Stop where ending among the best is less probable than this."""
    protect: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """The share of the trials, at least one trial, that counts as the best."""


class ThresholdStopping(_Stopping):
    """Stop a trial whose value leaves [lower, upper]."""

    name: Literal["threshold"]
    lower: float | None = None
    upper: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if self.lower is None and self.upper is None:
            raise ValueError("give `lower`, `upper` or both")
        return self


class PatientStopping(_Stopping):
    """Stop a trial whose value has not improved for `patience` epochs."""

    name: Literal["patient"]
    patience: Annotated[StrictInt, Field(ge=1)] = 5


EarlyStopping = Annotated[
    NoStopping
    | MedianStopping
    | PercentileStopping
    | AshaStopping
    | HyperbandStopping
    | CurvesStopping
    | ThresholdStopping
    | PatientStopping,
    Field(discriminator="name"),
]


MOST_HOURS: Final = 1e100
"""In seconds it must still be a number."""
LEAST_FAILURES: Final = 20
"""A study without any result is not given up before this many trials have failed."""


class BudgetConfig(Strict):
    """When the study ends: at whichever limit is reached first, and when all configurations of its space were tried."""

    trials: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = None
    gpu_hours: Annotated[float, Field(gt=0, le=MOST_HOURS)] | None = None
    """Hours for which devices are in use, each from the claim of a trial to its end, failures and start-up included."""
    wall_hours: Annotated[float, Field(gt=0, le=MOST_HOURS)] | None = None
    target: dict[str, float] = Field(default_factory=dict)
    """Metric to the value at which the study is done, such as {val_top1: 0.9}."""
    max_failed: Annotated[StrictInt, Field(ge=1)] | None = None
    """The study ends as failed once this many trials have failed. Without it: once a fifth of `trials`, but at least
    20, have failed and no other trial has finished an epoch."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.trials is None and self.gpu_hours is None and self.wall_hours is None:
            raise ValueError("the study would never end; give trials, gpu_hours or wall_hours")
        return self

    def too_many_failed(self, failed: int, *, has_epochs: bool) -> bool:
        """Return whether `failed` failures end the study; `has_epochs` says that another trial finished an epoch."""
        if self.max_failed is not None:
            return failed >= self.max_failed
        return not has_epochs and failed >= max(LEAST_FAILURES, (self.trials or 0) // 5)


class RetryConfig(Strict):
    """How often a trial whose worker died is handed out again before it is failed(lost)."""

    attempts: Annotated[StrictInt, Field(ge=0, le=100)] = 3


RuleText = Annotated[str, Field(min_length=1)]


class StudySpec(Strict):
    """A study: what is searched, for what, on what, and within which budget.

    Validation beyond single fields: every metric is one that trials of the task report, every key of `space` and
    `task.base` is a setting of the task whose bounds hold for all values that can be drawn, conditions refer to
    choices that exist, without a cycle, and rules to parameters and settings.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    objectives: Annotated[list[Objective], Field(min_length=1, max_length=4)]
    constraints: list[Constraint] = Field(default_factory=list)
    task: AnyTask
    space: Annotated[dict[str, AnyParameter], Field(min_length=1, max_length=100, json_schema_extra=_INCLUDE)]
    rules: Annotated[list[RuleText], Field(max_length=MOST_RULES)] = Field(default_factory=list)
    """What every configuration must keep, such as `clip.frames * batch_size <= 512` or `model.alpha divides
    clip.frames`: comparisons of parameters of the space and settings of `task.base`."""
    model_rules: list[RuleText] = Field(default_factory=list)
    """What the models demand, in the same language; the service writes it when the study is created."""
    optimizer: OptimizerConfig = OptimizerConfig()
    early_stopping: EarlyStopping = NoStopping(name="none")
    budget: BudgetConfig
    retry: RetryConfig = RetryConfig()
    finalists: FinalistsConfig | None = None
    """Train the best configurations again with fresh seeds after the search; nothing of it where it is not given."""
    checkpoints: CheckpointPolicy | None = None
    """Which weights of ended trials stay; all that were written where it is not given."""
    resources: Resources | None = None
    """What each trial trains on: one device where it is not given."""

    @model_validator(mode="after")
    def _natural_directions(self) -> Self:
        """Give objectives without a direction that of their metric, which the task knows."""
        for place, objective in enumerate(self.objectives):
            metric = self.task.reported_metrics.get(objective.metric)
            if metric is not None and "direction" not in objective.model_fields_set:
                self.objectives[place] = objective.model_copy(update={"direction": metric.direction})
        return self

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        errors = [
            InitErrorDetails(type=PydanticCustomError("spec", "{m}", {"m": message}), loc=loc, input=None)
            for loc, message in self._problems()
        ]
        if errors:
            raise ValidationError.from_exception_data("StudySpec", errors)
        return self

    def _problems(self) -> Iterator[Problem]:
        yield from self._metric_problems()
        yield from self._checkpoint_problems()
        yield from self._resource_problems()
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) != len(metrics):
            yield ("objectives",), "a metric appears twice; name each objective once"
        if len(metrics) > 1 and self.early_stopping.name in ("threshold", "patient"):
            yield (
                ("early_stopping", "name"),
                f"{self.early_stopping.name} watches one objective, but the study has several; "
                "use curves, asha, hyperband, median, percentile or none",
            )
        for key, value in self.task.base.items():
            yield from self._setting_problems(("task", "base", key), key, [("", value)])
        for key, parameter in self.space.items():
            ends = ("low", "high") if parameter.type in ("float", "int") else repeat("choices")
            yield from self._setting_problems(("space", key), key, zip(ends, parameter.extremes, strict=False))
            yield from self._condition_problems(key)
            yield from self._prior_problems(key)
        yield from self._rule_problems()
        yield from self._optimizer_problems()
        if self.finalists is not None and (reason := self.no_fresh_seed()) is not None:
            yield ("finalists",), reason
        if self.early_stopping.name not in ("none",):
            least = getattr(self.early_stopping, "min_epochs", 1)
            if least > self.task.epochs:
                yield (
                    ("early_stopping", "min_epochs"),
                    f"{least} is more than task.epochs ({self.task.epochs}); nothing would ever stop",
                )

    def _metric_problems(self) -> Iterator[Problem]:
        """Yield a problem for each metric that no trial would report."""
        known = self.task.reported_metrics
        for place, objective in enumerate(self.objectives):
            if objective.metric not in known:
                yield ("objectives", place, "metric"), _unknown_metric(objective.metric, known)
            if objective.last_epochs > self.task.epochs:
                message = f"{objective.last_epochs} is more than task.epochs ({self.task.epochs}); no trial has so many"
                yield ("objectives", place, "last_epochs"), message
        for place, constraint in enumerate(self.constraints):
            if constraint.metric not in known:
                yield ("constraints", place, "metric"), _unknown_metric(constraint.metric, known)
        for metric in self.budget.target:
            if metric not in known:
                yield ("budget", "target", metric), _unknown_metric(metric, known)

    def _checkpoint_problems(self) -> Iterator[Problem]:
        if self.task.kind == CUSTOM and self.checkpoints is not None:
            for field in ("best", "every"):
                if getattr(self.checkpoints, field):
                    message = (
                        "only weights of videos are kept beside the last: a function keeps what it reports; drop it"
                    )
                    yield ("checkpoints", field), message

    def _resource_problems(self) -> Iterator[Problem]:
        if self.ranks == 1:
            return
        if self.task.kind == CUSTOM:
            message = "a function of your own has the device of its worker, and starts on more by itself; drop it"
            yield ("resources", "gpus" if self.gpus > 1 else "nodes"), message
        else:
            yield from unshared_batches(self.ranks, self._settings, self.space)

    def _setting_problems(
        self, location: Location, key: str, values: Iterable[tuple[str, object]]
    ) -> Iterator[Problem]:
        for field, value in values:
            try:
                wrong = self.task.invalid_value(key, value)
            except KeyError as error:
                yield location, error.args[0]
                return
            if wrong is not None:
                yield (*location, field) if field else location, wrong

    def _optimizer_problems(self) -> Iterator[Problem]:
        if self.optimizer.warm_start and self.optimizer.name != "ax":
            message = f"only the optimizer ax learns from earlier studies, and this is {self.optimizer.name}"
            yield ("optimizer", "warm_start"), message
        if self.budget.trials is not None and len(self.optimizer.enqueue) > self.budget.trials:
            message = f"{len(self.optimizer.enqueue)} guesses are more than budget.trials ({self.budget.trials})"
            yield ("optimizer", "enqueue"), message
        for place, guess in enumerate(self.optimizer.enqueue):
            for key, message in problems_of(self.space, guess):
                yield ("optimizer", "enqueue", place, *([key] if key else [])), message

    def _rule_problems(self) -> Iterator[Problem]:
        written: list[Location] = [("rules", place) for place in range(len(self.rules))]
        written += [("model_rules", place) for place in range(len(self.model_rules))]
        unreadable = False
        for location, text in zip(written, [*self.rules, *self.model_rules], strict=True):
            try:
                read_rule(text)
            except RuleError as error:
                unreadable = True
                yield location, located(text, error)
        if not unreadable and written:
            for place, message in self.rulebook.problems(self._settings):
                yield written[place], message

    def _prior_problems(self, key: str) -> Iterator[Problem]:
        prior = self.space[key].prior
        if prior is None:
            return
        if not self.space[key].contains(prior.center):
            yield ("space", key, "prior", "center"), not_in_space(self.space[key], prior.center)
        if self.optimizer.name != "ax":
            yield ("space", key, "prior"), f"only the optimizer ax uses a prior, and this is {self.optimizer.name}"

    def _condition_problems(self, key: str) -> Iterator[Problem]:
        for parent, values in self.space[key].when.items():
            loc = ("space", key, "when", parent)
            found = self.space.get(parent)
            if found is None:
                yield (
                    loc,
                    f"there is no parameter {parent!r} in the space; name one of: " + ", ".join(self.space),
                )
            elif not isinstance(found, CategoricalParameter | OrdinalParameter):
                yield (
                    loc,
                    f"{parent!r} is {found.type}; a condition needs a categorical or ordinal parent",
                )
            else:
                for value in values:
                    if not found.contains(value):
                        yield (
                            loc,
                            f"{value!r} is not a choice of {parent!r}; choices: {found.choices}",
                        )
        if key in self._ancestors(key):
            yield (
                ("space", key, "when"),
                "the conditions form a cycle; no value could ever be drawn",
            )

    def _ancestors(self, key: str) -> set[str]:
        seen: set[str] = set()
        pending = list(self.space[key].when)
        while pending:
            parent = pending.pop()
            if parent not in seen and parent in self.space:
                seen.add(parent)
                pending.extend(self.space[parent].when)
        return seen

    @property
    def gpus(self) -> int:
        """The GPUs that each trial needs on a machine."""
        return 1 if self.resources is None else self.resources.gpus

    @property
    def nodes(self) -> int:
        """The machines that each trial needs."""
        return 1 if self.resources is None else self.resources.nodes

    @property
    def ranks(self) -> int:
        """The GPUs that each trial needs in all: a process trains on each."""
        return self.gpus * self.nodes

    @property
    def last_epochs(self) -> dict[str, int]:
        """Over how many last epochs the value of an objective is a mean; without those where it is that of one."""
        return {o.metric: o.last_epochs for o in self.objectives if o.last_epochs > 1}

    @property
    def measures(self) -> list[str]:
        """The metrics that trials measure only because the study names them: as objective, constraint or target."""
        named = {one.metric for one in self.objectives} | {one.metric for one in self.constraints}
        named |= set(self.budget.target)
        return sorted(name for name, metric in self.task.reported_metrics.items() if metric.on_demand and name in named)

    @property
    def rulebook(self) -> Rulebook:
        """The rules of the study and of its models, over its space and settings."""
        sources, book = self._first_rulebook
        # A copy with changes (`model_copy`) also copies what was computed for the original.
        is_unchanged = all(was is now for was, now in zip(sources, self._sources, strict=True))
        return book if is_unchanged else self._new_rulebook()

    @cached_property
    def _first_rulebook(self) -> tuple[tuple[object, ...], Rulebook]:
        return self._sources, self._new_rulebook()

    @property
    def _sources(self) -> tuple[object, ...]:
        return self.rules, self.model_rules, self.space, self.task

    def _new_rulebook(self) -> Rulebook:
        return Rulebook([*self.rules, *self.model_rules], self.space, self._settings, self.parameter_order)

    @property
    def _settings(self) -> dict[str, Any]:
        return {**self.task.defaults(), **self.task.base}

    @property
    def parameter_order(self) -> list[str]:
        """The names of the space, parents before the parameters that depend on them."""
        return sorted(self.space, key=lambda key: (len(self._ancestors(key)), list(self.space).index(key)))

    def active(self, params: Params) -> dict[str, ParamValue]:
        """Return `params` without the values whose conditions do not hold (and without those that depend on them)."""
        kept: dict[str, ParamValue] = {}
        for key in self.parameter_order:
            if key in params and matches(self.space[key].when, kept):
                kept[key] = params[key]
        return {key: kept[key] for key in self.space if key in kept}

    def allows(self, params: Params) -> bool:
        """Return whether a point of the space keeps all rules."""
        return self.rulebook.allows(params)

    def check_params(self, params: Params) -> None:
        """Check that `params` is one point of the space: every active parameter in its range, and all rules kept.

        Raises:
            ValueError: names the parameter and what is wrong with it, or the rule.
        """
        for key in self.parameter_order:
            if not matches(self.space[key].when, dict(params)):
                if key in params:
                    raise ValueError(f"{key} is given although its condition does not hold")
            elif key not in params:
                raise ValueError(f"{key} is missing")
            elif not self.space[key].contains(params[key]):
                raise ValueError(f"{key} = {params[key]!r} is outside its range")
        unknown = set(params) - set(self.space)
        if unknown:
            raise ValueError(f"not in the space: {', '.join(sorted(unknown))}")
        broken = self.rulebook.broken(params)
        if broken is not None:
            raise ValueError(f"the configuration {self.rulebook.sentence(broken, params)}")

    def of_new_study(self) -> Self:
        """Return the spec with what the task recommends for settings that neither base nor space names.

        A rule about a setting was written for values of the kind of its default: no other kind is recommended then.
        """
        named, defaults = {*self.task.base, *self.space}, self.task.defaults()
        ruled = {name for rule in self.rulebook.rules for name in rule.names}
        added = {
            key: value
            for key, value in self.task.recommended().items()
            if key not in named and (key not in ruled or type(value) is type(defaults[key]))
        }
        task = self.task.model_copy(update={"base": {**self.task.base, **added}})
        return self.model_copy(update={"task": task})

    def trial_config(self, params: Params, *, number: int, is_replicate: bool = False) -> dict[str, Any]:
        """Return the complete flat configuration of trial `number`: base and `params` joined, as the task does it.

        Every trial gets a seed of its own, a function of the study's seed and the number, unless base or the
        space sets one. A replicate gets its own even then.
        """
        seed = (self.optimizer.seed * 1_000_003 + number * 7919) % 2**31
        config = self.task.config(params, seed=seed)
        return {**config, "seed": seed} if is_replicate else config

    def no_fresh_seed(self) -> str | None:
        """Return why a configuration cannot be trained again with another seed; None where it can."""
        if "seed" not in self.space:
            return None
        return "`seed` is a parameter of the space, so a configuration has one seed; take it out of the space"


def _unknown_metric(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = nearest(name, names)
    hint = "" if near is None else f"did you mean {near!r}? "
    return f"unknown metric {name!r}; {hint}workers report: " + ", ".join(names)
