"""Workers that fail where others do not: they get no trials for a while, then one to show that they are well.

A worker whose trials end with faults twice in a row goes into quarantine. A fault that a configuration may cause counts
only while other workers train without it; missing files count never, since another study may have its own there.
An epoch that the worker trains ends it, and so does a person. Its time doubles with every further fault; a worker that
was started again may try at once. Where several workers of a host fail alike, the host is to blame (`host_quarantine`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select, text, update

from ..errors import NotFoundError
from ..protocol import WorkerInfo
from ..trial import MACHINE_FAULTS, Fault
from . import events, host_quarantine
from .quarantine_times import LONGEST_SECONDS, seconds_after
from .statements import execute
from .tables import NOW, worker
from .wire import later

FAULTS_IN_A_ROW: Final = 2
_MESSAGE_CHARACTERS: Final = 500

# now() is the beginning of the transaction, in which the attempt has ended.
_NOTE: Final = text("""
UPDATE worker
SET faults = faults + 1, fault = :fault, fault_message = :message, faulted_at = clock_timestamp(),
    faulty_since = COALESCE(faulty_since, now())
WHERE name = :name
RETURNING faults, faulty_since, quarantined_at, now() AS began
""")
_BEGIN: Final = text("""
UPDATE worker
SET quarantined_at = COALESCE(quarantined_at, clock_timestamp()),
    quarantined_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE name = :name
""")
_END: Final = text("""
UPDATE worker
SET faults = 0, faulty_since = NULL, faulted_at = NULL, fault = NULL, fault_message = NULL, quarantined_at = NULL,
    quarantined_until = NULL
WHERE name = :name
""")
_WAIT: Final = text("""
UPDATE worker
SET quarantined_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE name = :name AND quarantined_at IS NOT NULL
""")
_ONLY_HERE: Final = text("""
SELECT EXISTS (SELECT FROM attempt
               WHERE worker <> :name AND fault IS NULL AND seen_at > worker.faulty_since
                 AND (ended_as IS NULL OR ended_as NOT IN ('crashed', 'expired')))
   AND NOT EXISTS (SELECT FROM attempt WHERE attempt.worker <> :name AND fault = :fault
                     AND ended_at > worker.faulty_since - make_interval(secs => :seconds))
FROM worker WHERE name = :name
""")


def note_fault(connection: Connection, name: str, fault: Fault, message: str | None, *, study_id: int) -> None:
    """Count a fault of a worker, and put it into quarantine if it is one too many."""
    first_line = (message or "").partition("\n")[0][:_MESSAGE_CHARACTERS] or None
    row = connection.execute(_NOTE, {"name": name, "fault": fault, "message": first_line}).one_or_none()
    host_quarantine.note_fault(connection, name)
    if row is None or (row.faults < FAULTS_IN_A_ROW and row.quarantined_at is None):
        return
    if row.quarantined_at is None and not _is_machines(connection, name, fault):
        return
    connection.execute(_BEGIN, {"name": name, "seconds": _seconds(row.faults)})
    charged = sorted(set(Fault) - MACHINE_FAULTS)
    # What the earlier faults of a quarantine have cost was given back at each of them.
    since = row.faulty_since if row.quarantined_at is None else row.began
    execute(connection, "refund", worker=name, since=since, faults=charged)
    if row.quarantined_at is None:
        detail = {"fault": fault, "message": first_line, "faults": row.faults}
        events.append(connection, study_id, None, "worker.quarantined", name, detail)
    if fault in MACHINE_FAULTS:
        host_quarantine.begin(connection, name, fault, first_line, study_id=study_id)


def _seconds(faults: int) -> float:
    return seconds_after(faults - FAULTS_IN_A_ROW)


def _is_machines(connection: Connection, name: str, fault: Fault) -> bool:
    if fault in MACHINE_FAULTS:
        return True
    values = {"name": name, "fault": fault, "seconds": LONGEST_SECONDS}
    return bool(connection.execute(_ONLY_HERE, values).scalar_one())


def note_progress(connection: Connection, name: str, *, study_id: int) -> None:
    """Forget the faults of a worker that has trained an epoch, and end its quarantine and that of its host."""
    host_quarantine.note_progress(connection, name, study_id=study_id)
    found = connection.execute(select(worker.c.faults, worker.c.quarantined_at).where(worker.c.name == name)).first()
    if found is None or found.faults == 0:
        return
    connection.execute(_END, {"name": name})
    if found.quarantined_at is not None:
        events.append(connection, study_id, None, "worker.released", name, {"reason": "it trained an epoch"})


def note_end(connection: Connection, name: str, *, failed: bool) -> None:
    """Let a worker in quarantine try another trial: the one that it had is over, without a fault and without an epoch.

    After a trial that `failed` it waits as after its last fault, because it may be a fault that nobody recognised.
    """
    faults = connection.execute(select(worker.c.faults).where(worker.c.name == name)).scalar_one_or_none()
    if faults:
        connection.execute(_WAIT, {"name": name, "seconds": _seconds(faults) if failed else 0.0})
    host_quarantine.note_end(connection, name, failed=failed)


def release(connection: Connection, name: str, *, actor: str) -> None:
    """Let a worker have trials again, of studies whose files it missed too, and forget its faults.

    Its host, if that is in quarantine, is taken to be repaired too.

    Raises:
        NotFoundError: no worker of that name was heard of.
    """
    host = connection.execute(select(worker.c.host).where(worker.c.name == name)).scalar_one_or_none()
    if host is None:
        raise NotFoundError(f"there is no worker {name!r}; `hpo workers` lists them")
    if host_quarantine.end(connection, host):  # before its workers, as in a claim
        events.append(connection, None, None, "host.released", actor, {"host": host})
    _release(connection, [name])
    events.append(connection, None, None, "worker.released", actor, {"worker": name})


def release_host(connection: Connection, host: str, *, actor: str) -> None:
    """Let all workers of a host have trials again, of studies whose files they missed too, and forget their faults.

    Raises:
        NotFoundError: no worker of that host was heard of.
    """
    of_host = select(worker.c.name).where(worker.c.host == host).order_by(worker.c.name)
    names = connection.execute(of_host).scalars().all()
    if not names:
        raise NotFoundError(f"there is no worker of a host {host!r}; `hpo workers` lists them")
    host_quarantine.end(connection, host)  # before its workers, as in a claim
    _release(connection, names)
    events.append(connection, None, None, "host.released", actor, {"host": host})


def _release(connection: Connection, names: Sequence[str]) -> None:
    for name in names:
        connection.execute(_END, {"name": name})
        connection.execute(update(worker).where(worker.c.name == name).values(cleared_at=NOW))


def note_trial(connection: Connection, info: WorkerInfo) -> None:
    """Give a worker or a host in quarantine no second trial before it has trained an epoch of the first."""
    host_quarantine.note_trial(connection, info.host)
    later(connection, _WAIT, {"name": info.name, "seconds": LONGEST_SECONDS})


def reason(connection: Connection, name: str) -> str | None:
    """Return why a worker gets no trial at the moment, as a phrase for a person; None if it may have one."""
    in_quarantine = select(worker).where(worker.c.name == name, worker.c.quarantined_until > NOW)
    row = connection.execute(in_quarantine).one_or_none()
    if row is not None:
        return sentence(row.fault, row.fault_message, row.faults)
    found = host_quarantine.shut_for(connection, name)
    return None if found is None else host_sentence(*found)


def sentence(fault: str, message: str | None, faults: int) -> str:
    """Return a phrase that says why a worker is in quarantine."""
    return f"{faults} faults in a row, the last one of its {_WHERE[Fault(fault)]}" + (f": {message}" if message else "")


def host_sentence(host: str, fault: str, message: str | None) -> str:
    """Return a phrase that says why a host is in quarantine."""
    said = f"several workers of its host {host}, and no others, had faults of the {_WHERE[Fault(fault)]}"
    return said + (f": {message}" if message else "")


_WHERE: Final = {
    Fault.DEVICE: "GPU",
    Fault.ARCHITECTURE: "PyTorch",
    Fault.STORAGE: "disk",
    Fault.FILES: "files",
    Fault.SYSTEM: "operating system",
    Fault.KERNEL: "GPU",
    Fault.HANG: "training process, which made no progress",
    Fault.PROCESS: "training process, which died",
}
