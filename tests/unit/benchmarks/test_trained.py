"""Tables of real trainings: made by the real command, resumed, packed and read back as problems."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import numpy as np
import pytest

from benchmarks.optimizer.problems import ProblemMissing
from benchmarks.optimizer.problems.trained import (
    TABLES_FOLDER,
    TrainedTable,
    cell_of,
    grid,
    identity,
    levels_of,
    pack,
    read_rows,
)
from benchmarks.optimizer.trained import __main__ as command
from benchmarks.optimizer.trained.definition import Definition
from benchmarks.optimizer.trained.definitions import DEFINITIONS, MOTION
from benchmarks.optimizer.trained.limits import RULES, limits
from benchmarks.optimizer.trained.make import SEEDS
from data.synthetic.dataset import make_demo_dataset
from hpo.spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter
from hpo.trial import ParamValue

LR = FloatParameter(type="float", low=1e-4, high=1.0, log=True)
FRAMES = OrdinalParameter(type="ordinal", choices=[1, 2, 4])
WIDTH = OrdinalParameter(type="ordinal", choices=[4, 8], when={"model": ["wide"]})
MODEL = CategoricalParameter(type="categorical", choices=["narrow", "wide"])


def _videos(folder: Path) -> Path:
    return make_demo_dataset(
        folder / "tiny", classes=("SlideLeft", "SlideRight"), groups=4, clips_per_group=2, frames=8, size=(32, 32)
    )


def _tiny() -> Definition:
    """Return a table of two configurations, of which one cannot be built: 3 does not divide 4 frames."""
    return Definition(
        name="motion",
        what="a test",
        videos=_videos,
        dataset={"name": "ucf101", "split": 1, "held_out": "1of3", "short_side": 16, "store": "raw"},
        base={"model": "slowfast_r18", "model.width": 4, "model.beta_inv": 2, "clip.frames": 4, "clip.size": 16},
        space={"model.alpha": OrdinalParameter(type="ordinal", choices=[2, 3])},
        parts={},
        epochs=1,
        final_views=2,
    )


def _make(folder: Path, *more: str) -> int:
    return command.main(["make", "motion", "--rows", str(folder / "rows"), "--videos", str(folder / "videos"), *more])


def test_a_table_is_made_resumed_packed_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "DEFINITIONS", {"motion": _tiny()})
    assert _make(tmp_path, "--limit", "1") == 0
    rows = tmp_path / "rows" / "motion.jsonl"
    first = rows.read_text()
    assert len(first.splitlines()) == 2
    rows.write_text(first + '{"params":{"model.alpha":2},"se')  # a kill in the middle of a row
    assert _make(tmp_path) == 0
    assert rows.read_text().startswith(first)
    header, found = read_rows(tmp_path / "rows", "motion")
    assert sorted((row["params"]["model.alpha"], row["seed"]) for row in found) == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert _make(tmp_path) == 0
    assert "0 trainings done" in capsys.readouterr().out.splitlines()[-1]

    assert command.main(["pack", "motion", "--rows", str(tmp_path / "rows"), "--to", str(tmp_path / "packed")]) == 0
    table = TrainedTable.read("motion", tmp_path / "packed")
    assert (table.configurations, table.epochs, table.chance) == (2, 1, 0.5)
    assert (table.validation_clips, table.final_clips) == (4, 8)  # a group of 2 clips and 2 classes; 2 views
    good: dict[str, ParamValue] = {"model.alpha": 2}
    bad: dict[str, ParamValue] = {"model.alpha": 3}
    own = {row["seed"]: row for row in found if row["params"] == good}
    for seed in (0, 1):
        assert table.curve(good, seed) == pytest.approx([own[seed]["hits"][0] / 4])
        assert table.failure(good, seed) is None
        assert table.failure(bad, seed) == ("invalid", 1)
        assert len(table.curve(bad, seed)) == 0
    assert table.truth(good) == pytest.approx((own[0]["final_hits"] + own[1]["final_hits"]) / 16)
    assert table.truth(bad) == 0.5
    assert table.seconds(bad) == table.seconds(good) > 0
    assert header["commit"]


def test_a_table_of_other_settings_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "DEFINITIONS", {"motion": replace(_tiny(), epochs=2)})
    header = {**_tiny().described(), "chance": 0.5, "validation_clips": 4, "final_clips": 8}
    _write(tmp_path / "rows", header, [])
    assert _make(tmp_path) == 1
    assert "other settings (epochs)" in capsys.readouterr().err


def test_a_process_that_trains_ends_with_the_one_that_started_it() -> None:
    code = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from benchmarks.optimizer.trained.make import begin_worker
pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=begin_worker)
print(pool.submit(abs, -7).result(), flush=True)
pool.submit(input).result()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "7\n"
        parent.kill()
        assert parent.stdout.read() == ""  # at its end only when no process holds it any more


def _write(folder: Path, header: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "motion.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in (header, *rows)))


def _row(params: Mapping[str, Any], final: int, *, seed: int = 0, hits: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    row = {"params": dict(params), "seed": seed, "hits": list(hits), "loss": [1.0] * len(hits), "seconds": [2.0, 4.0]}
    return {**row, "final_hits": final, "final_loss": 1.0}


def _table(folder: Path, rows: list[dict[str, Any]]) -> TrainedTable:
    space: dict[str, AnyParameter] = {"lr": LR, "model": MODEL, "model.width": WIDTH}
    levels = {"lr": [1e-3, 0.1], "model": ["narrow", "wide"], "model.width": [4, 8]}
    header = {
        "space": {key: parameter.model_dump(mode="json") for key, parameter in space.items()},
        "levels": levels, "epochs": 2, "chance": 0.25, "validation_clips": 4, "final_clips": 10,
    }  # fmt: skip
    _write(folder, header, rows)
    return TrainedTable.read("motion", folder)


NARROW: dict[str, ParamValue] = {"lr": 1e-3, "model": "narrow"}
WIDE: dict[str, ParamValue] = {"lr": 0.1, "model": "wide", "model.width": 8}


def test_every_point_of_the_space_has_the_training_of_its_part(tmp_path: Path) -> None:
    table = _table(tmp_path, [_row(NARROW, 3), _row(WIDE, 8, hits=(2, 4)), _row(WIDE, 6, seed=1, hits=(3, 3))])
    assert table.settings({"lr": 0.0099, "model": "narrow"}) == NARROW
    assert table.truth({"lr": 0.0099, "model": "narrow"}) == 0.3
    for lr in (0.0101, 1.0):
        assert table.truth({**WIDE, "lr": lr}) == pytest.approx(0.7)
    assert table.settings({**WIDE, "lr": 0.9}) == WIDE
    assert [list(table.curve(WIDE, seed)) for seed in (0, 1, 2)] == [[0.5, 1.0], [0.75, 0.75], [0.5, 1.0]]
    assert (table.seconds(WIDE), table.seeds(WIDE), table.seeds(NARROW)) == (3.0, 2, 1)
    assert (table.optimum, table.median) == pytest.approx((0.7, 0.5))


def test_a_point_that_is_not_trained_yet_has_the_nearest_training(tmp_path: Path) -> None:
    table = _table(tmp_path, [_row(NARROW, 3), _row(WIDE, 8)])
    assert table.truth({"lr": 0.1, "model": "wide", "model.width": 4}) == 0.8
    assert table.truth({"lr": 0.1, "model": "narrow"}) == 0.3


def test_a_scrambled_table_has_the_same_outcomes_elsewhere(tmp_path: Path) -> None:
    rows = [_row(NARROW, 1), _row({**NARROW, "lr": 0.1}, 2)]
    rows += [
        _row({**WIDE, "lr": lr, "model.width": width}, int(4 * lr) + width) for lr in (1e-3, 0.1) for width in (4, 8)
    ]
    table = _table(tmp_path, rows)
    changed = [scrambled for scrambled in map(table.scrambled, range(8)) if scrambled.truth(_at(scrambled)) != 0.1]
    assert changed  # some seed reflects the learning rate or swaps the models
    for scrambled in changed:
        levels = {**table.levels, "model": scrambled.space["model"].extremes}
        found = [scrambled.truth(params) for params in grid(scrambled.space, levels)]
        assert sorted(found) == pytest.approx(sorted(table.truths))
        back = scrambled.scrambled(3)
        assert sorted(back.truth(p) for p in grid(back.space, {**levels, "model": back.space["model"].extremes})) == (
            pytest.approx(sorted(table.truths))
        )


def _at(table: TrainedTable) -> dict[str, Any]:
    """Return a configuration without a width."""
    parent = table.space["model.width"].when["model"]
    return {"lr": 1e-3, "model": next(choice for choice in table.space["model"].extremes if choice not in parent)}


def test_as_a_problem_it_has_the_noise_of_the_last_epoch(tmp_path: Path) -> None:
    failed = {**_row(NARROW, 0, hits=(1,)), "failure": {"kind": "diverged", "epoch": 2}}
    problem = _table(tmp_path, [failed, _row(WIDE, 8, hits=(2, 4)), _row(WIDE, 6, seed=1, hits=(2, 3))]).problem()
    rng = np.random.default_rng(0)
    assert {problem.evaluate(WIDE, rng) for _ in range(40)} == {(1.0,), (0.75,)}
    assert problem.evaluate(NARROW, rng) == problem.true(NARROW) == (0.25,)
    assert problem.optimum == pytest.approx((0.7,))


def test_of_several_rows_of_one_training_the_first_is_packed_and_the_bytes_repeat(tmp_path: Path) -> None:
    _table(tmp_path, [_row(WIDE, 8), _row(NARROW, 3), _row(WIDE, 1)])
    packed = pack(tmp_path, "motion", tmp_path / "packed").read_bytes()
    assert TrainedTable.read("motion", tmp_path / "packed").truth(WIDE) == 0.8
    _table(tmp_path, [_row(NARROW, 3), _row(WIDE, 8)])
    assert pack(tmp_path, "motion", tmp_path / "packed").read_bytes() == packed


def test_a_packed_table_continues_in_a_plain_file_until_it_is_packed_again(tmp_path: Path) -> None:
    _table(tmp_path, [_row(WIDE, 8)])
    pack(tmp_path, "motion", tmp_path)
    assert not (tmp_path / "motion.jsonl").exists()
    (tmp_path / "motion.jsonl").write_text(f"{json.dumps(_row(NARROW, 3))}\n")
    for _ in range(2):
        table = TrainedTable.read("motion", tmp_path)
        assert (table.truth(WIDE), table.truth(NARROW)) == (0.8, 0.3)
        pack(tmp_path, "motion", tmp_path)


def test_a_table_without_rows_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ProblemMissing, match="no table"):
        TrainedTable.read("motion", tmp_path)
    with pytest.raises(ProblemMissing, match="no trainings yet"):
        _table(tmp_path, [])


def test_levels_are_the_middles_of_equal_parts() -> None:
    assert levels_of(LR, 2) == [1e-3, 0.1]
    assert levels_of(FloatParameter(type="float", low=0.0, high=0.6), 3) == pytest.approx([0.1, 0.3, 0.5])
    assert levels_of(IntParameter(type="int", low=1, high=5, step=2)) == [1, 3, 5]
    with pytest.raises(ValueError, match="number of its levels"):
        levels_of(LR)


def test_the_grid_leaves_inactive_parameters_out_and_repeats_nothing() -> None:
    space: dict[str, AnyParameter] = {"model": MODEL, "model.width": WIDTH, "clip.frames": FRAMES}
    levels = {key: levels_of(parameter) for key, parameter in space.items()}
    found = list(grid(space, levels))
    assert len(found) == len({cell_of(space, levels, params) for params in found}) == 3 + 2 * 3
    assert {"model": "narrow", "clip.frames": 1} in found


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_the_tables_are_valid_studies_of_at_least_250_configurations(definition: Definition) -> None:
    task = definition.task("/none")
    found = list(definition.configurations())
    assert len(found) >= 250
    for params in found:
        assert not list(task.config_problems(task.config(params, seed=0)))


def test_no_configuration_of_the_motion_table_breaks_a_rule_of_its_models() -> None:
    assert all(8 % int(params.get("model.alpha", 8)) == 0 for params in MOTION.configurations())


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_the_tables_in_git_are_those_of_the_definitions(definition: Definition) -> None:
    header, rows = read_rows(TABLES_FOLDER, definition.name)
    described = json.loads(json.dumps(definition.described()))
    assert {key: header[key] for key in described} == described
    known = {identity(params, seed) for params in definition.configurations() for seed in SEEDS}
    assert {identity(row["params"], row["seed"]) for row in rows} <= known
    for row in rows:
        assert "failure" in row or len(row["hits"]) == len(row["loss"]) == len(row["seconds"]) == definition.epochs
        assert all(0 <= hits <= header["validation_clips"] for hits in row["hits"])
        assert 0 <= row.get("final_hits", 0) <= header["final_clips"]


def _lucky(lucky: int, configurations: int) -> TrainedTable:
    """Return a table whose configuration n is truly right in n of 10 clips, but one has a lucky first training."""
    header = {
        "space": {"model.alpha": {"type": "ordinal", "choices": list(range(configurations))}},
        "levels": {"model.alpha": list(range(configurations))},
        "epochs": 4,
        "chance": 0.0,
        "validation_clips": 100,
        "final_clips": 100,
    }
    rows = [
        {
            "params": {"model.alpha": place},
            "seed": seed,
            "hits": [10 * place] * 3 + [95 if (place, seed) == (lucky, 0) else 10 * place],
            "loss": [1.0] * 4,
            "seconds": [1.0] * 4,
            "final_hits": 10 * place,
        }
        for place in range(configurations)
        for seed in range(2)
    ]
    return TrainedTable("lucky", header, rows)


def test_the_limit_of_a_search_is_what_its_rule_chooses_of_the_whole_table() -> None:
    """The lucky training misleads the last value where it is drawn, and neither all epochs nor both trainings."""
    table = _lucky(lucky=2, configurations=9)
    *_, whole = limits(table, draws=60)
    cells = dict(zip(RULES, whole.strip("| ").split(" | ")[3:], strict=True))
    values = {rule: float(cell.split(" ± ")[0]) for rule, cell in cells.items()}
    fall = (table.optimum - 0.2) / (table.optimum - table.median)
    assert values["last value"] == pytest.approx(fall / 2, abs=0.4 * fall)
    assert {rule: values[rule] for rule in RULES[1:]} == dict.fromkeys(RULES[1:], 0.0)


def test_fewer_configurations_are_a_worse_limit() -> None:
    few, *_, whole = limits(_lucky(lucky=0, configurations=20), draws=20)
    assert [row.split(" | ")[1] for row in (few, whole)] == ["12", "20"]
    assert float(few.strip("| ").split(" | ")[-1].split(" ± ")[0]) > 0
