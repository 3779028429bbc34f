"""The table of a study as a CSV file: what workers wrote into it neither runs in a spreadsheet nor steers a terminal.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, which can start programs and send other
cells to another site; behind an apostrophe it is text.
"""

from __future__ import annotations

import csv
import io
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from hpo.plain_text import plain

PREFIX: Final = "/csv/"
_FORMULA: Final = ("=", "+", "-", "@", "\t")


def harmless(table: str) -> str:
    """Return a CSV file in which every cell is a number or plain text."""
    written = io.StringIO()
    csv.writer(written).writerows([_cell(cell) for cell in row] for row in csv.reader(io.StringIO(table, newline="")))
    return written.getvalue()


def _cell(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return f"'{plain(text)}" if text.lstrip(" \n").startswith(_FORMULA) else plain(text)
    return text


def with_harmless_cells(send: Send) -> Send:
    """Pass an answer on, and a CSV file once it is whole and harmless."""
    start: Message | None = None
    body = bytearray()

    async def guarded(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and _is_table(message):
            start = message
        elif start is None:
            await send(message)
        else:
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                content = harmless(body.decode("utf-8", "replace")).encode()
                MutableHeaders(scope=start)["Content-Length"] = str(len(content))
                await send(start)
                await send({"type": "http.response.body", "body": content})

    return guarded


def _is_table(message: Message) -> bool:
    return MutableHeaders(scope=message).get("content-type", "").startswith("text/csv")
