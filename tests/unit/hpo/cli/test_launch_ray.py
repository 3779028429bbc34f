"""`hpo launch ray` before it reaches a cluster: what it refuses, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.cli import launch_ray, main


def _refused(arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), "launch", "ray", "--workers", "2", *arguments])
    assert ended.value.code != 0
    return " ".join(capsys.readouterr().err.split())


def test_without_ray_it_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_ray, "find_spec", lambda _: None)
    assert "here and on the nodes: pip install 'video-hpo[ray]'" in _refused([], tmp_path, capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min-workers", "3"], "--min-workers 3 is more than --workers 2"),
        (["--gpu", "0"], "--gpu is chosen for each worker"),
        (["--memory-share", "0.5"], "--memory-share is chosen for each worker: give --gpus-per-worker below 1"),
        (["--exit-when-idle", "5"], "--exit-when-idle is chosen for each worker: give --idle-seconds"),
        (["--resource", "A100"], "--resource A100: write NAME=AMOUNT"),
        (["--resource", "A100=nan"], "--resource A100=nan: write NAME=AMOUNT"),
        (["--worker-token-file", "/nowhere/token"], "/nowhere/token cannot be read"),
        ([], "there is no token: start `hpo serve`"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch_ray, "find_spec", lambda name: name)
    found = _refused(arguments, tmp_path, capsys)
    assert said in found
    assert "Traceback" not in found
