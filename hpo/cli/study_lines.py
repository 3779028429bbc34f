"""What is said of a study in the list and in `hpo study show`: how far it is, who works for it, and its data set."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..activity import duration, with_devices
from ..trial import CUSTOM, IMAGE, VIDEO
from .boards import Board, Fitted

Json = Mapping[str, Any]


def study_board(studies: Sequence[Json]) -> Board:
    """Return the list of studies as a table, without columns in which nothing stands."""
    columns = [
        Fitted(name="study", cells=[study["name"] for study in studies], rank=0),
        Fitted(name="state", cells=[study["state"] for study in studies], rank=0),
        Fitted(name="trials", cells=[_trials(study) for study in studies], rank=1),
        Fitted(name="best", cells=[_best(study) for study in studies], rank=1),
        Fitted(name="GPU hours", cells=[_gpu_hours(study) for study in studies], rank=2),
        Fitted(name="time left", cells=[_left(study) for study in studies], rank=3),
        Fitted(name="reason", cells=[study.get("state_reason") or "" for study in studies], rank=4),
    ]
    return Board(columns=[column for column in columns if column.rank == 0 or any(column.cells)])


def hours(value: float) -> str:
    """Return hours with two decimals, or less than one hour with two digits, so that a short study does not show 0."""
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.2g}"


def trials_ended(study: Json) -> str:
    """Return how many trials have ended, such as `8 of 60`; an empty text where an earlier API does not say it."""
    progress = study.get("progress")
    if progress is None:
        return ""
    return str(progress["trials_over"]) + ("" if progress["trials"] is None else f" of {progress['trials']}")


def trials_of(study: Json) -> str:
    """Return the numbers of trials by state, such as `8 of 60 have ended: 5 completed, 3 stopped, 1 running`."""
    counts = ", ".join(f"{count} {state}" for state, count in study["trial_counts"].items() if count) or "none yet"
    if study.get("imported"):
        counts += f", and {study['imported']} from elsewhere"
    ended = trials_ended(study)
    return f"{ended} have ended: {counts}" if ended else counts


def time_left_of(study: Json) -> list[str]:
    """Return a line with the time left, as far as that is known."""
    left = _left(study)
    return [f"time left: about {left} at the pace so far"] if left else []


def workers_of(study: Json, workers: Sequence[Json]) -> list[str]:
    """Return a line about the workers that would take trials of a study that has not ended; what to do without any."""
    if study["finished_at"] is not None:
        return []
    takers = [one for one in workers if one["alive"] and _takes(one, study)]
    if not takers:
        devices = with_devices(*_devices(study))
        return [f"workers: no worker{devices} is connected: start one with {start_of_worker(study)}"]
    counts = Counter(_does(worker, study["name"]) for worker in takers)
    lines = [f"workers: {', '.join(f'{count} {does}' for does, count in counts.most_common())}"]
    for worker in takers:
        missing = [one["message"] for one in worker.get("missing_files", ()) if one["study"] == study["name"]]
        lines += [f"  {worker['name']} gets no trials of it, whose files it lacks: {message}" for message in missing]
    return lines


def start_of_worker(study: Json) -> str:
    """Return the command that starts a worker for trials of a study, with the choice that it leaves."""
    entry = "--entry FILE.py:FUNCTION " if _kind(study) == CUSTOM else ""
    gpus, nodes = _devices(study)
    where = "--gpu 0" if gpus == 1 else "--gpus " + ",".join(map(str, range(gpus)))
    group = "" if nodes == 1 else f" --nodes {nodes} --node-rank RANK --meet HOST:PORT"
    each = "" if nodes == 1 else f" on each of {nodes} machines, which meet at the one of rank 0"
    return f"`hpo-worker {entry}{where}{group}` (or --cpu{'' if gpus == 1 else f' --ranks {gpus}'}){each}"


def _kind(study: Json) -> str:
    return str(study["spec"]["task"].get("kind", VIDEO))


def _devices(study: Json) -> tuple[int, int]:
    """Return the GPUs of a trial on each machine, and its machines."""
    resources = study["spec"].get("resources") or {}
    return int(resources.get("gpus", 1)), int(resources.get("nodes", 1))


def _takes(worker: Json, study: Json) -> bool:
    # An API of an earlier release does not say the kinds: its workers train videos.
    is_wanted = worker["study"] in (None, study["name"]) and _kind(study) in worker.get("task_kinds", [VIDEO])
    gpus, nodes = _devices(study)
    return is_wanted and worker.get("gpus", 1) >= gpus and worker.get("nodes", 1) == nodes


def data_set_of(study: Json) -> list[str]:
    """Return lines about the data set: which it is, how many videos are used, and which are left out."""
    dataset = study["spec"]["task"].get("dataset")
    if dataset is None:
        return []
    lines = [f"data set: {dataset['name']} in {dataset['root']}"]
    found = study.get("data_set")
    if found is None:
        return lines
    word = "image" if _kind(study) == IMAGE else "video"
    lines[0] += f": {found['train']:,} {word}s to train, {found['validation']:,} to validate"
    if found["left_out"]:
        plural = f"{word} is" if found["left_out"] == 1 else f"{word}s are"
        lines.append(
            f"  {found['left_out']:,} {plural} left out; `hpo data check {shlex.quote(dataset['root'])}` names all:"
        )
        lines += [f"    {one['path']}: {one['note']}" for one in found["examples"]]
    return lines


def _trials(study: Json) -> str:
    running = study["trial_counts"].get("running", 0)
    ended = trials_ended(study) or str(sum(study["trial_counts"].values()))
    return ended + (f", {running} running" if running else "")


def _does(worker: Json, study: str) -> str:
    if worker.get("quarantined_at") is not None or worker.get("host_quarantined_at") is not None:
        return "in quarantine (see `hpo workers`)"
    if worker["trial_id"] is None:
        return "waiting"
    return "training it" if worker.get("trial_study") == study else "training another study"


def _best(study: Json) -> str:
    best = study.get("best")
    if best is None:
        return ""
    from ..results.evidence import spread_is_known

    evidence = best["evidence"]
    is_known = spread_is_known(evidence["believed"], evidence["sd"])
    value = f"{evidence['believed']:.3g}" + (f" ± {evidence['sd']:.2g}" if is_known else "")
    return f"{best['metric']} {value} (trial {best['number']})"


def _gpu_hours(study: Json) -> str:
    limit = (study.get("progress") or {}).get("gpu_hours")
    return hours(study["gpu_hours_spent"]) + ("" if limit is None else f" of {limit:g}")


def _left(study: Json) -> str:
    seconds = (study.get("progress") or {}).get("seconds_left")
    return "" if seconds is None else duration(seconds)
