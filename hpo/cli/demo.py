"""`hpo demo`: a whole study, from generated videos to the final test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.live import Live
from rich.markup import escape

from ..errors import HpoError, SetupError
from ..installation import child_environment, in_background, program_path
from ..settings import Settings, read_server_file
from .app import app, err, out, written_to
from .datasets import DEMO_VIDEOS, progress_bar
from .leaderboard import leaderboard
from .results import answer_of, write_export
from .serve import make_home

if TYPE_CHECKING:
    from ..client.http import Client

NAME: Final = "demo"
POLL_SECONDS: Final = 0.5
START_SECONDS: Final = 120.0
PATIENCE_SECONDS: Final = 90.0
"""For how long the database may be away: the service starts it again."""


def demo_spec(root: Path, *, name: str = NAME, trials: int = 12) -> dict[str, Any]:
    """Return the spec of the demo: two small model families on motion-only videos, sized for two CPU cores."""
    return {
        "name": name,
        "objectives": [{"metric": "val_top1", "direction": "maximize"}],
        "task": {
            "dataset": {"name": "ucf101", "root": str(root), "split": 1, "short_side": 40},
            "epochs": 12,
            "base": {
                "batch_size": 8,
                # With SGD, the seed of so short a training matters more than its learning rate.
                "optimizer": "adamw",
                "model.width": 8,
                "clip": {"frames": 16, "size": 32},
                # Left and right are classes here, so clips must not be flipped.
                "augment": {"flip": 0.0, "scale_min": 0.8},
            },
        },
        "space": {
            "model": {"type": "categorical", "choices": ["slowfast_r18", "r2plus1d_18"]},
            "lr": {"type": "float", "low": 1e-4, "high": 0.03, "log": True},
            "weight_decay": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "clip.stride": {"type": "int", "low": 1, "high": 3},
            "model.width": {"type": "ordinal", "choices": [8, 16], "when": {"model": ["slowfast_r18"]}},
            "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r18"]}},
            "model.beta_inv": {"type": "ordinal", "choices": [2, 4], "when": {"model": ["slowfast_r18"]}},
        },
        "optimizer": {"name": "ax", "seed": 0},
        # When a training leaves chance varies by several epochs from seed to seed: before 8, an epoch says little.
        "early_stopping": {"name": "median", "min_epochs": 8, "startup_trials": 3},
        "budget": {"trials": trials},
    }


@app.command()
def demo(
    home: Annotated[Path, typer.Option("--home", help="Data directory of the demo.")] = Path(".demo"),
    trials: Annotated[int, typer.Option(help="Trials of the study.", min=1)] = 12,
    serve_on: Annotated[
        bool | None,
        typer.Option("--serve/--no-serve", help="Keep the dashboard running afterwards (default: in a terminal)."),
    ] = None,
) -> None:
    """Run a whole study on generated videos: data, service, workers, optimizer, export, final test."""
    from ..client.creating import create_new_study

    settings = Settings(home=home.absolute())
    make_home(settings)
    root = make_videos(settings)
    with ExitStack() as stack:
        client = stack.enter_context(running_service(settings))
        study = client.run(create_new_study(demo_spec(root, name=_free_name(client), trials=trials)))
        workers = stack.enter_context(running_workers(settings, client.url, study["name"]))
        started = time.monotonic()
        watch_study(client, study, workers)
        took = time.monotonic() - started
        _conclude(client, settings, study, took)
        if serve_on if serve_on is not None else sys.stdout.isatty() and sys.stdin.isatty():
            out.print("The dashboard keeps running until you press Ctrl-C.")
            _wait_for_interrupt()


def make_videos(settings: Settings) -> Path:
    """Make the videos of the demo in its data directory, and return their folder."""
    from data.synthetic.dataset import make_demo_dataset

    root = settings.home / "videos"
    with written_to(root), progress_bar() as bar:
        make_demo_dataset(root, **DEMO_VIDEOS, progress=bar)
    count = sum(1 for _ in root.rglob("*.avi"))
    out.print(
        f"[bold]1. Videos[/]   {count} encoded clips whose classes differ in motion alone: {escape(str(root))}",
        markup=True,
    )
    return root


@contextmanager
def running_service(settings: Settings) -> Iterator[Client]:
    """Yield a client of a service that runs over the data directory of the demo while the block does."""
    from ..client.http import Client

    with _process(settings, "serve", ["serve", "--port", "0"]) as process:
        served = partial(read_server_file, settings.server_file)
        _wait_until(lambda: served() is not None, process, settings.home / "serve.log")
        url = address.url if (address := served()) else settings.api_url
        token = settings.token_file.read_text().strip()
        with Client(url, token, server_file=settings.server_file, patience_seconds=PATIENCE_SECONDS) as client:
            out.print(f"[bold]2. Service[/]  {client.url} (Postgres, API, optimizer, dashboard)", markup=True)
            yield client


def _served(settings: Settings, client: Client) -> Settings:
    """Return the settings of a command that finds the service of the demo, wherever the environment points."""
    token = settings.token_file.read_text().strip()
    return replace(settings, api_url=client.url, proving_file=settings.server_file, token=token)


@contextmanager
def running_workers(settings: Settings, url: str, study: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield the workers of a study, one for each GPU or, without any, each core up to four, while the block runs."""
    devices, processes = _devices(), []
    with ExitStack() as stack:
        for number, device in enumerate(devices):
            arguments = [*device, "--study", study, "--url", url, "--name", f"worker-{number}"]
            process = _process(settings, f"worker-{number}", arguments, program="hpo-worker")
            processes.append(stack.enter_context(process))
        names = ", ".join("hpo-worker " + " ".join(device) for device in devices)
        out.print(f"[bold]3. Workers[/]  {escape(names)}", markup=True)
        yield processes


def _devices() -> list[list[str]]:
    import torch

    if torch.cuda.is_available():
        return [["--gpu", str(index)] for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0))
    return [["--cpu", "--threads", "1"]] * max(1, min(cores, 4))


def watch_study(client: Client, study: Mapping[str, Any], workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Show the trials until the study ends.

    Raises:
        HpoError: the workers have died, or the study was paused or has failed because its trials cannot run.
    """
    out.print(f"[bold]4. Study[/]    {study['name']}: {study['spec']['budget']['trials']} trials", markup=True)
    seen: dict[int, str] = {}
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while (state := client.study(study["name"]))["state"] == "active":
            if all(worker.poll() is not None for worker in workers):
                raise HpoError("all workers have ended: see worker-*.log in the data directory of the demo")
            found = client.trials(study["name"])
            if out.is_terminal:
                answer = answer_of(client, study["name"])
                live.update(leaderboard(found, study["spec"], answer).table(out.width), refresh=True)
            else:
                _print_changes(found, seen)
            time.sleep(POLL_SECONDS)
    if state["state"] in ("paused", "failed"):
        how = "was paused" if state["state"] == "paused" else "has failed"
        raise HpoError(f"the study {how}: {state['state_reason']}")
    if not out.is_terminal:
        _print_changes(client.trials(study["name"]), seen)


def _print_changes(found: Sequence[Mapping[str, Any]], seen: dict[int, str]) -> None:
    """Print a line for each trial whose state or epoch changed, for outputs that are not a terminal."""
    for trial in found:
        metrics = trial.get("metrics") or trial.get("last_metrics") or {}
        score = f", val_top1 {metrics['val_top1']:.3f}" if "val_top1" in metrics else ""
        line = f"   trial {trial['number']:>2} {trial['state']}, epoch {trial['epochs_done']}{score}"
        if trial["state"] != "suggested" and seen.get(trial["number"]) != line:
            seen[trial["number"]] = line
            out.print(line)


def _conclude(client: Client, settings: Settings, study: Mapping[str, Any], took: float) -> None:
    from ..results.evidence import Evidence
    from .evaluate import print_evaluation

    state = client.study(study["name"])
    board = leaderboard(client.trials(study["name"]), study["spec"], answer_of(client, study["name"]))
    out.print(board.table(out.width))
    for line in Evidence.model_validate(client.best(study["name"])["evidence"]).lines():
        out.print(line)
    out.print(f"The study took {took:.0f} s and is {state['state']}.")
    best_file = settings.home / "best.yaml"
    checkpoint = write_export(client.export(study["name"]), best_file, [settings.checkpoint_dir])
    if checkpoint is None:
        raise HpoError(f"the best trial has no checkpoint: see the workers' logs in {settings.home}")
    # With the address and the token of the service, which keeps the record of the opening.
    print_evaluation(best_file, _served(settings, client), again=True)  # the data are generated: nobody is misled
    out.print(f"[bold]Dashboard[/]  {escape(client.login_link())}   (logs in once)", markup=True)
    out.print(f"To come back later: hpo --home {settings.home} serve")


def _free_name(client: Client) -> str:
    taken = {study["name"] for study in client.studies()}
    names = (NAME if number == 1 else f"{NAME}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


@contextmanager
def _process(
    settings: Settings, name: str, arguments: Sequence[str], *, program: str = "hpo"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our commands in the background until the block ends; its output goes to a log file."""
    environment = {**child_environment(), "HPO_HOME": str(settings.home)}
    environment.pop("HPO_URL", None)  # the demo uses its own database and API
    command = [program_path(program), *arguments]
    with in_background(command, log=settings.home / f"{name}.log", environment=environment) as process:
        yield process


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            err.print(log.read_text()[-2000:])
            raise SetupError(f"`hpo serve` did not start: see its log, {log}")
        time.sleep(0.1)


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        out.print("stopping")
