"""`hpo fuse`: two exports, weights from the validation list, and one opening of the test list."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from data import open_dataset
from hpo.errors import ConflictError, SetupError
from workers.evaluation.sealed_test import Evaluation
from workers.evaluation.views import Scores

from ...workers.tiny import tiny_task
from .exports import Bench

SEEN = ("--cpu", "--clips", "2")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose frames are prepared once."""
    return Bench.make(tmp_path_factory.mktemp("fuse"))


@pytest.fixture(scope="module")
def streams(bench: Bench) -> tuple[Path, Path]:
    """Two exports of different weights."""
    folder = bench.videos.parent
    return bench.export(folder / "rgb.yaml"), bench.export(folder / "other.yaml", trial=8, weights=3)


def test_weights_are_chosen_on_validation_and_the_seal_holds(
    bench: Bench, streams: tuple[Path, Path], tmp_path: Path
) -> None:
    result = bench.run("fuse", *streams, *SEEN, "--scores", tmp_path / "fused.json")
    assert result.exit_code == 0, result.exception
    assert "Validation  top-1" in result.stdout
    assert "fused" in result.stdout
    alone = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, written in zip(streams, alone, strict=True):
        bench.run("evaluate", file, "--validation", *SEEN, "--scores", written)
    rows = [json.loads(path.read_text()) for path in (tmp_path / "fused.json", *alone)]
    assert rows[0]["table"]["v-top1"] >= max(row["table"]["v-top1"] for row in rows[1:])
    assert not (bench.home / "cache" / "unsealed.jsonl").exists()


def test_the_test_list_is_opened_once_for_all_streams(bench: Bench, streams: tuple[Path, Path], tmp_path: Path) -> None:
    weighted = ("fuse", *streams, *SEEN, "--weights", "1,1.5")
    result = bench.run(*weighted, "--final", "--scores", tmp_path / "fused.json")
    assert result.exit_code == 0, result.exception
    assert "on 8 sealed videos" in result.stdout
    assert "0.40" in result.stdout
    lines = [json.loads(line) for line in (bench.home / "cache" / "unsealed.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in lines}) == 1
    assert "fusion of trial 7 of study tiny and trial 8 of study tiny by 1, 1.5" in lines[0]["reason"]
    assert lines[-1]["score"]["top1"] == json.loads((tmp_path / "fused.json").read_text())["table"]["v-top1"]
    refused = bench.run("evaluate", streams[0], "--final", *SEEN)
    assert isinstance(refused.exception, ConflictError)
    assert isinstance(bench.run(*weighted, "--final").exception, ConflictError)


@pytest.mark.parametrize("weights", ["1", "1,x", "1,-1", "0,0", "1,nan", "1,inf"])
def test_weights_that_are_none_are_refused(bench: Bench, streams: tuple[Path, Path], weights: str) -> None:
    result = bench.run("fuse", *streams, "--weights", weights)
    assert isinstance(result.exception, SetupError)
    assert "2 numbers" in str(result.exception)


def test_one_export_is_no_fusion(bench: Bench, streams: tuple[Path, Path]) -> None:
    assert isinstance(bench.run("fuse", streams[0]).exception, SetupError)


def test_streams_that_held_out_other_videos_are_not_compared_on_them(bench: Bench, tmp_path: Path) -> None:
    drawn = [bench.export(tmp_path / f"{seed}.yaml", split_seed="trial", seed=seed) for seed in (1, 2)]
    refused = bench.run("fuse", *drawn, *SEEN)
    assert "scored on different videos" in str(refused.exception)
    tested = bench.run("fuse", *drawn, *SEEN, "--weights", "1,1", "--final", "--again")
    assert tested.exit_code == 0, tested.exception
    assert "Validation" not in tested.stdout


def test_a_data_set_that_changed_since_one_training_is_told(
    bench: Bench, streams: tuple[Path, Path], tmp_path: Path
) -> None:
    other = bench.export(tmp_path / "other.yaml", weights=3)
    state = torch.load(other.with_suffix(".pt"), weights_only=True)
    torch.save({**state, "dataset_version": "before"}, other.with_suffix(".pt"))
    assert "files were added" not in bench.run("fuse", *streams, *SEEN).stderr
    assert "files were added" in bench.run("fuse", streams[0], other, *SEEN).stderr


def test_streams_of_other_test_lists_are_refused_before_anything_is_scored(
    bench: Bench, streams: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(bench.videos, tmp_path / "videos")
    opened = open_dataset(tiny_task(bench.videos).dataset, cache_dir=bench.home / "cache")
    (tmp_path / "videos" / opened.unseal_test(reason="a test")[0].path).unlink()
    other = Bench(home=bench.home, videos=tmp_path / "videos").export(tmp_path / "other.yaml")
    refused = bench.run("fuse", streams[0], other, *SEEN, "--final", "--again")
    assert isinstance(refused.exception, SetupError)
    assert "has other test videos than" in str(refused.exception)
    assert "Validation" not in refused.stdout


def test_an_opening_by_others_during_the_validation_is_seen(
    bench: Bench, streams: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = bench.home / "cache" / "unsealed.jsonl"
    log.unlink(missing_ok=True)
    validation = Evaluation.validation

    def opened_meanwhile(self: Evaluation, *views: Any, **options: Any) -> Scores:
        self.dataset.unseal_test(reason="somebody else", about={"id": str(uuid4())})
        return validation(self, *views, **options)

    monkeypatch.setattr(Evaluation, "validation", opened_meanwhile)
    refused = bench.run("fuse", *streams, *SEEN, "--final")
    assert isinstance(refused.exception, ConflictError)
    assert "somebody else" in str(refused.exception)
    assert "fusion" not in log.read_text()


@pytest.mark.slow  # two trainings
def test_an_rgb_and_a_flow_stream_are_fused_by_weights_that_a_loop_finds_too(bench: Bench, tmp_path: Path) -> None:
    rgb = bench.export(tmp_path / "rgb.yaml", trained_epochs=5)
    seen: dict[str, Any] = {"clip.modality": "flow", "clip.flow_pairs": 3}
    flow = bench.export(tmp_path / "flow.yaml", trial=8, flow="dis", trained_epochs=5, **seen)
    for file in (rgb, flow):
        done = bench.run("evaluate", file, "--validation", *SEEN, "--scores", file.with_suffix(".json"))
        assert done.exit_code == 0, done.exception
    result = bench.run("fuse", rgb, flow, *SEEN, "--scores", tmp_path / "fused.json")
    assert result.exit_code == 0, result.exception
    streams = [json.loads((tmp_path / f"{name}.json").read_text())["videos"] for name in ("rgb", "flow")]
    fused = json.loads((tmp_path / "fused.json").read_text())
    found: dict[int, dict[str, list[float]]] = {}
    best = (-1.0, -math.inf)
    for twentieths in range(21):
        share = twentieths / 20
        scores, right, loss = {}, 0, 0.0
        for id_, video in streams[0].items():
            pairs = zip(video["scores"], streams[1][id_]["scores"], strict=True)
            scores[id_] = [share * one + (1 - share) * other for one, other in pairs]
            label = fused["classes"].index(video["label"])
            right += max(range(2), key=scores[id_].__getitem__) == label
            loss += math.log(max(scores[id_][label], 1e-12))
        found[twentieths] = scores
        best = max(best, (right / len(scores), loss / len(scores)))
    assert fused["table"]["v-top1"] == best[0]
    assert best[0] >= max(json.loads((tmp_path / f"{n}.json").read_text())["table"]["v-top1"] for n in ("rgb", "flow"))
    chosen = [
        share
        for share, scores in found.items()
        if all(video["scores"] == pytest.approx(scores[id_], abs=1e-5) for id_, video in fused["videos"].items())
    ]
    assert len(chosen) == 1, "the fused scores are those of one weight of the loop"
    assert f"{chosen[0] / 20:.2f}" in result.stdout
