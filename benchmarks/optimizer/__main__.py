"""Command line: `python -m benchmarks.optimizer run|report|pack|reference|quick|answer|list`."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from .answer import add_options as add_answer_options
from .answer import compare
from .methods import METHODS
from .plan import METHODS_OF, Selection
from .problems import NAMES, SHARED_DATA, TABLES_FOLDER, ProblemMissing, load_problem
from .protocols import PROBLEMS_OF
from .quick import add_options, quick
from .reference import compute_reference, save_reference
from .rows import RESULTS, Rows
from .run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status after running the command line."""
    asked = _parser().parse_args(arguments)
    warnings.simplefilter("ignore")
    match asked.command:
        case "run":
            return _run(asked)
        case "report":
            # Plots are only drawn here.
            from .report import write_report

            print(write_report(Rows(asked.results), asked.out, scramble=asked.scramble, score=asked.score))
        case "pack":
            print("\n".join(Rows(asked.results).pack()) or "nothing to pack")
        case "reference":
            return _references(asked)
        case "quick":
            quick(asked)
        case "answer":
            compare(asked)
        case "list":
            for protocol, problems in PROBLEMS_OF.items():
                print(f"{protocol}: {', '.join(problems)}\n    by {', '.join(METHODS_OF.get(protocol, METHODS))}")
    return 0


def _run(asked: argparse.Namespace) -> int:
    selection = Selection(
        protocols=asked.protocols, problems=asked.problems, methods=asked.methods, seeds=asked.seeds,
        scramble=asked.scramble,
    )  # fmt: skip
    failures = run(
        selection, rows=Rows(asked.results), data=asked.yahpo, tables=asked.tables, keep_old=asked.keep_old,
        limit=asked.limit,
    )  # fmt: skip
    return 1 if failures else 0


def _references(asked: argparse.Namespace) -> int:
    for name in asked.problems or NAMES:
        try:
            problem = load_problem(name, data=asked.yahpo, tables=asked.tables)
        except ProblemMissing as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        found = compute_reference(problem)
        save_reference(name, found)
        print(name, found)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="do the runs that have no row yet")
    runs.add_argument("--protocols", nargs="*", default=[], choices=[*PROBLEMS_OF], metavar="PROTOCOL")
    runs.add_argument("--methods", nargs="*", default=[], choices=METHODS, metavar="METHOD")
    runs.add_argument("--seeds", type=seeds_of, default=[], help="such as 0-19 or 0,3,5; default: each method's own")
    runs.add_argument("--keep-old", action="store_true", help="count the rows of older versions as done")
    runs.add_argument("--limit", type=int, help="stop after this many runs")
    report = commands.add_parser("report", help="write the table and the plots from the rows that are there")
    report.add_argument("--out", type=Path, default=RESULTS.with_name("report"))
    report.add_argument(
        "--score", choices=["tried", "incumbent"], default="tried", help="what regret is of; see README"
    )
    pack = commands.add_parser("pack", help="move new rows into the compressed files that git holds")
    reference = commands.add_parser("reference", help="compute references.json anew")
    fast = commands.add_parser("quick", help="do a few runs of the simulated service and print a summary")
    fast.add_argument("--seeds", type=seeds_of, default=range(10), help="such as 0-19 or 0,3,5")
    add_options(fast)
    answers = commands.add_parser("answer", help="compare choices of the best trial, and what is told of them")
    answers.add_argument("--seeds", type=seeds_of, default=range(20), help="such as 0-19 or 0,3,5")
    add_answer_options(answers)
    commands.add_parser("list", help="list protocols, problems and methods")
    for command in (runs, report, pack):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows")
    for command in (runs, report):
        command.add_argument("--scramble", type=int, help="relabelled choices and reflected dimensions, by this seed")
    for command in (runs, reference):
        command.add_argument("--problems", nargs="*", default=[], choices=NAMES, metavar="PROBLEM")
        command.add_argument("--yahpo", type=Path, default=SHARED_DATA, help="folder of the YAHPO surrogates")
    for command in (runs, reference, fast, answers):
        command.add_argument("--tables", type=Path, default=TABLES_FOLDER, help="folder of the tables of trainings")
    return parser


def seeds_of(text: str) -> list[int]:
    """Return the seeds that a text such as `0-19` or `0,3,5` names."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


if __name__ == "__main__":
    sys.exit(main())
