"""What others wrote does not steer a terminal, in a table, a line or a log."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata

import pytest
from rich.table import Table

from hpo.cli.app import PlainConsole
from hpo.plain_text import PlainFormatter, plain

HOSTILE = "a\x1b[2J\x1b]52;c;aGk=\x07b\x9b31mc\u202etxt.exe\r[/boom][red]x[/] :warning:"
SHOWN = r"a\x1b[2J\x1b]52;c;aGk=\x07b\x9b31mc\u202etxt.exe\r[/boom][red]x[/] :warning:"


def test_what_steers_a_terminal_becomes_its_escape_and_the_rest_stays() -> None:
    assert plain(HOSTILE) == SHOWN
    ordinary = "tab\tline\nnaïve Ω 漢字 🎥 é"
    assert plain(ordinary) == ordinary


def test_every_control_character_but_tab_and_line_end_is_visible() -> None:
    """By Unicode's own categories: controls, formats, halves of pairs, ends of lines and paragraphs."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    steering = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in kinds]
    steering += "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # these are letters and marks by category, and invisible
    assert [c for c in steering if plain(c) == c] == ["\t", "\n"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_tables_and_lines_of_the_command_show_it_as_it_is(is_terminal: bool) -> None:
    console = PlainConsole(width=300)
    console.file, console._force_terminal = io.StringIO(), is_terminal
    table = Table("worker")
    table.add_row(HOSTILE)
    console.print(HOSTILE)
    console.print(table)
    said = console.file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")  # the heading is bold
    assert said.count(SHOWN) == 2
    assert "\x1b" not in said


def test_a_log_has_one_line_for_each_record() -> None:
    try:
        raise ValueError(f"{HOSTILE}\n12:00 INFO forged")
    except ValueError:
        failure = sys.exc_info()
    record = logging.LogRecord("x", logging.INFO, "f", 1, "worker %s\n12:00 INFO forged", (HOSTILE,), failure)
    lines = PlainFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert lines[:3] == [f"INFO worker {SHOWN}", "    12:00 INFO forged", "    Traceback (most recent call last):"]
    assert lines[-2:] == [f"    ValueError: {SHOWN}", "    12:00 INFO forged"]
