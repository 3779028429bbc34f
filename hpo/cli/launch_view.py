"""What `hpo launch local` shows: a table that is drawn anew in a terminal, else a line for each change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from rich.live import Live
from rich.table import Table

from ..launch.supervisor import Change, Slot, last_line
from ..launch.watch import WorkerWatch
from .app import err, out
from .workers import state_of, trial_of

_DRAWN_A_SECOND: Final = 2.0


class Lines:
    """Prints what changes: a worker starts or ends, and which trial it trains."""

    def __init__(self, slots: Sequence[Slot], watch: WorkerWatch) -> None:
        self._slots = slots
        self._watch = watch
        self._trains: dict[str, str] = {}

    def shown(self) -> AbstractContextManager[None]:
        """Return a context to run the workers in."""
        return nullcontext()

    def change(self, change: Change) -> None:
        """Print what happened to a worker."""
        (err if change.is_fault else out).print(f"{change.worker}: {change.sentence}")

    def look(self) -> None:
        """Print which trials are new."""
        for slot in self._slots:
            worker = self._watch.worker(slot.pid)
            if worker is None or worker["trial_id"] is None:
                continue
            trial = f"trial {worker['trial_number']} of {worker['trial_study']}"
            if self._trains.get(slot.command.name) != trial:
                self._trains[slot.command.name] = trial
                out.print(f"{slot.command.name}: trains {trial}")


class LiveTable:
    """Draws the table of all workers over itself; above it stays what went wrong."""

    def __init__(self, slots: Sequence[Slot], watch: WorkerWatch) -> None:
        self._slots = slots
        self._watch = watch

    def shown(self) -> Live:
        """Return a context in which the table is drawn."""
        return Live(console=out, get_renderable=self.table, refresh_per_second=_DRAWN_A_SECOND)

    def change(self, change: Change) -> None:
        """Print above the table what went wrong; the rest the table says."""
        if change.is_fault:
            out.print(f"{change.worker}: {change.sentence}")

    def look(self) -> None:
        """Do nothing: the table is drawn by a thread of its own."""

    def table(self) -> Table:
        """Return the table as of now."""
        table = Table("worker", "pid", "state", "restarts", "last line of its log", caption=self._watch.problem)
        for slot in self._slots:
            pid = "" if slot.pid is None else str(slot.pid)
            table.add_row(slot.command.name, pid, self._state(slot), str(slot.restarts), last_line(slot.log))
        return table

    def _state(self, slot: Slot) -> str:
        worker = self._watch.worker(slot.pid)
        if worker is None or slot.state != "running":
            return slot.state
        return trial_of(worker) if worker["trial_id"] is not None and worker["alive"] else state_of(worker)
