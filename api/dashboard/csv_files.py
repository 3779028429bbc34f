"""The table of a study as a CSV file: no cell of a worker runs in a spreadsheet or steers a terminal."""

from __future__ import annotations

import csv
import io
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from hpo.plain_text import spreadsheet_cell

PREFIX: Final = "/csv/"


def harmless(table: str) -> str:
    """Return a CSV file in which every cell is a number or plain text."""
    written = io.StringIO()
    rows = csv.reader(io.StringIO(table, newline=""))
    csv.writer(written).writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
    return written.getvalue()


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
