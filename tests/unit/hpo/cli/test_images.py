"""From a trained classifier of images to its program, its score on the sealed list, and its predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from data import open_dataset
from data.reading.images import decode_image
from data.synthetic.shapes import SHAPES, make_shapes
from hpo.errors import SetupError
from hpo.results.export import Export, dump_export
from hpo.spec import ImageTask, TrainingConfig
from workers.checkpoints.contents import writer
from workers.device.detection import cpu_device
from workers.evaluation.model import TrainedModel
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer, final_state

from .exports import Bench

SIZE = 32
BASE: dict[str, Any] = {
    "model": "resnet18",
    "model.width": 8,
    "batch_size": 16,
    "clip.size": SIZE,
    "lr": 0.05,
    "dropout": 0.0,
    "augment.scale_min": 0.8,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A data directory, and a folder of shapes."""
    folder = tmp_path_factory.mktemp("images")
    return Bench(home=folder / "home", videos=make_shapes(folder / "shapes", images=24, size=SIZE))


@pytest.fixture(scope="module")
def best(bench: Bench) -> Path:
    """An export of an epoch of training."""
    task = ImageTask.model_validate(
        {"kind": "image", "dataset": {"root": str(bench.videos), "short_side": SIZE}, "epochs": 1, "base": BASE}
    )
    config = task.config({}, seed=5)
    dataset = open_dataset(task.dataset, cache_dir=bench.home / "cache")
    runtime = Runtime(device=torch.device("cpu"), threads=1)
    trainer = Trainer(TrainingConfig.from_flat(config), epochs=1, dataset=dataset, runtime=runtime)
    trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    file = bench.home / "best.yaml"
    with file.with_suffix(".pt").open("wb") as target:
        writer(final_state(trainer.state()))(target)
    export = Export(
        study="shapes",
        trial=3,
        state="completed",
        objectives={"val_top1": 0.5},
        metrics={"val_top1": 0.5},
        config=config,
        task=task,
        epochs_done=1,
        seed=5,
        dataset_version=dataset.version,
        environment={"device": "cpu", "threads": 1},
        checkpoint=file.with_suffix(".pt").name,
    )
    file.write_text(dump_export(export, form="yaml"))
    return file


def test_the_program_takes_images_and_says_what_the_model_says(bench: Bench, best: Path) -> None:
    result = bench.run("export", best, "--format", "onnx")
    assert result.exit_code == 0, result.exception
    session = onnxruntime.InferenceSession(str(best.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    assert (entry.name, entry.shape[1:]) == ("images", [3, SIZE, SIZE])
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(None, {"images": images.numpy()})
    model = TrainedModel.open(best.with_suffix(".pt"), cpu_device(threads=1))
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found), model.module(images[:, :, None]), atol=1e-4, rtol=1e-4)
    card = best.with_suffix(".onnx.md").read_text()
    assert "image-classification" in card
    assert "(images, channels, height, width)" in card
    assert " Take " not in card, "there is no time to take frames from"
    assert "Measured on validation images" in card
    assert "clips" not in card


def test_each_image_is_scored_once_on_the_sealed_list(bench: Bench, best: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    result = bench.run("evaluate", best, "--final", "--scores", scores)
    assert result.exit_code == 0, result.exception
    assert "on 24 sealed images, 1 crop each" in result.stdout
    assert "clips" not in result.stdout
    said = json.loads(scores.read_text())["videos"]
    assert len(said) == 24  # a quarter of each class
    assert all(len(one["frames"]) == 1 for one in said.values())


def test_files_and_folders_of_images_are_predicted(bench: Bench, best: Path, tmp_path: Path) -> None:
    folder, output = bench.videos / "test" / "Star", tmp_path / "result.json"
    result = bench.run("predict", best, folder, bench.videos / "test" / "Circle" / "00000.jpg", "-o", output)
    assert result.exit_code == 0, result.exception
    found = json.loads(output.read_text())
    assert found["classes"] == sorted(SHAPES)
    assert len(found["results"]) == 7
    assert {entry["frames"] for entry in found["results"]} == {1}
    assert all(entry["image"] == entry["video"] for entry in found["results"])
    assert "real time" not in result.stdout
    assert "images/s" in result.stdout
    assert "frames/s" not in result.stdout


def test_the_check_of_a_folder_counts_images(bench: Bench) -> None:
    result = bench.run("data", "check", bench.videos, "--name", "image_folders")
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith("layout image_folders: 96 images, version ")


def test_a_prediction_is_the_score_of_the_evaluation(bench: Bench, best: Path, tmp_path: Path) -> None:
    scores, output = tmp_path / "scores.json", tmp_path / "result.json"
    bench.run("evaluate", best, "--validation", "--scores", scores)
    id_, said = next(iter(json.loads(scores.read_text())["videos"].items()))
    file = bench.videos / f"{id_}.jpg"
    assert decode_image(file.read_bytes(), "x").shape == (SIZE, SIZE, 3)
    bench.run("predict", best, file, "-o", output)
    (entry,) = json.loads(output.read_text())["results"]
    # The prepared frames may be JPEGs of other colours; the files are.
    assert entry["score"] == pytest.approx(max(said["scores"]), abs=0.05)
    assert entry["class"] == said["prediction"]


def test_images_have_no_time_line(bench: Bench, best: Path) -> None:
    result = bench.run("predict", best, bench.videos, "--timeline")
    assert isinstance(result.exception, SetupError)
    assert "no time line" in str(result.exception)
