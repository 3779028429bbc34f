"""Measure on a GPU what docs/gpu.md leaves open, in one call of eight minutes: `python -m benchmarks.gpu`.

The parts run one after another, each in a process of its own and within its share of the time: a part that fails, or
takes too long, leaves the results of the others and its own rows so far. Each row is printed and written as JSON when
it is there, so that what ends this program costs none; at the end a table is printed. What a part leaves of its time
goes to those after it. Nothing is downloaded, and only the part `study` needs Postgres.

    python -m benchmarks.gpu [--json gpu.json] [--parts speed,loader] [--minutes 8]
    python -m benchmarks.gpu --cpu --tiny        # tests this program: networks and clips are tiny

Ends with status 1 if a check of a part that ran failed. A part that could not run is named in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Something to measure."""

    name: str
    share: float
    """Of the time for all parts."""


PARTS: Final = (
    Part("convolutions", 0.12),
    Part("speed", 0.28),
    Part("loader", 0.10),
    Part("memory", 0.10),
    Part("determinism", 0.05),
    Part("study", 0.20),
    Part("compiled", 0.15),
)
"""The last one takes as long as it may: a minute for each way to compile a network."""
_START_SECONDS: Final = 20.0
"""What a part may take longer than its share, to begin and to end its last row."""

_END_SECONDS: Final = 10.0
"""What it takes to end what runs, and to print the table."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="measure the CPU")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and clips")
    parser.add_argument("--parts", default=",".join(part.name for part in PARTS), help="with commas")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="file to write")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a process of this program measures
    options = parser.parse_args()
    if options.one is not None:
        _run_one(options.one, cpu=options.cpu, tiny=options.tiny, seconds=60 * options.minutes)
        return
    wanted = options.parts.split(",")
    if unknown := set(wanted) - {part.name for part in PARTS}:
        parser.error(f"not known: {', '.join(sorted(unknown))}")
    parts = [part for part in PARTS if part.name in wanted]
    flags = [flag for flag, given in (("--cpu", options.cpu), ("--tiny", options.tiny)) if given]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what has been started ends then too
    found: dict[str, Any] = {}
    try:
        measured(parts, flags, seconds=60 * options.minutes, into=found, file=options.json)
    finally:
        print(*table(found), sep="\n", flush=True)
    sys.exit(1 if any(row.get("right") is False for part in found.values() for row in part["rows"]) else 0)


def measured(parts: list[Part], flags: list[str], *, seconds: float, into: dict[str, Any], file: Path) -> None:
    """Measure the parts, which have so many seconds together: their rows, and how each ended.

    Args:
        into: takes what is found, as it comes.
        file: the same, as JSON.
    """
    ends = time.monotonic() + seconds - _END_SECONDS
    for number, part in enumerate(parts):
        left = ends - time.monotonic()
        own = left * part.share / sum(later.share for later in parts[number:])
        print(f"{part.name}: up to {own:.0f} s", file=sys.stderr, flush=True)
        found = into[part.name] = {"seconds": 0.0, "ended": "was under way", "rows": []}
        began = time.monotonic()
        with contextlib.closing(
            _in_a_process(part, flags, own, most=min(own + _START_SECONDS, left), found=found)
        ) as rows:  # which ends what it has started, whatever ends this program
            for row in rows:
                print(json.dumps({"part": part.name, **row}), file=sys.stderr, flush=True)
                found["rows"].append(row)
                found["seconds"] = round(time.monotonic() - began, 1)
                _write(file, into)
        found["seconds"] = round(time.monotonic() - began, 1)
        _write(file, into)


def _write(file: Path, found: dict[str, Any]) -> None:
    """Write all that is known, in one step: what ends this program leaves a whole file."""
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(json.dumps(found, indent=1) + "\n")
    beside.replace(file)


def _in_a_process(
    part: Part, flags: list[str], seconds: float, *, most: float, found: dict[str, Any]
) -> Generator[Row, None, None]:
    """Yield the rows of a part as they come, and say in `found` how it ended; after `most` seconds it is ended."""
    within = max(1.0, min(seconds, most) - _START_SECONDS)
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", part.name, "--minutes", str(within / 60), *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - they are pipes
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        reader.start()
        limit = threading.Timer(max(1.0, most), _end_all, [process])
        limit.start()
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    with contextlib.suppress(ValueError):  # half a line of a part that was ended
                        yield json.loads(line)
            process.wait()
        finally:
            limit.cancel()
            _end_all(process)
        reader.join(5)
    found["ended"] = (
        "done" if process.returncode == 0 else f"ended with status {process.returncode}: {''.join(errors)[-600:]}"
    )


def _end_all(process: subprocess.Popen[str]) -> None:
    """End a part with what it has started, which has its output too: until that is closed, the part is not over."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, signal.SIGKILL)


def _run_one(name: str, *, cpu: bool, tiny: bool, seconds: float) -> None:
    """Print the rows of one part, a line of JSON each."""
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    import torch

    from .gpu_speed import Place

    device = torch.device("cpu" if cpu else "cuda")
    place = Place(device=device, tiny=tiny, deadline=time.monotonic() + seconds)
    if not cpu:
        facts = torch.cuda.get_device_properties(0)
        print(json.dumps({"what": facts.name, "torch": torch.__version__, "cuda": torch.version.cuda}), flush=True)
    for row in _rows_of(name)(place):
        print(json.dumps(row), flush=True)


def _rows_of(name: str) -> Callable[[Any], Iterator[Row]]:
    from . import gpu_speed

    if name == "memory":
        return _memory
    if name == "study":
        from .gpu_study import study

        return study
    chosen: Callable[[Any], Iterator[Row]] = getattr(gpu_speed, name)
    return chosen


def _memory(place: Any) -> Iterator[Row]:
    from .gpu_memory import rows
    from .gpu_speed import whatever_fails

    for model in ("r3d_18",) if place.tiny else ("slowfast_r50_4x16", "mvit_v2_s"):
        if place.is_over:
            yield {"model": model, "skipped": "the time is over"}
            continue
        yield from whatever_fails({"model": model}, rows([model], device=place.device, updates=1 if place.tiny else 3))


def table(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of everything, in Markdown."""
    yield "| part | what | measured |"
    yield "| --- | --- | --- |"
    for name, part in found.items():
        yield f"| **{name}** | {part['seconds']} s | {part['ended'].splitlines()[0]} |"
        for row in part["rows"]:
            what = " ".join(str(row[key]) for key in ("what", "model", "how", "format", "precision") if key in row)
            rest = ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
                if key not in ("what", "model", "how", "format", "precision")
            )
            yield f"| {name} | {what} | {rest} |"


if __name__ == "__main__":
    main()
