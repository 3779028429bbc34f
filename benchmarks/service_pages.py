"""What the pages of a study ask of the service, and what they send: for `python -m benchmarks.service pages`."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from api.browser import home, study, trial
from api.dashboard.sampling import SampledStorage, plot_of
from api.dashboard.source import DatabaseSource
from api.pages.frame import Viewer
from api.state import ApiState
from hpo.answer import answer
from hpo.importing import Wishes, fit
from hpo.importing.tables import parse_table
from hpo.protocol import ImportRequest
from hpo.store import imports, studies, trials

_VIEWER = Viewer(name="bench", may_steer=True, form_token="0" * 64)


def pages(state: ApiState, study_id: int, count: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield what a person opens, with a function that makes it and returns how many bytes are sent."""
    yield "home", lambda: len(home.show_home(state, _VIEWER).body)
    yield "page of the study", lambda: len(study.show_study(state, _VIEWER, "bench").body)
    yield "page of a trial", lambda: len(trial.show_trial(state, _VIEWER, "bench", count // 2).body)
    yield "answer, which a thread computes beside the pages of the larger study", lambda: _answer(state)
    # The service has loaded it with the first request of anybody.
    from optuna_dashboard import _serializer  # noqa: F401 - loaded, not used here

    yield (
        "trials for the dashboard's page",
        partial(_dashboard, SampledStorage(DatabaseSource(state.database)), study_id),
    )


def wait_for_answers() -> None:
    """Wait until the answers that pages have not waited for are computed."""
    for one in threading.enumerate():
        if one.name.startswith("answer "):
            one.join()


def _answer(state: ApiState) -> int:
    with state.database.transaction() as connection:
        found = studies.get(connection, "bench")
        answer(found.spec, trials.records(connection, found.id))
    return 0


def _dashboard(storage: SampledStorage, study_id: int) -> int:
    from optuna_dashboard._serializer import serialize_frozen_trial

    with plot_of(f"/api/studies/{study_id}"):
        found = storage.get_all_trials(study_id, deepcopy=False)
    return len(json.dumps([serialize_frozen_trial(study_id, one, {}) for one in found], default=str))


def table(rows: int) -> str:
    """Return a table of results for the study of this benchmark."""
    drawn = random.Random(0)  # noqa: S311 - no secret
    lines = [f"{n},{drawn.uniform(0.001, 1):.5f},{drawn.uniform(0, 0.8):.4f},{drawn.random():.4f}" for n in range(rows)]
    return "\n".join(["number,lr,dropout,val_top1", *lines]) + "\n"


def import_steps(state: ApiState, text: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the steps of importing a table into the study of this benchmark, in their order."""
    with state.database.transaction() as connection:
        spec = studies.get(connection, "bench").spec
    made: dict[str, Any] = {}

    def read() -> None:
        made["trials"] = fit(spec, parse_table(text, path="table", name="table"), Wishes()).trials

    def check() -> None:
        sent = json.dumps({"trials": [one.model_dump(mode="json") for one in made["trials"]]})
        made["request"] = ImportRequest.model_validate_json(sent)

    def store() -> None:
        with state.database.transaction() as connection:
            imports.take_over(connection, "bench", cast(ImportRequest, made["request"]), actor="bench")

    yield "reading the table and fitting it", read
    yield "sending and checking it", check
    yield "storing it", store
