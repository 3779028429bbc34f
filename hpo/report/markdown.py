"""A report as Markdown: the same sections as the page, without the figures, for an issue, a wiki or an e-mail."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Final

from .findings import Findings
from .material import Material
from .page import sections

_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|#~])")


def render_markdown(material: Material, findings: Findings) -> str:
    """Return the report. What others wrote is text there, and never markup."""
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [f"# Study {_escaped(material.name)}", f"Report made {made} by video-hpo."]
    for section in sections(material, findings):
        writer = _Writer()
        writer.feed(section.body)
        writer.close()
        parts += [f"## {section.title}", *writer.blocks]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


class _Writer(HTMLParser):
    """Turns the few tags of our sections into blocks of Markdown."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self._text = ""
        self._open: list[str] = []
        self._items: list[str] = []
        self._rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a block, an item, a row or a cell."""
        if tag == "br":
            return
        self._open.append(tag)
        if tag == "tr":
            self._rows.append([])
        elif tag == "code":
            self._text += "`"
        elif tag != "strong":
            self._text = ""

    def handle_endtag(self, tag: str) -> None:
        """Write down what has ended."""
        self._open.pop()
        text = self._text.strip()
        if tag == "code":
            self._text += "`"
        elif tag == "p":
            self.blocks.append(text)
        elif tag == "h3":
            self.blocks.append(f"### {text}")
        elif tag == "li":
            self._items.append(f"- {text}")
        elif tag == "ul":
            self.blocks.append("\n".join(self._items))
            self._items = []
        elif tag in ("td", "th"):
            self._rows[-1].append(text)
        elif tag == "table":
            head, *rows = ["| " + " | ".join(row) + " |" for row in self._rows]
            self.blocks.append("\n".join([head, "|" + " --- |" * len(self._rows[0]), *rows]))
            self._rows = []
        elif tag == "pre":
            longest = max(map(len, re.findall("`+", self._text)), default=0)
            fence = "`" * max(3, longest + 1)
            self.blocks.append(f"{fence}\n{self._text.strip(chr(10))}\n{fence}")

    def handle_data(self, data: str) -> None:
        """Take text; that of figures and scripts is left out."""
        if {"script", "figure"} & set(self._open):
            return
        if "pre" in self._open:
            self._text += data
        elif self._open[-1:] == ["code"]:
            self._text += data.replace("`", "'")
        else:
            self._text += _SPECIAL.sub(r"\\\1", re.sub(r"\s+", " ", data))
