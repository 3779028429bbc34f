"""`GET /metrics`: the figures of the service in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from hpo.store import attempt_counts, optimizers, queues, study_row, workers
from hpo.store.attempt_counts import AttemptCounts
from hpo.store.optimizers import OptimizerRow
from hpo.store.study_row import StudyRow
from hpo.store.workers import ALIVE_SECONDS, WorkerRow
from hpo.trial import TERMINAL_STATES, AttemptEnd, StudyState, TrialState

from ..auth.scopes import BEARER, Reader
from ..problems import responses
from ..state import State

router = APIRouter(tags=["health"], dependencies=[Depends(BEARER)])
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What `generate_latest` writes by default; the constants for it have other names in other releases."""
WORKER_STATES: Final = ("training", "idle", "quarantined", "silent")


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        **responses(),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "One line a figure."},
    },
    operation_id="get_metrics",
)
def get_metrics(state: State, _: Reader) -> Response:
    """Return figures about studies, trials, workers and attempts, for Prometheus.

    All but the seconds of decisions are read from the database. So they are the same from every process of the API, and
    counters stay what they were when one is started again.
    """
    with state.database.transaction() as connection:
        found = study_row.list_all(connection)
        figures = _Figures(
            studies=found,
            empty_seconds=queues.empty_seconds(connection, [study.id for study in found if _lacks_suggestions(study)]),
            fleet=workers.list_all(connection),
            optimizers=optimizers.list_alive(connection),
            attempts=attempt_counts.read(connection),
        )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    registry.register(state.timings)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE)


class _Figures(Collector):
    """What was read, as families of metrics."""

    def __init__(
        self,
        *,
        studies: Sequence[StudyRow],
        empty_seconds: Mapping[int, float],
        fleet: Sequence[WorkerRow],
        optimizers: Sequence[OptimizerRow],
        attempts: AttemptCounts,
    ) -> None:
        self._studies = studies
        self._empty_seconds = empty_seconds
        self._fleet = fleet
        self._optimizers = optimizers
        self._attempts = attempts

    def collect(self) -> Iterator[Metric]:
        """Yield each family with all of its samples."""
        yield InfoMetricFamily("hpo", "The release that answers.", value={"version": version("video-hpo")})
        yield from self._of_studies()
        yield from self._of_queues()
        yield from self._of_optimizers()
        yield self._workers()
        begun = self._attempts.begun
        yield CounterMetricFamily("hpo_claims", "Claims of trials by workers: attempts that have begun.", begun)
        attempts = CounterMetricFamily(
            "hpo_attempts", "Attempts of trials that have ended, by how.", labels=["ended_as", "fault"]
        )
        counts = {(end.value, ""): 0 for end in AttemptEnd}  # at 0 too: what appears later has no rate
        for (ended_as, fault), number in (
            counts | {(one.ended_as, one.fault or ""): one.attempts for one in self._attempts.ended}
        ).items():
            attempts.add_metric([ended_as, fault], number)
        yield attempts

    def _of_queues(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily(
            "hpo_queue_length", "Trials of an active study that a worker could claim.", labels=["study"]
        )
        lag = GaugeMetricFamily(
            "hpo_optimizer_lag_seconds",
            "For how long an active study whose budget has room has had no trial to claim; 0 while it has one.",
            labels=["study"],
        )
        active = [study for study in self._studies if study.state is StudyState.ACTIVE]
        for study in active:
            queue.add_metric([study.name], _claimable(study))
            lag.add_metric([study.name], self._empty_seconds.get(study.id, 0.0))
        yield from (queue, lag)
        yield GaugeMetricFamily(
            "hpo_workers_wanted",
            "How many workers of one device would find work in all studies; an autoscaler may follow it.",
            sum(trials_left(study) for study in active if study.spec.ranks == 1),
        )

    def _of_optimizers(self) -> Iterator[Metric]:
        studies = GaugeMetricFamily(
            "hpo_optimizer_studies", "Studies that an optimizer process serves.", labels=["optimizer"]
        )
        steps = CounterMetricFamily(
            "hpo_optimizer_steps", "How often an optimizer process made or changed suggestions.", labels=["optimizer"]
        )
        busy = CounterMetricFamily(
            "hpo_optimizer_busy_seconds", "For how long an optimizer process was at work.", labels=["optimizer"]
        )
        for row in self._optimizers:
            studies.add_metric([row.owner], row.studies)
            steps.add_metric([row.owner], row.steps)
            busy.add_metric([row.owner], row.busy_seconds)
        yield GaugeMetricFamily("hpo_optimizers", "Optimizer processes that live.", len(self._optimizers))
        yield from (studies, steps, busy)

    def _of_studies(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("hpo_studies", "Studies in each state.", labels=["state"])
        trials = GaugeMetricFamily("hpo_trials", "Trials of a study in each state.", labels=["study", "state"])
        left = GaugeMetricFamily(
            "hpo_trials_left",
            "Trials of an active study that have not ended, those that its budget still has room for included: "
            "so many workers, each with as many GPUs as a trial needs, would find work.",
            labels=["study", "task_kind", "gpus", "nodes"],
        )
        used = CounterMetricFamily(
            "hpo_device_seconds", "Seconds for which trials of a study held a device.", labels=["study"]
        )
        degraded = GaugeMetricFamily(
            "hpo_study_degraded",
            "1 if something of the service fails with a study, or no optimizer serves it.",
            labels=["study"],
        )
        counts = Counter(study.state for study in self._studies)
        for state in StudyState:
            states.add_metric([state.value], counts[state])
        for study in self._studies:
            for trial_state in TrialState:
                trials.add_metric([study.name, trial_state.value], study.counts.get(trial_state, 0))
            used.add_metric([study.name], study.gpu_seconds_spent)
            degraded.add_metric([study.name], float(study.degraded is not None))
            if study.state is StudyState.ACTIVE:
                spec = study.spec
                left.add_metric([study.name, spec.task.kind, str(spec.gpus), str(spec.nodes)], trials_left(study))
        yield from (states, trials, left, used, degraded)

    def _workers(self) -> Metric:
        family = GaugeMetricFamily("hpo_workers", "Workers by what they do.", labels=["state"])
        counts = Counter(_state_of(worker) for worker in self._fleet)
        for name in WORKER_STATES:
            family.add_metric([name], counts[name])
        return family


def _claimable(study: StudyRow) -> int:
    """Return how many trials wait for a worker, or for the end of their backoff."""
    waiting = study.counts.get(TrialState.SUGGESTED, 0) + study.counts.get(TrialState.PAUSED, 0)
    return waiting - study.held


def _lacks_suggestions(study: StudyRow) -> bool:
    """Return whether there should be a trial to claim, and is none."""
    budget = study.spec.budget.trials
    return study.is_searching and _claimable(study) <= 0 and (budget is None or study.live_trials < budget)


def trials_left(study: StudyRow) -> int:
    """Return how many trials of an active study are yet to end, as far as its budget says so.

    Where only hours limit it, there is no such number: then those that exist already are counted.
    """
    not_ended = sum(trials for state, trials in study.counts.items() if state not in TERMINAL_STATES)
    live = not_ended - study.held  # those are kept until they are promoted
    if not study.is_searching or study.spec.budget.trials is None:
        return live
    return max(study.spec.budget.trials - study.live_trials, 0) + live


def _state_of(worker: WorkerRow) -> str:
    if worker.seconds_since_seen >= ALIVE_SECONDS:
        return "silent"
    if worker.trial_id is not None:
        return "training"
    return "idle" if worker.quarantined_at is None and worker.host_quarantined_at is None else "quarantined"
