"""Memory is predicted before anything runs, from few trials, and out of memory is data."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from hpo.optimizer import Device, Fleet, create_optimizer
from hpo.optimizer.history import History
from hpo.optimizer.memory import GIB, MemoryModel, with_memory_limit
from hpo.results.outcome import MEMORY_METRIC
from hpo.spec import StudySpec
from hpo.trial import FailureKind, Params, TrialRecord, TrialState

from ..records import record_of, spec_with

SPACE = {
    "clip.frames": {"type": "int", "low": 8, "high": 64, "log": True},
    "batch_size": {"type": "int", "low": 4, "high": 64, "log": True},
    "clip.size": {"type": "ordinal", "choices": [96, 112, 128, 160, 192, 224, 256]},
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
}
CAPACITY = 24.0
FLEET = Fleet(largest_bytes=round(CAPACITY * GIB))
Surface = Callable[[Params], float]


def _product(params: Params) -> float:
    return float(params["clip.frames"]) * float(params["batch_size"]) * float(params["clip.size"]) ** 2 / 4.9e6


def log_linear(params: Params) -> float:
    return 24.0 * math.pow(_product(params), 0.9)


def with_fixed_part(params: Params) -> float:
    """Return a memory with weights and context besides the activations: not linear in the logarithms."""
    return 3.0 + 21.0 * _product(params)


def with_workspace(params: Params) -> float:
    """Return a memory with a fixed part, and attention over the frames that grows with their square."""
    return 2.0 + 16.0 * _product(params) * (1 + float(params["clip.frames"]) / 32)


SURFACES = [log_linear, with_fixed_part, with_workspace]


def _spec(**sections: object) -> StudySpec:
    given = {"space": SPACE, "optimizer": {"name": "sobol", "seed": 3}, "budget": {"trials": 100}}
    return spec_with(**{**given, **sections})


def _draw(rng: random.Random) -> Params:
    size = rng.choice([96, 112, 128, 160, 192, 224, 256])
    frames, batch = round(math.exp(rng.uniform(math.log(8), math.log(64)))), round(4 * 16 ** rng.random())
    return {"clip.frames": frames, "batch_size": batch, "clip.size": size, "lr": 10 ** rng.uniform(-4, 0)}


def _tried(surface: Surface, params: Params, id: int) -> TrialRecord:
    need = surface(params)
    if need > CAPACITY:
        return record_of(id, TrialState.FAILED, failure_kind=FailureKind.OOM, params=params)
    peak = round(need * GIB)
    return record_of(id, TrialState.COMPLETED, metrics={"val_top1": 0.5}, params=params, peak_memory_bytes=peak)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_few_trials_predict_what_fits(surface: Surface) -> None:
    rng = random.Random(1)  # noqa: S311 - a test, not a secret
    right = total = 0
    for _ in range(10):
        records = [_tried(surface, _draw(rng), id) for id in range(10)]
        model = MemoryModel(_spec(), records, FLEET)
        for _ in range(40):
            params = _draw(rng)
            if not 0.8 < surface(params) / CAPACITY < 1.25:  # near the edge either answer is fair
                right += model.fits(params) == (surface(params) <= CAPACITY)
                total += 1
    assert right / total > 0.9  # from ten trials, some of them lost


@pytest.mark.parametrize("surface", SURFACES)
def test_few_proposals_run_out_of_memory(surface: Surface) -> None:
    for seed in range(2):
        optimizer = create_optimizer(_spec(optimizer={"name": "sobol", "seed": seed}), fleet=FLEET)
        lost = 0
        for id in range(40):
            (suggestion,) = optimizer.ask()
            optimizer.register(id, suggestion)
            need = surface(suggestion.params)
            if need > CAPACITY:
                optimizer.fail(id, FailureKind.OOM)
                lost += id >= 8
            else:
                optimizer.tell(id, {"val_top1": 0.5, MEMORY_METRIC: need})
        assert lost <= 3


def test_trials_that_ran_out_of_memory_are_estimated_beyond_the_capacity() -> None:
    rng = random.Random(0)  # noqa: S311 - a test, not a secret
    records = [_tried(log_linear, _draw(rng), id) for id in range(20)]
    model = MemoryModel(_spec(), records, FLEET)
    lost = [record for record in records if record.state is TrialState.FAILED]
    assert len(lost) > 3
    assert model.demand_gib.keys() == {record.id for record in lost}
    for record in lost:
        assert model.demand_gib[record.id] >= CAPACITY
        assert model.demand_gib[record.id] == pytest.approx(log_linear(record.params), rel=0.6)


def test_memory_becomes_a_constraint_and_the_oom_trial_does_not_inform_the_accuracy() -> None:
    rng = random.Random(0)  # noqa: S311 - a test, not a secret
    records = [_tried(log_linear, _draw(rng), id) for id in range(20)]
    model = MemoryModel(_spec(), records, FLEET)
    spec = with_memory_limit(_spec(), model, records)
    assert [c.metric for c in spec.constraints] == [MEMORY_METRIC]
    assert spec.constraints[0].bound == pytest.approx(0.97 * CAPACITY)
    history = History(spec, records, model.demand_gib)
    (lost, *_) = [seen for seen in history.observations if seen.imputed]
    assert lost.metrics[MEMORY_METRIC] >= CAPACITY
    assert lost.vague.keys() == {"val_top1"}


def test_configurations_far_below_the_limit_add_no_constraint() -> None:
    small = {"clip.frames": 8, "batch_size": 4, "clip.size": 96, "lr": 0.1}
    records = [_tried(log_linear, {**small, "lr": 0.1 + id / 100}, id) for id in range(6)]
    assert with_memory_limit(_spec(), MemoryModel(_spec(), records, FLEET), records).constraints == []


def test_models_of_the_zoo_are_predicted_separately() -> None:
    space = {**SPACE, "model": {"type": "categorical", "choices": ["r2plus1d_18", "tsm_r50"]}}
    spec, rng = _spec(space=space), random.Random(2)  # noqa: S311 - a test, not a secret
    drawn = [{**_draw(rng), "model": "tsm_r50"} for _ in range(10)]
    model = MemoryModel(spec, [_tried(log_linear, params, id) for id, params in enumerate(drawn)], FLEET)
    huge = {"clip.frames": 64, "batch_size": 64, "clip.size": 256, "lr": 0.1}
    assert not model.fits({**huge, "model": "tsm_r50"})
    assert model.fits({**huge, "model": "r2plus1d_18"})  # nothing is known: it may be tried


def test_the_device_of_each_worker_bounds_the_memory_of_its_trials() -> None:
    fleet = Fleet(
        devices={
            "small": Device(kind="A", memory_bytes=round(8 * GIB)),
            "large": Device(kind="B", memory_bytes=round(80 * GIB)),
        },
        largest_bytes=round(80 * GIB),
    )
    rng = random.Random(4)  # noqa: S311 - a test, not a secret
    records = []
    for id in range(16):
        params, worker = _draw(rng), ("small", "large")[id % 2]
        need, capacity = log_linear(params), (8.0, 80.0)[id % 2]
        record = record_of(id, TrialState.FAILED, failure_kind=FailureKind.OOM, params=params, worker=worker)
        if need <= capacity:
            peak = round(need * GIB)
            record = replace(record, state=TrialState.COMPLETED, failure_kind=None, peak_memory_bytes=peak)
        records.append(record)
    model = MemoryModel(_spec(), records, fleet)
    for _ in range(30):
        params = _draw(rng)
        predicted = model.predict_gib(params)
        assert predicted is not None
        assert predicted == pytest.approx(log_linear(params), rel=0.4)


def test_a_suggestion_says_how_large_a_device_it_needs() -> None:
    rng = random.Random(5)  # noqa: S311 - a test, not a secret
    optimizer = create_optimizer(_spec(), fleet=FLEET)
    assert optimizer.ask()[0].required_memory_bytes is None
    optimizer.replay([_tried(log_linear, _draw(rng), id) for id in range(20)])
    (suggestion,) = optimizer.ask()
    assert suggestion.required_memory_bytes is not None
    assert suggestion.required_memory_bytes <= CAPACITY * GIB
    assert suggestion.required_memory_bytes / GIB == pytest.approx(log_linear(suggestion.params) / 0.97, rel=0.2)


def test_where_nothing_fits_the_smallest_is_tried() -> None:
    optimizer = create_optimizer(_spec(), fleet=replace(FLEET, largest_bytes=1))
    rng = random.Random(6)  # noqa: S311 - a test, not a secret
    fleet_of_records = [_tried(log_linear, _draw(rng), id) for id in range(12)]
    optimizer.replay(fleet_of_records)
    (suggestion,) = optimizer.ask()
    assert suggestion.required_memory_bytes is None  # it may be claimed by anybody


@pytest.mark.parametrize(("share", "fits"), [(0.96, True), (0.98, False)])
def test_a_part_of_the_device_stays_free(share: float, fits: bool) -> None:
    """A trial that would just fit is not tried: it may need a little more another time."""
    params = {"clip.frames": 16, "batch_size": 16, "clip.size": 112, "lr": 0.1}
    peak = round(share * CAPACITY * GIB)
    records = [
        record_of(id, TrialState.COMPLETED, metrics={"val_top1": 0.5}, params=params, peak_memory_bytes=peak)
        for id in range(6)
    ]
    model = MemoryModel(_spec(), records, FLEET)
    assert model.predict_gib(params) == pytest.approx(share * CAPACITY, rel=1e-3)
    assert model.fits(params) is fits


def test_a_suggestion_leaves_a_part_of_the_device_that_it_asks_for_free() -> None:
    rng = random.Random(5)  # noqa: S311 - a test, not a secret
    records = [_tried(log_linear, _draw(rng), id) for id in range(20)]
    optimizer = create_optimizer(_spec(), fleet=FLEET)
    optimizer.replay(records)
    (suggestion,) = optimizer.ask()
    predicted = MemoryModel(_spec(), records, FLEET).predict_gib(suggestion.params)
    assert predicted is not None
    assert suggestion.required_memory_bytes is not None
    assert predicted * GIB / suggestion.required_memory_bytes == pytest.approx(0.97)


def test_where_the_device_of_a_lost_trial_is_unknown_it_had_all_of_the_largest() -> None:
    lost = record_of(0, TrialState.FAILED, failure_kind=FailureKind.OOM, params={"lr": 0.1})
    assert MemoryModel(_spec(), [lost], FLEET).demand_gib == {0: pytest.approx(1.1 * CAPACITY)}
