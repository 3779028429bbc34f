"""`hpo-worker`: a mistake in its use is reported in one sentence."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from workers.cli import main


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    code = ended.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    for name in ("HPO_URL", "HPO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_error_for_a_missing_token_names_its_path(capsys: pytest.CaptureFixture[str], surroundings: Path) -> None:
    code, said = _fails(capsys, "--cpu")
    assert code == 1
    assert said.startswith("hpo-worker: there is no token: ")
    assert str(surroundings / "token") in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("--cpu", "--gpu", "0")])
def test_exactly_one_device_must_be_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    assert _fails(capsys, *arguments) == (1, "hpo-worker: say where to train: either --gpu N or --cpu\n")


def test_a_token_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = _fails(capsys, "--cpu", "--token-file", str(tmp_path / "absent"))
    assert code == 1
    assert "absent cannot be read" in said


def test_an_address_that_is_not_one_of_an_api_ends_the_worker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    code, said = _fails(capsys, "--cpu", "--threads", "1", "--url", "ftp://example.invalid")
    assert code == 1
    assert said.splitlines()[-1] == (
        "hpo-worker: 'ftp://example.invalid' is not the address of an API; write something like http://host:8000"
    )


def test_the_worker_waits_for_an_api_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        code, _ = _fails(capsys, "--cpu", "--threads", "1", "--url", url, "--exit-when-idle", "0.1")
    assert code == 0
