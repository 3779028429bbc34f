"""A study of one trial that waits at a gate, and launchers that run its workers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpo.installation import program_path
from hpo.spec import parse_spec
from hpo.store import Database, lifecycle, studies
from hpo.trial import Suggestion
from tests.integration.api.service import serving
from tests.integration.workers.bench import DEADLINE_SECONDS, Bench, wait_until

EPOCHS = 3
FUNCTION = """
import time
from pathlib import Path

def train(trial):
    gates = Path(trial.params["gates"])
    for epoch in trial.epochs(resume=lambda checkpoint: None):
        (gates / f"{trial.attempt}-{epoch}").touch()
        while epoch == 2 and not (gates / f"open-{trial.attempt}").exists():
            time.sleep(0.02)
        trial.report(score=float(epoch), checkpoint={"epoch": epoch})
"""


@dataclass(slots=True)
class Launcher:
    """An `hpo launch local` that runs."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()

    def worker_pids(self) -> list[int]:
        """Return the processes of all workers that it has started so far."""
        return [int(pid) for pid in re.findall(r"started(?: again)? \(pid (\d+)\)", self.said)]


@dataclass(slots=True, kw_only=True)
class Gated:
    """A study whose only trial waits in its second epoch, in each attempt that begins with it or before."""

    bench: Bench
    study_id: int
    gates: Path
    _launchers: list[Launcher] = field(default_factory=list)

    def options(self) -> list[str]:
        """Return the options of a worker that runs it."""
        return ["--entry", f"{self.gates / 'mine.py'}:train", "--study", "gated"]

    def waits(self, attempt: int) -> None:
        """Wait until an attempt is in its second epoch, and what it did before is stored."""
        wait_until((self.gates / f"{attempt}-2").exists, f"attempt {attempt}")
        wait_until(self.bench.reached(self.study_id, 1))

    def open_when_draining(self, attempt: int, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Let an attempt end its second epoch once its worker has heard that it is to give the trial back."""
        logs = self.bench.home / "launch"
        wait_until(
            lambda: any("asked to stop" in log.read_text() for log in logs.glob("*/cpu-0.log")),
            "draining",
            seconds=seconds,
        )
        (self.gates / f"open-{attempt}").touch()

    def ends(self) -> list[str]:
        """Return how the attempts of the trial have ended."""
        query = "SELECT ended_as FROM attempt WHERE trial_id = :id ORDER BY attempt"
        return [row.ended_as for row in self.bench._rows(query, self.bench.trial(self.study_id).id)]

    @property
    def environment(self) -> dict[str, str]:
        """That of a person who starts a launcher."""
        service = {"HPO_HOME": str(self.bench.home), "HPO_URL": self.bench.url, "HPO_TOKEN": self.bench.token}
        return {**os.environ, **service, "OMP_NUM_THREADS": "1"}

    def launch(self, *options: str) -> Launcher:
        """Return a launcher of one worker."""
        self.bench.home.mkdir(exist_ok=True)
        output = self.gates / f"launcher-{len(list(self.gates.glob('launcher-*')))}"
        command = [program_path("hpo"), "launch", "local", "--gpus", "none", *self.options(), *options]
        with output.open("wb") as file:
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        self._launchers.append(Launcher(process, output))
        return self._launchers[-1]

    def clear(self) -> None:
        """End what a failed test has left; the workers of a launcher end after it."""
        for attempt in range(1, 9):
            (self.gates / f"open-{attempt}").touch()
        for launcher in self._launchers:
            launcher.process.kill()
            launcher.process.wait()


@pytest.fixture
def gated(database: Database, tmp_path: Path) -> Iterator[Gated]:
    """A study whose trial waits, and its service."""
    (tmp_path / "mine.py").write_text(FUNCTION)
    spec = parse_spec(
        {
            "name": "gated",
            "objectives": [{"metric": "score"}],
            "task": {
                "kind": "custom",
                "metrics": {"score": "maximize"},
                "epochs": EPOCHS,
                "base": {"gates": str(tmp_path)},
            },
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": 1},
        }
    )
    with database.transaction() as connection:
        study = studies.create(connection, spec, actor="test")
        generation = studies.acquire_generator(connection, study.id, "test", 3600.0)
        assert generation is not None
        proposal = Suggestion(params={"x": 0.5}, generator="test")
        lifecycle.suggest(connection, study.id, [proposal], owner="test", generation=generation)
    with serving(database, upkeep_seconds=0.2) as service:
        bench = Bench(
            database=database, url=service.url, token=service.tokens["admin"], home=tmp_path / "home", videos=tmp_path
        )
        made = Gated(bench=bench, study_id=study.id, gates=tmp_path)
        try:
            yield made
        finally:
            made.clear()


def ended(launcher: Launcher) -> int:
    """Return the exit status of a launcher once it has ended."""
    return launcher.process.wait(DEADLINE_SECONDS)
