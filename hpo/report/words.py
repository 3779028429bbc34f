"""The sentences of a report: the study, its answer, and what a person should know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Final

from ..answer.estimates import is_share
from ..answer.power import few_clips
from ..optimizer.importance import LEAST_EXPLAINED
from ..optimizer.insight import CrossValidation
from ..protocol import Confusion
from ..results.outcome import final_metrics, gain
from ..spec import FloatParameter, IntParameter, StudySpec
from ..spec.values import unit_of
from ..trial import TrialRecord, TrialState
from .material import Material
from .scales import shown

PREDICTS_WELL: Final = 0.5
_AT_THE_END: Final = 0.03
"""A value this close to an end of its range, as a share of it, suggests a wider range."""
_MANY_FAILURES: Final = 0.2
_STARTUPS: Final = ("sobol", "prior")
_WITHOUT_OPTIMIZER: Final = "(fallback)"
"""How the generators end of which trials are claimed when no optimizer is there."""


def study(material: Material) -> str:
    """Return the study in a paragraph."""
    found, spec = material.study, material.spec
    goals = " and ".join(f"{objective.direction} {objective.metric}" for objective in spec.objectives)
    limits = ", ".join(f"{one.metric} {one.relation} {one.bound:g}" for one in spec.constraints)
    counts = ", ".join(f"{count} {state}" for state, count in found["trial_counts"].items() if count) or "none yet"
    imported = found.get("imported", 0)
    elsewhere = f", and {imported:,} from elsewhere" if imported else ""
    epochs = sum(record.epochs_done for record in material.records)
    stopped = [record for record in material.records if record.state is TrialState.STOPPED]
    state = found["state"] + (f" ({found['state_reason']})" if found["state_reason"] else "")
    sentences = [
        f"The study is to {goals}{f' with {limits}' if limits else ''}.",
        f"State: {state}.",
        f"Trials: {counts}{elsewhere}.",
        f"Epochs trained: {epochs:,}, at most {spec.task.epochs} per trial.",
        f"GPU hours: {_hours(found['gpu_hours_spent'])}.",
    ]
    if stopped:
        saved = found["gpu_hours_saved"]
        spared = f", which saved about {_hours(saved)} GPU hours" if saved > 0 else ""
        rule = "" if spec.early_stopping.name == "none" else f" by {spec.early_stopping.name}"
        sentences.append(f"Stopped early{rule}: {counted(stopped, 'trial')}{spared}.")
    sentences.append(f"Optimizer: {spec.optimizer.name}, over {counted(spec.space, 'parameter')}.")
    return " ".join(sentences)


def classes(found: Confusion, clip_word: str) -> str:
    """Return how well the classes of what is called `clip_word` are told apart, in a paragraph."""
    right = {true: count for true, said, count in found.cells if true == said}
    with_videos = [place for place, videos in enumerate(found.videos) if videos]
    total = sum(found.videos)
    if not total:
        return f"No {clip_word} was validated."
    shares = {place: right.get(place, 0) / found.videos[place] for place in with_videos}
    worst = sorted(shares, key=lambda place: (shares[place], found.class_names[place]))[:3]
    named = ", ".join(f"{found.class_names[place]} ({shares[place]:.0%} of {found.videos[place]})" for place in worst)
    return (
        f"After epoch {found.step}, {sum(right.values())} of {total:,} validation {clip_word}s were classified rightly "
        f"({sum(right.values()) / total:.1%}); the mean over the {len(with_videos)} classes is "
        f"{sum(shares.values()) / len(shares):.1%}. The hardest classes: {named}."
    )


def most_confused(found: Confusion, most: int = 10) -> list[tuple[str, str, int, int]]:
    """Return the most frequent confusions: class, what it was taken for, how often, and how many videos it has."""
    wrong = sorted((cell for cell in found.cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell))[:most]
    names = found.class_names
    return [(names[true], names[said], count, found.videos[true]) for true, said, count in wrong]


def costs(study: Mapping[str, Any]) -> list[list[str]]:
    """Return what the GPU hours of a study went into, a row each."""
    kinds, spent = study["gpu_hours_by_kind"], study["gpu_hours_spent"]
    names = {
        "trained": "epochs of trials with a result",
        "failed": "trials that failed",
        "startup": "start-up, interruptions",
    }
    rows = [[name, _hours(kinds[kind]), f"{kinds[kind] / spent:.0%}" if spent else ""] for kind, name in names.items()]
    return [*rows, ["in all", _hours(spent), ""]]


def saving(study: Mapping[str, Any]) -> str:
    """Return what early stopping has saved, in a sentence."""
    saved, spent = study["gpu_hours_saved"], study["gpu_hours_spent"]
    if saved <= 0:
        return "Early stopping has saved nothing."
    without = _hours(spent + saved)
    return f"Early stopping has saved about {_hours(saved)} GPU hours: without it, it would have been {without}."


def counted(things: Sized, name: str) -> str:
    """Return how many there are, such as `1 trial` or `3 trials`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _hours(value: float) -> str:
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.2g}"


def prediction(metric: str, found: CrossValidation) -> str:
    """Return how far the model of a metric can be believed."""
    explained = found.explained
    share = f"{max(explained, 0.0):.0%} of the variance between trials that it has not seen"
    if explained >= PREDICTS_WELL:
        return f"The model of {metric} predicts {share} (R² {explained:.2f}): it can be believed."
    if explained >= LEAST_EXPLAINED:
        return f"The model of {metric} predicts {share} (R² {explained:.2f}): take it as a hint, not as a finding."
    return (
        f"The model of {metric} predicts no better than the average of the trials (R² {explained:.2f}): do not believe"
        " importances, slices and contours of this metric yet."
    )


def checks(material: Material, validations: Mapping[str, CrossValidation]) -> list[str]:
    """Return what a person should know before believing the answer or deciding what to try next."""
    return [
        *_degraded(material),
        *_clear(material),
        *(prediction(metric, found) for metric, found in validations.items()),
        *_beyond_startup(material),
        *_constraints(material),
        *_at_ends(material),
        *_failures(material),
        *_clips(material),
    ]


def _degraded(material: Material) -> Iterator[str]:
    """Say what the study lacks, and how much of it was not proposed by the optimizer that its spec names."""
    if sentence := material.study.get("data_changed"):
        yield f"{sentence[0].upper()}{sentence[1:]}."
    if sentence := material.study.get("degraded"):
        yield f"{sentence[0].upper()}{sentence[1:]}."
    made_up = [record for record in material.records if (record.generator or "").endswith(_WITHOUT_OPTIMIZER)]
    if made_up:
        yield (
            f"Quasi-random points, handed out while no optimizer served the study: {len(made_up)} of"
            f" {counted(material.records, 'trial')}."
        )


def _clear(material: Material) -> Iterator[str]:
    evidence = material.evidence
    if evidence is None:
        yield "No trial has a result that keeps the constraints, so there is no best configuration yet."
    elif evidence.configurations > 1 and not evidence.is_clear:
        yield (
            f"Which configuration is the best is not clear (probability {evidence.probability_best:.0%}):"
            f" `hpo finalists {material.name}` trains the leaders again."
        )


def _beyond_startup(material: Material) -> Iterator[str]:
    """Compare what the model proposed with the start-up, by the mean of the last values."""
    ended = [record for record in material.ended if record.replicate_of is None]
    start = [record for record in ended if (record.generator or "").startswith(_STARTUPS)]
    later = [record for record in ended if (record.generator or "").startswith(material.spec.optimizer.name)]
    if len(start) < 2 or len(later) < 2 or material.spec.optimizer.name in _STARTUPS:
        return
    objective = material.spec.objectives[0]
    means = [_mean(group, objective.metric) for group in (start, later)]
    better = gain(objective, means[1]) > gain(objective, means[0])
    verdict = "the search has learned" if better else "the search has not learned anything yet"
    yield (
        f"The {len(later)} proposals of the optimizer ended at {means[1]:.3g} on average, the {len(start)} trials of"
        f" the start-up at {means[0]:.3g}: {verdict}."
    )


def _mean(records: Sequence[TrialRecord], metric: str) -> float:
    return sum(final_metrics(record)[metric] for record in records) / len(records)


def _constraints(material: Material) -> Iterator[str]:
    for constraint in material.spec.constraints:
        values = [final_metrics(r)[constraint.metric] for r in material.ended if constraint.metric in final_metrics(r)]
        if values:
            kept = sum(constraint.violation(value) <= 0 for value in values)
            rule = f"{constraint.metric} {constraint.relation} {constraint.bound:g}"
            advice = "" if kept else ": the limit may be impossible in this space"
            yield f"{kept} of {counted(values, 'trial')} end with {rule}{advice}."


def _at_ends(material: Material) -> Iterator[str]:
    """Name the parameters whose best value lies at an end of its range."""
    for name, value in (material.best or {}).items():
        end = end_of_range(material.spec, name, value)
        if end is not None:
            place = f"The best {name}, {shown(value)}, lies at the {end} end of its range"
            yield f"{place}: a wider range may hold better ones."


def end_of_range(spec: StudySpec, name: str, value: bool | int | float | str) -> str | None:
    """Return `lower` or `upper` where a value of a range lies at that end; None elsewhere and for choices."""
    parameter = spec.space.get(name)
    if not isinstance(parameter, FloatParameter | IntParameter):
        return None
    if value in (parameter.low, parameter.high):
        return "lower" if value == parameter.low else "upper"
    place = unit_of(parameter, value)
    if isinstance(parameter, IntParameter) or _AT_THE_END < place < 1 - _AT_THE_END:
        return None
    return "lower" if place <= _AT_THE_END else "upper"


def _failures(material: Material) -> Iterator[str]:
    failed, over = len(material.failed), len(material.failed) + len(material.ended)
    if failed and failed > _MANY_FAILURES * over:
        yield f"{failed} of {over} ended trials failed ({failures(material)}): see the last section."


def failures(material: Material) -> str:
    """Return the numbers of failures by kind, such as `3 oom, 1 lost`."""
    kinds = Counter(str(record.failure_kind) for record in material.failed)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _clips(material: Material) -> Iterator[str]:
    evidence = material.evidence
    if evidence is not None and evidence.clips is not None and is_share(material.spec, material.metric):
        sentence = few_clips(material.metric, evidence.clips, called=evidence.validated_on)
        if sentence is not None:
            yield sentence[0].upper() + sentence[1:] + "."
