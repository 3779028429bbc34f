"""The devices that trials run on, from the workers in the store."""

from __future__ import annotations

from sqlalchemy import Connection

from ..optimizer.memory import Device, Fleet
from ..store import workers


def read_fleet(connection: Connection) -> Fleet:
    """Return the devices of all workers heard of, and the largest of those that are alive."""
    found = workers.list_all(connection)
    alive = [row.memory_bytes for row in found if row.seconds_since_seen < workers.ALIVE_SECONDS]
    devices = {row.name: Device(kind=row.gpu_name or row.device, memory_bytes=row.memory_bytes) for row in found}
    known = [memory for memory in alive if memory is not None]
    return Fleet(devices=devices, largest_bytes=max(known, default=None) if len(known) == len(alive) else None)
