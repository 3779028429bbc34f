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
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, reordering, line ends
    "\ud800-\udfff]"  # halves of characters, which no encoding can print
)


def plain(text: str) -> str:
    """Return `text` with each character that steers a terminal written as its escape, such as `\\x1b`.

    Tabs and line ends stay.
    """
    return _STEERING.sub(_escaped, text)


class PlainFormatter(logging.Formatter):
    """Formats lines of a log: nothing in them steers the terminal, or looks like a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line; those that follow in the same message are indented."""
        return super().formatMessage(record).replace("\n", "\n    ")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with its traceback."""
        return plain(super().format(record))


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")
