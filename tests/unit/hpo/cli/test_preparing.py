"""`hpo data prepare` and `extract`: what a person sees, and one sentence when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from data import make_demo_dataset
from hpo.cli.app import app


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos") / "set"
    make_demo_dataset(root, classes=("SlideLeft", "Grow"), groups=3, clips_per_group=1, frames=8, size=(32, 32))
    (root / "videos" / "Grow" / "v_Grow_g01_c01.avi").write_bytes(b"")
    return root


def run(home: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["--home", str(home), "data", *map(str, arguments)])


def test_the_estimate_comes_first_and_preparing_again_says_so(videos: Path, tmp_path: Path) -> None:
    wanted = ("prepare", videos, "--short-side", "16", "--flow", "dis")
    estimate = run(tmp_path, *wanted, "--estimate")
    assert estimate.exit_code == 0, estimate.output
    assert "left out: videos/Grow/v_Grow_g01_c01.avi (the file has no bytes)" in estimate.output
    assert "rgb: 40 frames of 5 clips, 0.03 MB as raw, less than a minute (raw needs" in estimate.output
    assert "flow: 35 frames of 5 clips, 0.02 MB as raw" in estimate.output
    assert not list(tmp_path.rglob("*-raw"))
    done = run(tmp_path, *wanted)
    assert done.exit_code == 0, done.output
    for stream in ("rgb", "flow"):
        assert f"{stream}: 5 clips prepared as raw in {tmp_path}" in done.output
    again = run(tmp_path, *wanted)
    assert "rgb: already prepared" in again.output
    assert "flow: already prepared" in again.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--store", "zip"), "store is 'zip'; it must be 'auto', 'raw'"),
        (("--frames", "some"), "frames_kept: 'some' is neither"),
        (("--flow", "listed"), "came without optical flow"),
        (("--flow", "raft"), "flow_weights: flow raft needs the path of its weights"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(
    videos: Path, tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    result = run(tmp_path, "prepare", videos, *options)
    assert result.exit_code != 0
    assert words in str(result.exception)
    assert type(result.exception).__name__ in {"HpoError", "SpecError"}


def test_clips_are_extracted_under_the_names_of_other_tools(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(tmp_path, "extract", videos, out, "--naming", "ibm", "--short-side", "16")
    assert result.exit_code == 0, result.output
    assert f"5 clips are in {out}" in result.output
    assert len(list(out.glob("*/*/000??.jpg"))) == 40
    assert "must be one of" in str(run(tmp_path, "extract", videos, out, "--naming", "x").exception)
