"""As many workers as there is work for, placed by an engine: started at once, and gone once they had nothing to do.

Workers that are not needed any more end by themselves (`hpo-worker --exit-when-idle`): only they know that they hold no
trial, so that none is interrupted for being one too many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from ..errors import AuthenticationError, SetupError, StoreUnavailableError
from ..installation import EXIT_TOKEN, EXIT_USAGE
from .signals import asked_to_end
from .supervisor import Change, SlotState

MOST_UNSTARTED: Final = 8
"""So many placed workers in a row may be lost before one of them was heard of: then something is wrong with all."""

STEP_SECONDS: Final = 5.0
_ENDING_SECONDS: Final = 0.5

PlaceT = TypeVar("PlaceT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many workers there may be, and how many there are also without work."""

    most: int
    least: int = 0

    def wanted(self, trials_left: int) -> int:
        """Return how many workers that many trials are worth."""
        return max(self.least, min(self.most, trials_left))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a placed worker is doing, as what looks after it on its machine says."""

    host: str
    state: SlotState
    status: int | None = None
    """Exit status of its process that ended last."""
    is_leaving: bool = False
    """Whether it was asked to end, such as because its machine is being taken away."""
    changes: tuple[Change, ...] = ()
    """What happened since the report before."""
    said: str = ""
    """The end of its log, where it was given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A worker of which nothing will be heard any more."""

    why: str


class Engine(Protocol[PlaceT]):
    """Places workers on machines."""

    room: str
    """What one worker takes, for people: `1 GPU and 4 CPUs`."""

    def place(self, name: str, *, stays: bool) -> PlaceT:
        """Ask for the place of a worker, and start it there as soon as there is room.

        Args:
            stays: whether the worker stays also without work.
        """

    def look(self, places: Sequence[PlaceT]) -> Mapping[PlaceT, Report | Lost]:
        """Return what is new of these; nothing of those that wait for room."""

    def drain(self, place: PlaceT, *, at_once: bool) -> None:
        """Ask a worker to give its trial back and end; or to end at once."""

    def remove(self, place: PlaceT) -> None:
        """Give a place back, whatever is there."""


@dataclass(slots=True, kw_only=True)
class _Member(Generic[PlaceT]):
    name: str
    place: PlaceT
    stays: bool
    host: str | None = None
    """None while it waits for room."""
    is_leaving: bool = False
    is_broken: bool = False


class Fleet(Generic[PlaceT]):
    """The workers that were placed, and the rule that says how many there should be."""

    def __init__(
        self,
        engine: Engine[PlaceT],
        bounds: Bounds,
        *,
        trials_left: Callable[[], int],
        on_change: Callable[[Change], None],
    ) -> None:
        """Prepare; nothing is placed yet.

        Args:
            trials_left: returns how many trials are yet to end; raises `StoreUnavailableError` where that is not known.
            on_change: called with what happened.
        """
        self._engine = engine
        self._bounds = bounds
        self._trials_left = trials_left
        self._on_change = on_change
        self._members: list[_Member[PlaceT]] = []
        self._placed = 0
        self._unstarted = 0
        self._left: int | None = None
        self._is_answered = True
        self._is_ending = False
        self._said = ""

    @property
    def is_ending(self) -> bool:
        """Whether it was asked to end."""
        return self._is_ending

    @property
    def is_over(self) -> bool:
        """Whether the fleet was asked to end, and no worker is left but those that were given up."""
        return self._is_ending and all(member.is_broken for member in self._members)

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether the service said that no trial is left, and no worker is there."""
        return self._left == 0 and self._is_answered and all(member.is_broken for member in self._members)

    def step(self) -> None:
        """Hear the workers, ask what is left to do, and place or withdraw workers.

        Raises:
            SetupError: none of the workers can work, and why.
            AuthenticationError: the token of the workers is refused, or that of this program.
            PermissionDeniedError: the token of this program may not ask what is left to do.
        """
        found = self._engine.look([member.place for member in self._members])
        for member in list(self._members):
            if (news := found.get(member.place)) is not None:
                self._hear(member, news)
        if self._is_ending:
            return
        self._ask()
        self._fit()
        self._say()

    def drain(self) -> None:
        """Ask every worker to end, at once when asked again; none is placed any more."""
        at_once, self._is_ending = self._is_ending, True
        for member in list(self._members):
            if member.host is None:
                self._drop(member)
            else:
                self._engine.drain(member.place, at_once=at_once)

    def close(self) -> None:
        """Give all places back, whatever is there."""
        for member in list(self._members):
            self._drop(member)

    def _hear(self, member: _Member[PlaceT], news: Report | Lost) -> None:
        if isinstance(news, Lost):
            again = "" if self._is_ending or member.is_leaving else "; another takes its place"
            self._note(member, f"is lost: {news.why}{again}", is_fault=True)
            self._unstarted = self._unstarted + 1 if member.host is None else 0
            self._drop(member)
            if self._unstarted >= MOST_UNSTARTED:
                raise SetupError(f"{self._unstarted} workers in a row could not be started, the last since {news.why}")
            return
        member.host, self._unstarted = news.host, 0
        for change in news.changes:
            self._note(member, change.sentence, is_fault=change.is_fault)
        if news.is_leaving and not member.is_leaving:
            member.is_leaving = True
        if news.state == "ended":
            self._drop(member)
        elif news.state == "given up" and not member.is_broken:
            self._give_up(member, news)

    def _give_up(self, member: _Member[PlaceT], news: Report) -> None:
        """Keep the place of a worker that cannot work there: the engine would place the next one in the same."""
        said = f"; it said:\n{news.said}" if news.said else ""
        if news.status == EXIT_TOKEN:
            raise AuthenticationError(f"the token of the workers is refused{said}")
        if news.status == EXIT_USAGE:
            raise SetupError(f"the workers cannot start with these options{said}")
        if self._is_ending:
            self._drop(member)
            return
        member.is_broken = True
        self._note(member, f"keeps its place until the end, so that no other is put there{said}", is_fault=True)
        if (broken := sum(other.is_broken for other in self._members)) >= self._bounds.most:
            raise SetupError(f"{broken} workers were given up, as many as there may be: see what they said above")

    def _ask(self) -> None:
        try:
            self._left = self._trials_left()
        except StoreUnavailableError as error:
            if self._is_answered:
                self._on_change(
                    Change(worker="service", sentence=f"{error}; the workers stay as they are", is_fault=True)
                )
            self._is_answered = False
        else:
            if not self._is_answered:
                self._on_change(Change(worker="service", sentence="answers again"))
            self._is_answered = True

    def _fit(self) -> None:
        """Place the workers that are missing; withdraw those that are too many and wait for room."""
        if self._left is None:
            return
        counted = [member for member in self._members if not member.is_leaving and not member.is_broken]
        missing = self._bounds.wanted(self._left) - len(counted)
        staying = self._bounds.least - sum(member.stays for member in counted)
        for place in range(missing):
            self._placed += 1
            name, stays = f"worker-{self._placed}", place < staying
            self._members.append(_Member(name=name, place=self._engine.place(name, stays=stays), stays=stays))
        waiting = [member for member in counted if member.host is None and not member.stays]
        for member in waiting[::-1][: max(0, -missing)]:
            self._drop(member)

    def _say(self) -> None:
        """Say how many workers there are, if it is another sentence than before."""
        if self._left is None:
            return
        run = sum(member.host is not None and not member.is_broken for member in self._members)
        wait = sum(member.host is None for member in self._members)
        work = f"{self._left} trial{'s' * (self._left != 1)} left"
        room = f"; {wait} wait for room ({self._engine.room} each)" if wait else ""
        said = f"{run} worker{'s' * (run != 1)} at work{room}"
        if said != self._said:
            self._said = said
            self._on_change(Change(worker="fleet", sentence=f"{work}: {said}"))

    def _drop(self, member: _Member[PlaceT]) -> None:
        self._members.remove(member)
        self._engine.remove(member.place)

    def _note(self, member: _Member[PlaceT], sentence: str, *, is_fault: bool = False) -> None:
        where = "" if member.host is None else f" on {member.host}"
        self._on_change(Change(worker=f"{member.name}{where}", sentence=sentence, is_fault=is_fault))


def keep(fleet: Fleet[PlaceT], *, until_done: bool = False, step_seconds: float = STEP_SECONDS) -> None:
    """Keep a fleet until it was asked to end: SIGTERM or Ctrl-C drains the workers, a second one ends them at once.

    A third one leaves them to themselves, and so does an error: they end with what looks after them, and give their
    trials back. Only the main thread can call this.

    Args:
        until_done: also end as soon as no trial is left and every worker has ended.

    Raises:
        HpoError: as `Fleet.step`.
    """
    with asked_to_end() as signals:
        try:
            while not fleet.is_over and not (until_done and fleet.has_nothing_to_do):
                while (number := signals.take()) is not None:
                    if number > 2:
                        return
                    fleet.drain()
                fleet.step()
                signals.wait(_ENDING_SECONDS if fleet.is_ending else step_seconds)
        finally:
            fleet.close()
