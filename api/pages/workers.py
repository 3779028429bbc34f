"""The page of the workers: what each does, how far its trial is, and which get no trials, why, and what to do."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape as as_html
from typing import Final

from fastapi.responses import HTMLResponse

from hpo.activity import FORGOTTEN_SECONDS, duration, measured, place, stored_progress, time_left
from hpo.plain_text import plain
from hpo.protocol import Progress
from hpo.store.waiting import MissingFiles
from hpo.store.workers import ALIVE_SECONDS, WorkerRow

from .frame import page

PATH: Final = "/workers"
REFRESH_SECONDS: Final = 10
_ORDER: Final = ("quarantine", "trains", "waits", "silent")
_SHOWN: Final = {"quarantine": "in quarantine", "trains": "trains", "waits": "waits", "silent": "silent"}
_COUNTED: Final = {"quarantine": "in quarantine", "trains": "training", "waits": "waiting", "silent": "silent"}
_STYLE: Final = """
:root { --text: #1c2733; --soft: #5a6775; --back: #f5f7f9; --card: #fff; --line: #dde3e9; --accent: #1f6feb;
  --good: #1a7f37; --bad: #b3261e; --bad-back: #fdecea; --code: #eef1f4; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e8ee; --soft: #9aa7b4; --back: #12171d; --card: #1b222a;
  --line: #313b46; --accent: #6cb0ff; --good: #5fd080; --bad: #ff9d95; --bad-back: #3a1f1e; --code: #2a323c; } }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0; color: var(--text); background: var(--back); }
main { max-width: 76rem; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
header { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; align-items: baseline; }
h1 { font-size: 1.5rem; margin: 0; } header p { margin: 0; color: var(--soft); } a { color: var(--accent); }
header a { margin-left: auto; }
.notice { background: var(--bad-back); border-left: 4px solid var(--bad); padding: .6rem .9rem; margin: 1rem 0 0;
  border-radius: 4px; }
code { background: var(--code); padding: .1rem .3rem; border-radius: 3px; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; margin-top: 1rem; background: var(--card);
  border: 1px solid var(--line); }
th { text-align: left; white-space: nowrap; font-weight: 600; color: var(--soft); font-size: .85rem; }
th, td { padding: .55rem .8rem; border-top: 1px solid var(--line); vertical-align: top; }
td p { margin: 0; } .soft { color: var(--soft); font-size: .88rem; }
.name { font-weight: 600; overflow-wrap: anywhere; }
.state { white-space: nowrap; font-weight: 600; } .trains { color: var(--good); } .quarantine { color: var(--bad); }
.silent, .waits { color: var(--soft); font-weight: 400; } .seen { white-space: nowrap; }
progress { width: 100%; max-width: 22rem; height: .5rem; display: block; margin: .3rem 0; accent-color: var(--accent); }
@media (max-width: 46rem) { thead { display: none; } table, tbody, tr, td { display: block; }
  table { border: 0; background: none; }
  tr { background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin-top: .8rem; }
  .seen::before { content: "last heard of "; }
  td { border: 0; padding: .25rem .9rem; } header a { margin-left: 0; } }
"""


def workers_page(
    rows: Sequence[WorkerRow],
    missing: Mapping[str, Sequence[MissingFiles]],
    *,
    now: datetime,
    has_dashboard: bool,
) -> HTMLResponse:
    """Return the page; it loads itself again every few seconds.

    `missing` are the files that workers have not found, by their names; `has_dashboard` says whether to link there.
    """
    shown = [row for row in rows if row.seconds_since_seen < FORGOTTEN_SECONDS or row.quarantined_at is not None]
    shown.sort(key=lambda row: (_ORDER.index(state_of(row)), row.host, row.name))
    counts = Counter(state_of(row) for row in shown)
    summary = ", ".join(f"{counts[state]} {_COUNTED[state]}" for state in _ORDER if counts[state])
    link = '<a href="/dashboard">Dashboard</a>' if has_dashboard else ""
    body = [
        f"<main>\n<header><h1>Workers</h1><p>{summary or 'none was heard of yet'}</p>{link}</header>",
        *_notices(shown),
        _table([_row(row, missing.get(row.name, ()), now, has_dashboard) for row in shown]) if shown else _NO_WORKERS,
    ]
    if len(shown) < len(rows):
        body.append(f'<p class="soft">Not shown: {len(rows) - len(shown)} not heard of for a day.</p>')
    return page("\n".join([*body, "</main>"]), title="workers", style=_STYLE, refresh_seconds=REFRESH_SECONDS)


def state_of(row: WorkerRow) -> str:
    """Return what a worker does, one of `_ORDER`."""
    if row.quarantined_at is not None or (row.host_quarantined_at is not None and row.trial_id is None):
        return "quarantine"
    if row.seconds_since_seen > ALIVE_SECONDS:
        return "silent"
    return "waits" if row.trial_id is None else "trains"


_NO_WORKERS: Final = """<p>Start one with <code>hpo-worker --gpu 0</code> (or <code>--cpu</code>) on a machine that
reaches this server.</p>"""


def _notices(rows: Iterable[WorkerRow]) -> list[str]:
    """Return a notice for each host in quarantine."""
    hosts = {row.host: row for row in rows if row.host_quarantined_at is not None}
    return [
        f'<p class="notice"><strong>Host {escape(host)} is in quarantine</strong> since '
        f"{_moment(row.host_quarantined_at)}: several of its workers, and none elsewhere, failed alike: "
        f"{escape(row.host_fault or '')}{_message(row.host_fault_message)}. Its workers get no trials until "
        f"{_moment(row.host_quarantined_until)}; then one of them may try. When it is repaired: "
        f"<code>hpo workers release --host {escape(shlex.quote(host))}</code></p>"
        for host, row in sorted(hosts.items())
    ]


def _table(rows: Sequence[str]) -> str:
    lines = "\n".join(rows)
    head = "<tr><th>Worker</th><th>State</th><th>What it does</th><th>Last heard of</th></tr>"
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{lines}\n</tbody>\n</table>"


def _row(row: WorkerRow, missing: Sequence[MissingFiles], now: datetime, has_dashboard: bool) -> str:
    state = state_of(row)
    memory = "" if row.memory_bytes is None else f", {row.memory_bytes / 2**30:.0f} GiB"
    device = f"{row.gpu_name} ({row.device})" if row.gpu_name else row.device
    about = f"{device}{memory} on {row.host}, process {row.pid}" + (f", {row.version}" if row.version else "")
    only = f'<p class="soft">only for the study {escape(row.study)}</p>' if row.study else ""
    return (
        f'<tr><td><p class="name">{escape(row.name)}</p><p class="soft">{escape(about)}</p>{only}</td>'
        f'<td class="state {state}">{_SHOWN[state]}</td>'
        f"<td>{_trial(row, now, has_dashboard)}{_why(row)}{_missing(row, missing)}</td>"
        f'<td class="seen soft">{duration(row.seconds_since_seen)} ago</td></tr>'
    )


def _trial(row: WorkerRow, now: datetime, has_dashboard: bool) -> str:
    """Return the trial of a worker, and how far it is."""
    if row.trial_id is None:
        return ""
    name = f"trial {row.trial_number} of {escape(row.trial_study or '')}"
    if has_dashboard:
        name = f'<a href="/dashboard/studies/{row.trial_study_id}/trials?numbers={row.trial_number}">{name}</a>'
    progress = stored_progress(row.progress)
    if progress is None:
        return f'<p>{name}</p><p class="soft">it is starting</p>'
    age = (now - row.progress_at).total_seconds() if row.progress_at is not None else 0.0
    old = f" ({duration(age)} ago)" if age > ALIVE_SECONDS else ""
    details = ", ".join(filter(None, (measured(progress), time_left(progress))))
    return f'<p>{name}: {escape(place(progress))}{old}</p>{_bar(progress)}<p class="soft">{escape(details)}</p>'


def _bar(progress: Progress) -> str:
    """Return the bar of this step of the preparation, or of all epochs of the trial."""
    done, total = float(progress.done), float(progress.total)
    if progress.stage != "preparing" and progress.epoch is not None and progress.epochs is not None:
        share = min(1.0, done / total) if total and progress.stage == "training" else 1.0
        done, total = progress.epoch - 1 + share, float(progress.epochs)
    return f'<progress value="{done:.3f}" max="{max(total, 1.0):.0f}"></progress>'


def _why(row: WorkerRow) -> str:
    """Return why a worker is in quarantine, and how that ends."""
    if row.quarantined_at is None:
        return '<p class="soft">its host is in quarantine</p>' if state_of(row) == "quarantine" else ""
    tries = "trains one trial to show that it is well"
    until = tries if row.trial_id is not None else f"may try a trial at {_moment(row.quarantined_until)}"
    return (
        f"<p>{row.faults} faults in a row, the last: {escape(row.fault or '')}{_message(row.fault_message)}</p>"
        f'<p class="soft">since {_moment(row.quarantined_at)}; {until}. When it is repaired: '
        f"<code>hpo workers release {escape(shlex.quote(row.name))}</code></p>"
    )


def _missing(row: WorkerRow, missing: Sequence[MissingFiles]) -> str:
    """Return which studies a worker gets no trials of, because it has not found their files."""
    release = f"<code>hpo workers release {escape(shlex.quote(row.name))}</code>"
    return "".join(
        f"<p>no trials of {escape(found.study)} until {_moment(found.until)}, whose files it has not found"
        f'{_message(found.message)}</p><p class="soft">When they are there: {release}</p>'
        for found in missing
    )


def _message(message: str | None) -> str:
    return f" ({escape(message)})" if message else ""


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%d %b %H:%M} UTC"


def escape(text: str) -> str:
    """Return the text of others for the page: no markup, and nothing in it reorders or hides what stands beside it."""
    return as_html(plain(text))
