"""What happened in a study, in sentences: for the pages and the `hpo` command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Detail = Mapping[str, Any]
_MOST_METRICS: Final = 3


def event_sentence(kind: str, detail: Detail, *, number: int | None, actor: str) -> str:
    """Return an event as a sentence without a full stop.

    Args:
        kind: such as `trial.claimed`; one that a later release added is shown as it is.
        number: the trial that it is about; None for the study.
        actor: who did it: a token, a worker, or a part of the service.
    """
    write = _SENTENCES.get(kind)
    subject = "the study" if number is None else f"trial {number}"
    return f"{subject}: {kind.partition('.')[2] or kind} ({actor})" if write is None else write(subject, detail, actor)


def _because(detail: Detail) -> str:
    reason = detail.get("reason") or detail.get("message")
    return f": {reason}" if reason else ""


def _values(values: object) -> str:
    """Return some of the metrics or parameters, such as `val_top1 0.812, val_loss 0.71`."""
    if not isinstance(values, Mapping) or not values:
        return ""
    first = sorted(values.items(), key=lambda item: (not str(item[0]).startswith("val_"), "clips" in str(item[0])))
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in first[:_MOST_METRICS])
    return f": {shown}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _claimed(trial: str, detail: Detail, actor: str) -> str:
    attempt = detail.get("attempt") or 1
    return f"{trial} began on {actor}" if attempt == 1 else f"{trial} continues on {actor} (attempt {attempt})"


def _released(trial: str, detail: Detail, actor: str) -> str:
    why = {"drained": "was told to end", "paused": "paused it", "crashed": "failed", "oom": "had too little memory"}
    reason = why.get(str(detail.get("reason")), str(detail.get("reason") or "gave it back"))
    fault = f" ({detail['fault']})" if detail.get("fault") else ""
    message = f": {detail['message']}" if detail.get("message") else ""
    return f"{trial} was given back: {actor} {reason}{fault}{message}"


def _loaded(weights: object) -> str:
    """Return what was loaded, such as `: a.pth (270 tensors, 2 drawn anew)`."""
    files = [one for one in weights if isinstance(one, Mapping)] if isinstance(weights, list) else []
    if not files:
        return ""
    return ": " + ", ".join(
        f"{one.get('source')} ({one.get('loaded')} tensors, {_count(one, 'reset') + _count(one, 'kept')} drawn anew)"
        for one in files
    )


def _count(report: Mapping[str, Any], kind: str) -> int:
    tensors = report.get(kind)
    return int(tensors.get("count", 0)) if isinstance(tensors, Mapping) else 0


def _failed(trial: str, detail: Detail, actor: str) -> str:
    kind, message = detail.get("failure_kind"), detail.get("message")
    return f"{trial} failed on {actor}" + "".join(f": {part}" for part in (kind, message) if part)


def _measured(trial: str, detail: Detail, _: str) -> str:
    return f"{trial} finished epoch {detail.get('step')}{_values(detail.get('metrics'))}"


def _suggested(trial: str, detail: Detail, _: str) -> str:
    again = detail.get("replicate_of")
    if again is not None:
        return f"{trial} trains the configuration of trial {again} again"
    return f"{trial} was proposed by {detail.get('generator') or 'the optimizer'}"


def _quarantined(what: str) -> Callable[[str, Detail, str], str]:
    def write(_: str, detail: Detail, actor: str) -> str:
        message = f" ({detail['message']})" if detail.get("message") else ""
        return f"{what} {actor} is in quarantine: {detail.get('fault') or 'it failed'}{message}"

    return write


def _let_go(what: str) -> Callable[[str, Detail, str], str]:
    def write(_: str, detail: Detail, actor: str) -> str:
        name = detail.get(what)
        return f"{what} {name or actor} gets trials again" + (f", released by {actor}" if name else _because(detail))

    return write


def _edited(_: str, detail: Detail, actor: str) -> str:
    said = []
    if limits := detail.get("budget") or {}:
        changes = [f"{name} {'none' if value in (None, {}) else _limit(value)}" for name, value in limits.items()]
        said.append(f"the budget: {', '.join(changes)}")
    if rule := detail.get("early_stopping"):
        said.append(f"early stopping: {rule.get('name') if isinstance(rule, Mapping) else rule}")
    if space := detail.get("space"):
        said.append(f"the space: {', '.join(f'{key} ({_fields(fields)})' for key, fields in space.items())}")
    return f"{actor} changed {'; '.join(said) or 'the budget'}"


def _fields(fields: Any) -> str:
    if not isinstance(fields, Mapping):
        return str(fields)
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in fields.items()
    )


def _limit(value: Any) -> str:
    if isinstance(value, Mapping):
        return " and ".join(f"{metric} {_limit(goal)}" for metric, goal in value.items())
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _warm_started(_: str, detail: Detail, __: str) -> str:
    taken = f", {detail['taken']} trials" if detail.get("taken") is not None else ""
    return f"the study begins with what {detail.get('study') or 'an earlier study'} has found{taken}"


def _imported(_: str, detail: Detail, actor: str) -> str:
    sources = detail.get("sources") or []
    where = f" of {', '.join(map(str, sources))}" if sources else " from elsewhere"
    return f"{actor} imported {detail.get('trials', 'some')} results{where}"


_SENTENCES: Final[Mapping[str, Callable[[str, Detail, str], str]]] = {
    "study.created": lambda study, _, actor: f"{study} was created by {actor}",
    "study.edited": _edited,
    "study.renamed": lambda _, d, actor: f"{actor} renamed the study" + (f": {d['new']}" if d.get("new") else ""),
    "study.noted": lambda _, d, who: f"{who} {'removed' if d.get('removed') else 'changed'} the note of the study",
    "study.imported": _imported,
    "study.enqueued": lambda _, d, actor: f"{actor} asked for a configuration to be tried{_values(d.get('params'))}",
    "study.paused": lambda study, d, actor: f"{study} was paused by {actor}{_because(d)}",
    "study.resumed": lambda study, d, actor: f"{study} was resumed by {actor}{_because(d)}",
    "study.stopped": lambda study, d, actor: f"{study} was stopped by {actor}{_because(d)}",
    "study.completed": lambda study, d, _: f"{study} is completed{_because(d)}",
    "study.failed": lambda study, d, _: f"{study} has failed{_because(d)}",
    "study.budget_reached": lambda study, d, _: f"{study} has reached a limit{_because(d)}",
    "study.search_ended": lambda _, d, __: f"the search has ended and finalists are trained{_because(d)}",
    "study.finalists": lambda _, __, actor: f"{actor} asked for the best configurations to be trained again",
    "study.fault": lambda _, d, __: f"something is wrong{_because(d)}",
    "study.fault_over": lambda _, d, __: f"this is over{_because(d)}",
    "study.importance": lambda _, d, __: str(d.get("message") or "what matters was computed"),
    "study.data_changed": lambda subject, d, actor: f"{subject} found other data on {actor}{_because(d)}",
    "study.few_clips": lambda _, d, __: str(d.get("message") or "there are few validation clips"),
    "study.warm_started": _warm_started,
    "trial.suggested": _suggested,
    "trial.replaced": lambda trial, _, __: f"{trial}, not begun yet, got a newer configuration",
    "trial.claimed": _claimed,
    "trial.measured": _measured,
    "trial.weights": lambda trial, d, _: f"{trial} loaded its pre-trained weights{_loaded(d.get('weights'))}",
    "trial.completed": lambda trial, d, _: f"{trial} is completed{_values(d.get('metrics'))}",
    "trial.stopped": lambda trial, d, _: f"{trial} was stopped early{_values(d.get('metrics'))}",
    "trial.failed": _failed,
    "trial.released": _released,
    "trial.expired": lambda trial, _, __: f"nothing was heard any more of the worker of {trial}; it will continue",
    "trial.promoted": lambda trial, _, __: f"{trial} was good enough to continue",
    "trial.waits": lambda trial, d, _: f"{trial} waits for more memory than {d.get('worker') or 'its worker'} has",
    "trial.cancelled": lambda trial, _, actor: f"{trial} was cancelled by {actor}",
    "trial.deleted": lambda trial, d, actor: f"{trial}, {d.get('state') or 'ended'}, was taken out by {actor}",
    "trial.withdrawn": lambda trial, _, __: f"{trial} was withdrawn before it began",
    "trial.exported": lambda trial, _, actor: f"{trial} was exported by {actor}",
    "trial.checkpoint_removed": lambda trial, _, __: f"the checkpoint of {trial} was removed",
    "worker.quarantined": _quarantined("worker"),
    "worker.released": _let_go("worker"),
    "host.quarantined": _quarantined("host"),
    "host.released": _let_go("host"),
}
KINDS: Final = frozenset(_SENTENCES)
"""The kinds of events that have a sentence of their own."""
