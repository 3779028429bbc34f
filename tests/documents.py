"""Code blocks of the documents, with what is said in front of them about how they are run.

A block is fenced and names its language. `title="FILE"` is the file that a reader writes it to. Comments right in
front of it, which a reader of the page does not see, say what differs where it is tried:

    <!-- not run: needs a GPU -->           the reason why it is not
    <!-- run by tests/unit/test_one.py -->   another test runs it
    <!-- run with 12 -> 2 -->                a text that is replaced first, to make it smaller
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conftest import CHECKOUT

DOCUMENTS: Final = tuple(
    str(path.relative_to(CHECKOUT))
    for pattern in ("*.md", "docs/**/*.md", "docker/**/*.md", "benchmarks/**/README.md")
    for path in sorted(CHECKOUT.glob(pattern))
)
"""Every document that people read, from the checkout on."""

_FENCE: Final = re.compile(r"^( *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?$")
_COMMENT: Final = re.compile(r"^ *<!-- (.*) -->$")
_CHANGE: Final = re.compile(r"run with (.+?) -> (.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    title: str | None
    text: str
    notes: tuple[str, ...]
    """The comments in front of it, without their marks."""

    @property
    def place(self) -> str:
        """Return where it begins, for messages."""
        return f"{self.document}:{self.line}"

    @property
    def reason(self) -> str | None:
        """Return why it is not run; None where it is."""
        return self._noted("not run: ")

    @property
    def elsewhere(self) -> str | None:
        """Return the test that runs it in place of those of the pages; None where there is no such test."""
        return self._noted("run by ")

    @property
    def changes(self) -> tuple[tuple[str, str], ...]:
        """Return the texts that are replaced before it is run, each with what takes its place."""
        return tuple((found[1], found[2]) for note in self.notes if (found := _CHANGE.fullmatch(note)))

    @property
    def as_run(self) -> str:
        """Return the text with all changes."""
        text = self.text
        for old, new in self.changes:
            text = text.replace(old, new)
        return text

    def _noted(self, head: str) -> str | None:
        return next((note.removeprefix(head) for note in self.notes if note.startswith(head)), None)


def blocks(document: str, *languages: str) -> list[Block]:
    """Return the fenced blocks of a document in order: all, or those of some languages."""
    return [block for block in _blocks(document) if not languages or block.language in languages]


def _blocks(document: str) -> Iterator[Block]:
    lines = (CHECKOUT / document).read_text(encoding="utf-8").splitlines()
    notes: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        if fence := _FENCE.match(line):
            end = lines.index(f"{fence[1]}```", number + 1)
            yield Block(
                document=document,
                line=number + 1,
                language=fence["language"],
                title=fence["title"],
                text="".join(f"{inner.removeprefix(fence[1])}\n" for inner in lines[number + 1 : end]),
                notes=tuple(notes),
            )
            number, notes = end, []
        elif comment := _COMMENT.match(line):
            notes.append(comment[1])
        elif line.strip():
            notes = []
        number += 1


def indented(document: str) -> list[str]:
    """Return the lines that Markdown takes for code because of their four spaces, with their numbers."""
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    plain = re.sub(r"^( *)```.*?^\1```$", lambda found: "x" + "\n" * found[0].count("\n"), text, flags=re.M | re.S)
    lines = plain.splitlines()
    return [
        f"{document}:{number}: {line}"
        for number, line in enumerate(lines[1:], start=2)
        if line.startswith("    ") and not lines[number - 2].strip() and not _in_a_list(lines, number - 2)
    ]


def _in_a_list(lines: list[str], before: int) -> bool:
    """Return whether the last text that is not indented, in front of line `before`, is an item of a list."""
    last = next((line for line in reversed(lines[:before]) if line.strip() and not line.startswith("  ")), "")
    return re.match(r"[-*] |\d+\. ", last) is not None


def path_of(document: str) -> Path:
    """Return where a document lies."""
    return CHECKOUT / document
