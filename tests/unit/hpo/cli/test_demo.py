"""The parts of `hpo demo` that look after processes and tell a person what happens; the whole runs in `make demo`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpo import installation
from hpo.cli import demo
from hpo.errors import HpoError, SetupError
from hpo.settings import Settings


class FakeClient:
    """An API whose answers the test writes."""

    def __init__(self, states: list[str] | None = None, *, names: tuple[str, ...] = ()) -> None:
        self._states = iter(states or [])
        self._names = names
        self.asked = 0

    def studies(self) -> list[dict[str, Any]]:
        return [{"name": name} for name in self._names]

    def study(self, name: str) -> dict[str, Any]:
        self.asked += 1
        state = next(self._states)
        return {"name": name, "state": state, "state_reason": "3 invalid trials" if state == "paused" else None}

    def trials(self, _name: str) -> list[dict[str, Any]]:
        done = {"number": 0, "state": "completed", "epochs_done": 12, "metrics": {"val_top1": 0.5}}
        begun = {"number": 1, "state": "running", "epochs_done": self.asked, "last_metrics": {"val_top1": 0.25}}
        return [done, begun, {"number": 2, "state": "suggested", "epochs_done": 0}]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), "demo"), (("demo",), "demo-2"), (("demo", "demo-2", "other"), "demo-3"), (("demo-2",), "demo")],
)
def test_a_second_demo_has_a_name_of_its_own(names: tuple[str, ...], expected: str) -> None:
    client: Any = FakeClient(names=names)
    assert demo._free_name(client) == expected


STUDY = {"name": "demo", "spec": {"budget": {"trials": 3}}}
RUNNING: Any = SimpleNamespace(poll=lambda: None)
ENDED: Any = SimpleNamespace(poll=lambda: 1)


def test_each_change_of_a_trial_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = FakeClient(["active", "active", "completed"])
    demo.watch_study(client, STUDY, [RUNNING])
    _, *lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["trial  0 completed, epoch 12, val_top1 0.500", "trial  1 running, epoch 1, val_top1 0.250"]
    assert lines[2:] == [
        "trial  1 running, epoch 2, val_top1 0.250",
        "trial  1 running, epoch 3, val_top1 0.250",
    ]


def test_a_demo_without_workers_ends(capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = FakeClient(["active"] * 3)
    with pytest.raises(HpoError, match="workers have ended"):
        demo.watch_study(client, STUDY, [ENDED, ENDED])
    one_left: Any = FakeClient(["active", "completed"])
    demo.watch_study(one_left, STUDY, [ENDED, RUNNING])
    capsys.readouterr()


def test_a_study_that_was_paused_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = FakeClient(["paused"])
    with pytest.raises(HpoError, match="3 invalid trials"):
        demo.watch_study(client, STUDY, [RUNNING])
    capsys.readouterr()


def test_a_service_that_does_not_start_shows_the_end_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "serve.log"
    log.write_text("x" * 5000 + "the port is taken")
    with pytest.raises(SetupError, match="did not start"):
        demo._wait_until(lambda: False, ENDED, log)
    said = capsys.readouterr().err
    assert "the port is taken" in said
    assert len(said) < 2100
    answers = iter([False, False, True])
    demo._wait_until(lambda: next(answers), RUNNING, log)


def test_a_part_of_the_demo_has_its_own_home_and_ends_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    class Process:
        def __init__(self, command: list[str], **options: Any) -> None:
            self.command, self.options, self.story = command, options, list[Any]()
            started.append(self)

        def send_signal(self, number: int) -> None:
            self.story.append(number)

        def wait(self, seconds: float | None = None) -> None:
            self.story.append(seconds)
            if seconds is not None:
                raise subprocess.TimeoutExpired("hpo", seconds)

        def kill(self) -> None:
            self.story.append("kill")

    monkeypatch.setattr(installation, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": Process}))
    monkeypatch.setenv("DATABASE_URL", "postgresql://of-somebody")
    monkeypatch.setenv("HPO_TOKEN", "of-somebody")
    with demo._process(Settings(home=tmp_path), "serve", ["serve", "--port", "0"]):
        (process,) = started
        assert process.story == []
    assert process.command == [str(Path(sys.executable).with_name("hpo")), "serve", "--port", "0"]
    environment = process.options["env"]
    assert environment["HPO_HOME"] == str(tmp_path)
    assert not {"DATABASE_URL", "HPO_URL", "HPO_TOKEN"} & environment.keys()
    assert process.story == [signal.SIGTERM, installation.STOP_SECONDS, "kill", None]
    assert (tmp_path / "serve.log").exists()


def test_the_record_of_the_final_test_goes_to_the_service_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_URL", "http://127.0.0.1:1")
    settings = Settings(home=tmp_path)
    settings.token_file.write_text("secret\n")
    client: Any = SimpleNamespace(url="http://127.0.0.1:41049")
    found = demo._served(settings, client)
    assert (found.api_url, found.token) == ("http://127.0.0.1:41049", "secret")
    assert found.proving_file == settings.server_file
