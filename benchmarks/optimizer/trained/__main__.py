"""Command line: `python -m benchmarks.optimizer.trained make|pack|show|limits`."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..problems.problem import ProblemError
from ..problems.trained import TABLES_FOLDER, TRAINED, TrainedTable, pack
from . import limits
from .definitions import DEFINITIONS
from .make import Places, TableError, make
from .summary import HEADINGS, summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status after running the command line."""
    asked = _parser().parse_args(arguments)
    names = asked.names or TRAINED
    try:
        match asked.command:
            case "make":
                done = make(
                    [DEFINITIONS[name] for name in names],
                    Places(asked.rows, asked.videos),
                    command=f"python -m benchmarks.optimizer.trained make {' '.join(names)}",
                    workers=asked.workers,
                    limit=asked.limit,
                )
                print(f"{done} trainings done")
            case "pack":
                for name in names:
                    print(pack(asked.rows, name, asked.to))
            case "show":
                print(HEADINGS)
                for name in names:
                    print(summary(TrainedTable.read(name, asked.rows)))
            case "limits":
                print(limits.HEADINGS)
                for name in names:
                    print("\n".join(limits.limits(TrainedTable.read(name, asked.rows), draws=asked.draws)), flush=True)
    except (TableError, ProblemError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer.trained", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="do the trainings that have no row yet; hours, but it can be repeated")
    making.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    making.add_argument("--videos", type=Path, default=Path("build/trained"), help="folder of videos and frames")
    making.add_argument("--limit", type=int, help="stop after this many trainings")
    packing = commands.add_parser("pack", help="write the compressed files that git holds")
    packing.add_argument("--to", type=Path, default=TABLES_FOLDER, help="folder of the compressed files")
    showing = commands.add_parser("show", help="print figures of tables, finished or not")
    limiting = commands.add_parser("limits", help="print the regret of choices among configurations trained once")
    limiting.add_argument("--draws", type=int, default=100, help="of random configurations")
    for command in (making, packing, showing, limiting):
        command.add_argument(
            "names", nargs="*", type=_name, metavar="NAME", help=f"of {', '.join(TRAINED)}; default: all"
        )
        command.add_argument("--rows", type=Path, default=TABLES_FOLDER, help="folder of the rows")
    return parser


def _name(text: str) -> str:
    if text not in TRAINED:  # `choices` would refuse an empty list of names
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(TRAINED)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
