"""A real study in which half of the trials start from weights of another training, and half from scratch.

`python -m benchmarks.fine_tuning_study PEOPLE` pre-trains a SlowFast on generated videos (`benchmarks.fine_tuning`),
then starts `hpo serve` and `hpo-worker`, and creates a study on the videos of people in the folder PEOPLE. Its space is
`weights` (none, or the file of the pre-training), `lr` and `seed`, every combination once. At the end it prints both
arms for each learning rate. Started again with the same `--folder`, it goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from hpo.client.http import Client
from hpo.installation import child_environment
from hpo.settings import Settings, read_server_file

from .fine_tuning import MOTION_FILE, RATES, TRAINING, pretrain

STUDY: Final = "fine-tuning"
SCRATCH: Final = "none"
_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = "20"


def study_spec(people: Path, *, epochs: int, seeds: int) -> dict[str, Any]:
    """Return the spec: every combination of starting weights, learning rate and seed is one trial."""
    arms, rates = [SCRATCH, MOTION_FILE], list(RATES)
    return {
        "name": STUDY,
        "objectives": [{"metric": "val_top1"}],
        "task": {
            "dataset": {
                "name": "class_folders",
                "root": str(people),
                "held_out": "2of6",
                "short_side": 36,
                "store": "raw",
            },
            "epochs": epochs,
            "base": dict(TRAINING),
        },
        "space": {
            "weights": {"type": "categorical", "choices": arms},
            "lr": {"type": "ordinal", "choices": rates},
            "seed": {"type": "ordinal", "choices": list(range(seeds))},
        },
        "optimizer": {"name": "random", "seed": 0},
        "early_stopping": {"name": "none"},
        "budget": {"trials": len(arms) * len(rates) * seeds},
    }


def table(trials: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each learning rate with the last top-1 of both arms, then one with the best of each."""
    best: dict[str, list[float]] = {}
    for rate in RATES:
        cells = []
        for weights in (SCRATCH, MOTION_FILE):
            found = {
                trial["params"]["seed"]: float(trial["metrics"]["val_top1"])
                for trial in trials
                if trial["state"] == "completed"
                and (trial["params"]["lr"], trial["params"]["weights"]) == (rate, weights)
            }
            scores = [found[seed] for seed in sorted(found)]
            cells.append(f"{weights} {_mean_and_error(scores)}")
            if scores and fmean(scores) > fmean(best.get(weights, [-1.0])):
                best[weights] = scores
        yield f"lr {rate:g}: {', '.join(cells)}"
    yield "best of each: " + ", ".join(f"{weights} {_mean_and_error(scores)}" for weights, scores in best.items())


def _mean_and_error(scores: Sequence[float]) -> str:
    if len(scores) < 2:
        return " ".join(f"{score:.3f}" for score in scores) or "-"
    return f"{fmean(scores):.3f} ± {stdev(scores) / len(scores) ** 0.5:.3f} (n={len(scores)})"


def run(people: Path, folder: Path, *, epochs: int, seeds: int) -> None:
    """Do what is not done yet, and print what came out."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MOTION_FILE).exists():
        print(f"pre-training: top-1 {pretrain(folder):.3f}", flush=True)
    settings = Settings(home=folder / "home")
    settings.home.mkdir(exist_ok=True)
    with service(settings) as client:
        if STUDY not in {study["name"] for study in client.studies()}:
            client.create_study(study_spec(people, epochs=epochs, seeds=seeds))
        while (study := client.study(STUDY))["state"] == "active":
            # A worker ends when nothing is left; one that was killed is started again.
            wanted = ["--cpu", "--threads", "1", "--study", STUDY, "--weights-root", str(folder)]
            with program(settings, "hpo-worker", [*wanted, "--exit-when-idle", _IDLE_SECONDS]) as worker:
                worker.wait()
        print(f"the study is {study['state']}: {study['state_reason'] or 'all trials have ended'}")
        print(*table(client.trials(STUDY)), sep="\n")


@contextmanager
def service(settings: Settings) -> Iterator[Client]:
    """Run `hpo serve` during the block, with a client of it."""
    with program(settings, "hpo", ["serve", "--port", "0"]) as process:
        deadline = time.monotonic() + _START_SECONDS
        while (served := read_server_file(settings.server_file)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"`hpo serve` did not start: see {settings.home / 'hpo.log'}")
            time.sleep(0.2)
        token = settings.token_file.read_text().strip()
        with Client(served.url, token, server_file=settings.server_file) as client:
            yield client


@contextmanager
def program(settings: Settings, name: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our programs during the block."""
    environment = {**child_environment(), "HPO_HOME": str(settings.home)}
    environment.pop("HPO_URL", None)
    with (settings.home / f"{name}.log").open("ab") as log:
        command = [str(Path(sys.executable).with_name(name)), *arguments]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning_study", description=__doc__)
    parser.add_argument("people", type=Path, help="folder with one folder of videos per action")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("build/fine_tuning_study"), help="for everything it writes")
    asked = parser.parse_args()
    os.nice(5)
    run(asked.people.absolute(), asked.folder.absolute(), epochs=asked.epochs, seeds=asked.seeds)


if __name__ == "__main__":
    main()
