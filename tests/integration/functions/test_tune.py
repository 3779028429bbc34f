"""`hpo.tune` and the page about it: a real service with its own Postgres, real workers, real functions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.errors import ConflictError
from hpo.functions.here import service
from hpo.functions.tune import FunctionFailedError
from hpo.settings import Settings, read_server_file
from tests.documents import blocks
from tests.integration.workers.bench import wait_until

SPACE: dict[str, Any] = {"x": (0.0, 4.0)}
RANDOM = {"name": "random"}
INTERRUPTED = """
import os, signal, sys, time
import hpo
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has its background commands ignore
gate = Path(sys.argv[1])

def train(trial):
    (gate / str(trial.number)).touch()
    while trial.number > 0 and not (gate / "open").exists():
        time.sleep(0.01)
    return -trial.params["x"]

result = hpo.tune(train, space={"x": (0.0, 4.0)}, objective="score", budget={"trials": 3}, name="interrupted",
                  optimizer={"name": "random"}, workers=1)
print("ended", result.state, len(result.records))
"""

TOGETHER = """
import sys
from hpo.functions.here import service
from hpo.settings import Settings

with service(Settings.load()) as client:
    print("has it", flush=True)
    for _ in sys.stdin:
        print(client.health()["status"], flush=True)
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A data directory that is served, which `hpo.tune` finds: it starts a service of its own where none is."""
    # Not below pytest's folder, which is closed to the user that the embedded Postgres of root runs as.
    with tempfile.TemporaryDirectory(prefix="hpo-tune-") as place, pytest.MonkeyPatch.context() as patch:
        Path(place).chmod(0o755)
        folder = Path(place) / "home"
        for name in ("HPO_URL", "HPO_TOKEN", "HPO_HOME", "DATABASE_URL"):
            patch.delenv(name, raising=False)
        with service(Settings.load(home=folder)):
            yield folder


def _tune(function: Any, home: Path, **changes: Any) -> Any:
    given = {"space": SPACE, "objective": "score", "optimizer": RANDOM, "workers": 1, "progress": False, "threads": 1}
    return hpo.tune(function, home=home, **{**given, **changes})


def _run(script: Path, home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        cwd=script.parent,
        env={**os.environ, "HPO_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_script_of_the_page_finds_a_forest_and_returns_at_once_when_run_again(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "forest.py"
    # Three of its twelve trials say the same.
    script.write_text(
        blocks("docs/own-function.md", "python")[0].text.replace(
            'budget={"trials": 12}', 'optimizer={"name": "random"}, budget={"trials": 3}, workers=1'
        )
    )
    outputs = []
    for _ in range(2):
        process = _run(script, home)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        outputs.append(output)
    assert outputs[0] == outputs[1]
    found = re.match(r"forest: accuracy (0\.9\d+) with trees=\d+, depth=\d, criterion='", outputs[0])
    assert found is not None, outputs[0]
    assert "params_trees" in outputs[0]


def test_closures_are_functions_too_and_a_larger_budget_goes_on(home: Path) -> None:
    shift = 1.5
    first = _tune(lambda trial: -abs(trial.params["x"] - shift), home, budget={"trials": 2}, name="closure")
    again = _tune(lambda trial: -abs(trial.params["x"] - shift), home, budget={"trials": 3}, name="closure")
    assert (len(first.records), len(again.records)) == (2, 3)
    assert again.best_value == pytest.approx(-abs(again.best_params["x"] - shift))
    assert again.best_sd is None, "single values show no spread"
    with pytest.raises(ConflictError, match="a study closure already, with other space"):
        _tune(lambda trial: 0.0, home, space={"y": (0, 3)}, name="closure")


def test_a_function_that_always_fails_is_told_once(home: Path) -> None:
    def broken(trial: hpo.Trial) -> float:
        return len(trial.params["x"])  # type: ignore[arg-type]  # the mistake

    with pytest.raises(FunctionFailedError) as caught:
        _tune(broken, home, budget={"trials": 30})
    said = str(caught.value)
    assert re.match(
        r"all \d trials of broken-1 failed; trial 0: TypeError: object of type 'float' has no len\(\)\n", said
    )
    assert said.count("Traceback") == 1
    assert 'return len(trial.params["x"])' in said


def test_ctrl_c_leaves_a_study_that_the_same_call_continues(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    process = _run(script, home, str(tmp_path))
    wait_until((tmp_path / "1").exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "the same call with name='interrupted' continues the study" in errors
    (tmp_path / "open").touch()
    output, errors = _run(script, home, str(tmp_path)).communicate(timeout=120)
    assert output == "ended completed 3\n", errors


def test_a_service_that_programs_started_together_ends_with_the_last_of_them(tmp_path: Path) -> None:
    (script := tmp_path / "script.py").write_text(TOGETHER)
    tmp_path.chmod(0o755)
    home = tmp_path / "home"
    programs = [_run(script, home) for _ in range(2)]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "has it\n"
    command = Path(f"/proc/{json.loads((home / 'server.json').read_text())['pid']}")
    # Which of them has started it is not known: the one that is killed may be.
    starter = next(
        (one for one in programs if str(one.pid) == (command / "stat").read_text().rpartition(")")[2].split()[1]), None
    )
    assert starter is not None
    (other,) = set(programs) - {starter}
    starter.kill()
    starter.communicate()
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline() == "ok\n", "the service goes on for it"
    other.terminate()
    other.communicate()
    wait_until(lambda: not command.exists())
    assert read_server_file(home / "server.json") is None
    assert not (home / "postgres" / "data" / "postmaster.pid").exists()
