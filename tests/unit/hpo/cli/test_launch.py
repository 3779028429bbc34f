"""`hpo launch`: what is refused before anything starts, and what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.cli import main
from hpo.cli.launch import _grouped, _names
from hpo.launch.supervisor import last_line
from hpo.launch.worker import WorkerCommand, worker_environment
from hpo.settings import Settings


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    monkeypatch.setenv("HPO_TOKEN", "hpo_secret")
    monkeypatch.setenv("HPO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("local --gpus none --studdy x", 2, "No such option: --studdy"),
        ("local --gpus none --max-trials no", 2, "Invalid value for '--max-trials'"),
        ("local --gpus none --gpu 0", 1, "--gpu is chosen for each worker: give --gpus"),
        ("local --gpus 0,one", 1, "--gpus 0,one: give `all`, numbers as in `0,1,3`, or `none`"),
        ("local --gpus 0 --workers 2", 1, "--workers is for --gpus none"),
        ("local --gpus 0,1,2 --gpus-per-worker 2", 1, "--gpus-per-worker 2: 3 GPUs do not go into groups of 2"),
        ("local --gpus 0,1 --nodes 2", 1, "a group has one worker on each machine, and here would be 2"),
        ("slurm --time 60 --node-rank 1", 1, "--node-rank is chosen for each worker: give --nodes to `hpo launch"),
        ("slurm --time 4h", 1, "--time 4h: write it as Slurm does"),
        ("slurm --time 5", 1, "--notice 300: a job of 5 min ends before that"),
        ("slurm --time 60 --sbatch qos", 1, "--sbatch qos: write it as NAME=VALUE"),
        ("slurm --time 60 --cpu", 1, "--cpu is chosen for each worker"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: str, status: int, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["launch", *arguments.split()])
    assert ended.value.code == status
    assert said in capsys.readouterr().err


def test_without_a_token_nothing_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HPO_TOKEN")
    with pytest.raises(SystemExit):
        main(["launch", "local", "--gpus", "none"])
    assert f"which leaves one in {tmp_path / 'token'}" in capsys.readouterr().err


def test_a_dry_run_prints_the_script_and_leaves_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(SystemExit) as ended:
        main(["launch", "slurm", "--time", "1-00", "--dry-run", "--study", "x"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("#!/bin/bash\n")
    assert "\n#SBATCH --time=1440\n" in printed
    assert "hpo_secret" not in printed
    assert not list(tmp_path.iterdir())


def test_each_worker_has_a_name_of_its_own() -> None:
    groups = [(0,), (0,), (2, 3), (), ()]
    assert _names(groups) == ["gpu-0", "gpu-0-2", "gpu-2+3", "cpu-3", "cpu-4"]


def test_gpus_are_shared_out_in_groups_of_one_size() -> None:
    assert _grouped([0, 1, 4, 5], 2) == [(0, 1), (4, 5)]
    assert _grouped([None, None], 2) == [(), ()]
    command = WorkerCommand(name="gpu-4+5", gpus=(4, 5), threads=4)
    assert command.arguments()[1:] == ["--gpus", "4,5", "--threads", "4"]


def test_the_token_is_in_the_environment_and_never_among_the_arguments(tmp_path: Path) -> None:
    settings = Settings.load()
    assert worker_environment(settings)["HPO_TOKEN"] == "hpo_secret"  # noqa: S105 - made up
    (tmp_path / "token").write_text("hpo_secret\n")
    assert "HPO_TOKEN" not in worker_environment(settings), "a worker finds it in the data directory"
    arguments = WorkerCommand(name="gpu-1", gpus=[1], threads=4, options=["--study", "x"]).arguments()
    assert arguments[1:] == ["--gpu", "1", "--threads", "4", "--study", "x"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"", ""),
        (b"one\ntwo\n\n  \n", "two"),
        (b"\xff\x1b[2Jcleared", "\ufffd\\x1b[2Jcleared"),
        (b"x" * 9000, "x" * 4096),
    ],
)
def test_the_last_line_of_a_log_is_shown_as_plain_text(tmp_path: Path, written: bytes, shown: str) -> None:
    log = tmp_path / "cpu-0.log"
    assert last_line(log) == ""
    log.write_bytes(written)
    assert last_line(log) == shown
