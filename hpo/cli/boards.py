"""Tables that fit the terminal: columns are left out before a value is cut."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Column, Table

from ..plain_text import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A column of a table: what stands in it, and how early it is given up where the terminal is narrow."""

    name: str
    cells: list[str]
    rank: int
    """0 stays always; of the others, the highest go first."""

    @property
    def width(self) -> int:
        """Characters that the widest cell takes."""
        return max(cell_len(plain(text)) for text in (self.name, *self.cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A table whose columns are given up one by one where the terminal is narrow."""

    columns: list[Fitted]

    def fitting(self, width: int | None) -> list[Fitted]:
        """Return the columns that fit into `width` characters whole, all of them where it is None."""
        if width is None:
            return self.columns
        kept: set[str] = set()
        # A frame has a line at the left, and each column two spaces and a line.
        left = width - 1
        for column in sorted(self.columns, key=lambda column: column.rank):
            needed = column.width + 3
            if column.rank == 0 or needed <= left:
                kept.add(column.name)
                left -= needed
        return [column for column in self.columns if column.name in kept]

    def table(self, width: int | None = None) -> Table:
        """Return the table in at most `width` characters: columns are left out before a value is cut."""
        shown = self.fitting(width)
        table = Table(*(Column(column.name, no_wrap=True) for column in shown))
        for row in zip(*(column.cells for column in shown), strict=True):
            table.add_row(*row)
        return table

    def left_out(self, width: int | None) -> list[str]:
        """Return the names of the columns that do not fit."""
        kept = {column.name for column in self.fitting(width)}
        return [column.name for column in self.columns if column.name not in kept]
