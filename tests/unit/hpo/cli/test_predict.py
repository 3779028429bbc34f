"""`hpo predict`: files and folders in, a table and a JSON file out, broken videos named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import HpoError, SetupError
from workers.evaluation.predict import Predictor

from .exports import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose frames are prepared once."""
    return Bench.make(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def best(bench: Bench) -> Path:
    """An export with its checkpoint."""
    return bench.export(bench.videos.parent / "best.yaml")


def _videos(bench: Bench) -> list[Path]:
    return sorted(bench.videos.rglob("*.avi"))


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def test_a_folder_is_predicted_into_a_file(bench: Bench, best: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for video in _videos(bench)[:3]:
        (some / video.name).write_bytes(video.read_bytes())
    result = bench.run("predict", best, some, "-o", tmp_path / "result.json", "--clips", "2", "--timeline")
    assert result.exit_code == 0, result.exception
    found = _read(tmp_path / "result.json")
    assert found["classes"] == ["SlideLeft", "SlideRight"]
    assert [Path(entry["video"]).name for entry in found["results"]] == [video.name for video in _videos(bench)[:3]]
    for entry in found["results"]:
        assert entry["class"] == entry["top"][0]["class"]
        assert sum(one["score"] for one in entry["top"]) == pytest.approx(1, abs=1e-5)
        assert entry["timeline"][-1]["end"] == pytest.approx(entry["seconds"], abs=1e-3)
        assert entry["class"] in result.stdout
    assert "x real time" in result.stdout
    assert "0:00.0 to" in result.stdout


def test_a_checkpoint_alone_says_what_is_taken_for_granted(bench: Bench, best: Path, tmp_path: Path) -> None:
    video, output = _videos(bench)[0], tmp_path / "r.json"
    alone = bench.run("predict", best.with_suffix(".pt"), video, "-o", output, "--cpu", "--short-side", "32")
    assert alone.exit_code == 0, alone.exception
    assert "does not say how frames were prepared" in alone.stderr
    scores = _read(output)["results"][0]["top"]
    bench.run("predict", best, video, "-o", output)
    assert _read(output)["results"][0]["top"] == scores


def test_a_broken_video_is_named_and_the_others_are_predicted(bench: Bench, best: Path, tmp_path: Path) -> None:
    broken, output = tmp_path / "broken.avi", tmp_path / "r.json"
    broken.write_bytes(b"RIFF")
    result = bench.run("predict", best, broken, _videos(bench)[0], "-o", output, "--video", tmp_path / "copies")
    assert isinstance(result.exception, HpoError)
    assert "1 of 2 videos could not be predicted" in str(result.exception)
    first, second = _read(output)["results"]
    assert "cannot be opened" in first["error"]
    assert Path(second["copy"]).is_file()


@pytest.mark.parametrize(("name", "words"), [("missing.avi", "there is no file"), ("empty", "has no videos")])
def test_nothing_to_predict_is_a_sentence(bench: Bench, best: Path, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    result = bench.run("predict", best, tmp_path / name, "-o", tmp_path / "r.json")
    assert isinstance(result.exception, SetupError)
    assert words in str(result.exception)


def test_a_file_that_cannot_be_written_is_known_at_once(bench: Bench, best: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("kept")
    for output in (tmp_path / "none" / "r.json", tmp_path, tmp_path / f"{'x' * 300}.json"):
        result = bench.run("predict", best.with_name("no model.yaml"), _videos(bench)[0], "-o", output)
        assert isinstance(result.exception, SetupError), "before the model is read"
        assert "cannot be written" in str(result.exception)
    bench.run("predict", best.with_name("no model.yaml"), _videos(bench)[0], "-o", tmp_path / "kept.json")
    bench.run("predict", best.with_name("no model.yaml"), _videos(bench)[0], "-o", tmp_path / "new.json")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept.json", "kept")]


def test_a_disk_that_is_full_at_the_end_is_a_sentence(bench: Bench, best: Path) -> None:
    result = bench.run("predict", best, _videos(bench)[0], "-o", "/dev/full", "--clips", "1")
    assert isinstance(result.exception, SetupError)
    assert "/dev/full cannot be written" in str(result.exception)


def test_what_was_predicted_until_ctrl_c_is_kept(
    bench: Bench, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, predict = tmp_path / "r.json", Predictor.predict

    def interrupted(self: Predictor, path: Path, **options: Any) -> Any:
        if path == _videos(bench)[1]:
            raise KeyboardInterrupt
        return predict(self, path, **options)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    result = bench.run("predict", best, *_videos(bench)[:3], "-o", output, "--clips", "1")
    assert result.exit_code == 130
    assert f"1 of 3 files were predicted; wrote {output}" in " ".join(result.stderr.split())
    found = _read(output)
    assert found["files"] == 3
    assert [entry["video"] for entry in found["results"]] == [str(_videos(bench)[0])]
    output.unlink()
    bench.run("predict", best, *_videos(bench)[1:3], "-o", output, "--clips", "1")
    assert not output.exists(), "there was nothing to keep"


def test_a_copy_that_cannot_be_written_costs_no_prediction(bench: Bench, best: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("a file, not a folder")
    output = tmp_path / "r.json"
    result = bench.run("predict", best, _videos(bench)[0], "-o", output, "--clips", "1", "--video", tmp_path / "copies")
    assert isinstance(result.exception, HpoError)
    assert "1 could not be copied" in str(result.exception)
    (entry,) = _read(output)["results"]
    assert entry["class"] in entry["top"][0]["class"]
    assert "cannot be written" in entry["copy_error"]


def test_videos_of_one_name_have_copies_of_their_own(bench: Bench, best: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.avi").write_bytes(_videos(bench)[0].read_bytes())
    (tmp_path / "a" / "v-2.avi").write_bytes(_videos(bench)[1].read_bytes())
    output, copies = tmp_path / "r.json", tmp_path / "copies"
    result = bench.run("predict", best, tmp_path / "a", tmp_path / "b", "-o", output, "--clips", "1", "--video", copies)
    assert result.exit_code == 0, result.exception
    named = {Path(entry["video"]): Path(entry["copy"]) for entry in _read(output)["results"]}
    assert {path.name for path in copies.iterdir()} == {f"{name}.classes.mp4" for name in ("v", "v-2", "v-3")}
    assert len(set(named.values())) == len(named) == 3


def test_flow_is_computed_as_where_the_model_was_trained(bench: Bench, tmp_path: Path) -> None:
    seen: dict[str, Any] = {"clip.modality": "flow", "clip.flow_pairs": 3}
    best, video = bench.export(tmp_path / "flow.yaml", flow="dis", **seen), _videos(bench)[0]
    outputs = [tmp_path / "as-exported.json", tmp_path / "alone.json"]
    done = bench.run("predict", best, video, "-o", outputs[0], "--clips", "1")
    assert done.exit_code == 0, done.exception
    alone = ("predict", best.with_suffix(".pt"), video, "-o", outputs[1], "--cpu", "--short-side", "32", "--clips", "1")
    refused = bench.run(*alone)
    assert isinstance(refused.exception, HpoError)
    assert "--flow dis, farneback or tvl1" in str(refused.exception)
    assert bench.run(*alone, "--flow", "dis").exit_code == 0
    exported, found = (_read(output)["results"][0]["top"] for output in outputs)
    assert exported == found


def test_nothing_that_is_read_is_written_over(bench: Bench, best: Path, tmp_path: Path) -> None:
    video, copy, link = tmp_path / "v.avi", tmp_path / "v.classes.mp4", tmp_path / "link.json"
    for path in (video, copy):
        path.write_bytes(_videos(bench)[0].read_bytes())
    link.symlink_to(video)
    before = {path: path.read_bytes() for path in (video, copy, best, best.with_suffix(".pt"))}
    for output in (video, link, best, best.with_suffix(".pt")):
        result = bench.run("predict", best, video, "-o", output)
        assert isinstance(result.exception, SetupError)
        assert str(result.exception).startswith(f"{output} would be written over, and is read")
    result = bench.run("predict", best, video, copy, "-o", tmp_path / "r.json", "--video", tmp_path)
    assert isinstance(result.exception, SetupError)
    assert str(result.exception).startswith(f"{copy} would be written over")
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "r.json").exists()


def test_copies_of_an_earlier_command_are_no_videos_of_a_folder(
    bench: Bench, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner" / "folder.avi"
    inner.mkdir(parents=True)
    (inner / "v.avi").write_bytes(_videos(bench)[0].read_bytes())
    (inner / "v.classes.mp4").write_bytes(b"a copy")
    monkeypatch.chdir(tmp_path)
    result = bench.run("predict", best, "inner", "--clips", "1")
    assert result.exit_code == 0, result.exception
    assert "inner: 1 annotated copies of --video are left out" in result.stderr
    assert _predictions_of_seed((tmp_path / "result.json").read_text()) == [("v.avi", 1)]


def _predictions_of_seed(text: str) -> list[tuple[str, int]]:
    """Read `result.json` by what the seed document says of it alone: a class for each video, from several views.

    Returns the name of each video, and how many classes have its highest score.
    """
    document = json.loads(text)
    read = []
    for entry in document["results"]:
        scores = {one["class"]: one["score"] for one in entry["top"]}
        best = max(scores.values())
        assert scores[entry["class"]] == best == entry["score"]
        assert set(scores) <= set(document["classes"])
        read.append((Path(entry["video"]).name, list(scores.values()).count(best)))
    return read
