"""Workers on a Ray cluster: each is an actor in a placement group of its own, which waits until there is room for it.

A worker of several machines is an actor on each, in one placement group: the first leads, and the others follow it.

Groups that wait are what Ray's autoscaler sees: it adds nodes for them, and takes away those on which none is left.
`ray.autoscaler.sdk.request_resources` is not used: a cluster keeps one such request, which would replace another
program's, and outlive this one together with the nodes that it keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ..errors import SetupError
from .elastic import Lost, Report
from .ray_address import address_of, require_answer
from .ray_agent import Order, Room, WorkerAgent

ANSWER_SECONDS: Final = 1.0
"""How long the workers have for an answer to each look; later ones are read at the next."""


_HOW_TO_GET_IN: Final = (
    "One that asks for a token needs RAY_AUTH_MODE=token here too, with its RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
)


@dataclass(eq=False, slots=True)
class RayMember:
    """The actor that looks after a worker, or after a follower of one."""

    actor: Any
    asked: Any
    """What the actor was asked last; its answer comes once it runs."""
    report: Report | None = None
    """What it said last."""


@dataclass(eq=False, slots=True)
class RayPlace:
    """A place on a node, or in the queue for one."""

    group: PlacementGroup
    members: Sequence[RayMember]
    """One on each machine; the first leads."""
    is_drained: bool = False


class RayEngine:
    """Places workers on the cluster to which this program is connected."""

    def __init__(self, room: Room, order: Order, *, idle_seconds: float) -> None:
        """Prepare.

        Args:
            room: what each worker takes.
            order: what is ordered for each.
            idle_seconds: a worker that need not stay ends after this time without a trial.
        """
        self.room = str(room)
        self._room = room
        self._order = order
        self._leaving = ["--exit-when-idle", f"{idle_seconds:g}"]
        self._agent: Any = ray.remote(WorkerAgent)

    def place(self, name: str, *, stays: bool) -> RayPlace:
        """Ask for the place of a worker, and start it there as soon as there is room."""
        options = [*self._order.options, *([] if stays else self._leaving)]
        nodes = self._room.nodes
        group = placement_group(
            [self._room.bundle()] * nodes, strategy="STRICT_PACK" if nodes == 1 else "STRICT_SPREAD"
        )
        members: list[RayMember] = []
        meet = None
        for rank in range(nodes):
            order = replace(self._order, name=name, options=options, nodes=nodes, node_rank=rank)
            actor = self._agent.options(
                num_gpus=self._room.gpus,
                num_cpus=self._room.cpus,
                resources=dict(self._room.others),
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote(order, meet)
            members.append(RayMember(actor, actor.look.remote()))
            if rank == 0 and nodes > 1:
                meet = actor.meeting.remote()  # the others start when this is known
        return RayPlace(group, members)

    def look(self, places: Sequence[RayPlace]) -> Mapping[RayPlace, Report | Lost]:
        """Return what is new of these; nothing of those that wait for room."""
        if not places:
            return {}
        asked = [member.asked for place in places for member in place.members]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
        found = {}
        for place in places:
            news = {member: _read(member) for member in place.members if member.asked in answered}
            if (of_all := self._joined(place, news)) is not None:
                found[place] = of_all
        return found

    def _joined(self, place: RayPlace, news: Mapping[RayMember, Report | Lost | None]) -> Report | Lost | None:
        """Return what is new of a place: what its leader says, and of the followers what concerns all."""
        reports = []
        for member, one in news.items():
            if isinstance(one, Lost):
                return one
            if one is not None:
                member.report = one
                reports.append(one)
        leader, *followers = (member.report for member in place.members)
        if leader is None or not reports:
            return None
        known = [leader, *(one for one in followers if one is not None)]
        if not place.is_drained and any(one.is_leaving or one.state == "ended" for one in known[1:]):
            self.drain(place, at_once=False)  # a group is of just so many machines: another one takes its place
        broken = next((one for one in known if one.state == "given up"), None)
        return replace(
            broken or leader,
            host=leader.host,
            is_leaving=any(one.is_leaving for one in known),
            changes=tuple(change for one in reports for change in one.changes),
        )

    def drain(self, place: RayPlace, *, at_once: bool) -> None:
        """Ask a worker to give its trial back and end; or to end at once."""
        place.is_drained = True
        for member in place.members:
            member.actor.drain.remote(at_once=at_once)

    def remove(self, place: RayPlace) -> None:
        """Give a place back; a worker that is still there ends with the actor."""
        for member in place.members:
            ray.kill(member.actor)
        remove_placement_group(place.group)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to a cluster during the block.

    Args:
        address: of the cluster's head, `host:6379`; None for what `RAY_ADDRESS` says, else for one of this machine.

    Raises:
        SetupError: there is none, or it does not let this program in.
    """
    where = address_of(address)
    require_answer(where)
    try:
        ray.init(address=where, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise SetupError(_why_not_connected(where, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _read(member: RayMember) -> Report | Lost | None:
    """Return the answer of an actor, and ask it again."""
    try:
        news: Report | Lost | None = ray.get(member.asked)
    except ActorUnavailableError:  # its node does not answer for now
        news = None
    except RayError as error:
        return Lost(why=_why(error))
    member.asked = member.actor.look.remote()
    return news


def _why(error: RayError) -> str:
    """Return the sentences that matter of Ray's page: what was raised in the actor, or how the actor ended."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    if isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False):
        return lines[-1].strip()  # of a traceback
    return " ".join(lines[1:] or lines)


def _why_not_connected(where: str, error: Exception) -> str:
    if where == "auto":
        return (
            f"no Ray cluster of this machine could be reached ({_first_sentence(error)}): start one with "
            f"`ray start --head`, or give the address of a head with --address. {_HOW_TO_GET_IN}"
        )
    said = _first_sentence(error)
    return f"{where} answers, but not as a Ray cluster that lets this program in ({said}). {_HOW_TO_GET_IN}"


def _first_sentence(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
