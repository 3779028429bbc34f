"""Claims that wait: woken by a call, and by the clock while nothing is heard."""

from __future__ import annotations

import asyncio

from api.waiting import Waiters


def test_a_call_wakes_all_that_wait_and_is_not_lost_before_the_wait() -> None:
    async def run() -> None:
        waiters = Waiters()
        waiters.is_hearing = True
        with waiters.ticket() as early, waiters.ticket() as late:
            early.begin()
            waiters.call_all()  # between the look of a claim and its wait
            await early.wait(3600)
            waiting = asyncio.create_task(late.wait(3600))
            await asyncio.sleep(0)
            waiters.call_all()
            await waiting

    asyncio.run(asyncio.wait_for(run(), 30))


def test_while_nothing_is_heard_a_claim_looks_again_soon() -> None:
    async def run() -> None:
        with Waiters().ticket() as ticket:
            ticket.begin()
            await ticket.wait(3600)

    asyncio.run(asyncio.wait_for(run(), 30))
