"""Text of others for a terminal: what would steer the terminal becomes visible.

Names, messages and logs of workers may hold anything. An escape code could clear the screen, write into the clipboard
or turn one command into another; characters that reorder text could show a name that it is not.
"""

from __future__ import annotations

import logging
import re
from typing import Final

_STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and line end
    "\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # invisible
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"  # invisible, reordering, line ends
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ud800-\udfff]"  # halves of characters, which no encoding can print
)

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are full-width forms, which spreadsheets take for the same."""


def plain(text: str) -> str:
    """Return `text` with each character that steers a terminal written as its escape, such as `\\x1b`.

    Tabs and line ends stay.
    """
    return _STEERING.sub(_escaped, text)


def spreadsheet_cell(text: str) -> str:
    """Return `text` so that it neither runs in a spreadsheet nor steers a terminal; numbers stay as they are.

    A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, which can start programs and send
    other cells to another site; behind an apostrophe it is text.
    """
    try:
        float(text)
    except ValueError:
        return f"'{plain(text)}" if text.lstrip(" \n").startswith(_FORMULA) else plain(text)
    return text


class PlainFormatter(logging.Formatter):
    """Formats lines of a log: nothing in them steers the terminal, or looks like a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; those that follow in the same record, such as its traceback, are indented."""
        return plain(super().format(record)).replace("\n", "\n    ")


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")
