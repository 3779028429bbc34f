"""`create_study` and `load_study`, with the arguments of Optuna's as far as they have a meaning here."""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from ..client.http import Client
from ..errors import SetupError, StudyExistsError
from .results import Direction
from .study import MOST_TRIALS, Study


def create_study(
    *,
    storage: str | Client | None = None,
    sampler: Mapping[str, Any] | None = None,
    pruner: Mapping[str, Any] | None = None,
    study_name: str | None = None,
    direction: Direction | None = None,
    directions: Sequence[Direction] | None = None,
    load_if_exists: bool = False,
    steps: int = 1,
    space: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    **sections: Any,
) -> Study:
    """Return a new study, or an earlier one of the same name with `load_if_exists`.

    Args:
        storage: the service: its address, or a client. Without it that of this machine, started if it does not run.
        sampler: the section `optimizer` of a study spec, such as `{"name": "tpe", "seed": 1}`. Without a name it is
            `ax`, and `tpe` where more than 1,000 trials are planned: see docs/own-function.md.
        pruner: the section `early_stopping`, such as `{"name": "asha"}`. Without it, objectives with several steps are
            stopped by `median` after five trials, as in Optuna; `{"name": "none"}` stops nothing.
        direction: `minimize`, unless something is said.
        directions: of several objectives.
        steps: how often a trial reports at most.
        space: parameters as in a study spec. Without it the first run of the objective shows it: it suggests what all
            others do, and reports for the first time after that.
        budget: as in a study spec. Without it, the `n_trials` of the first `optimize`.
        sections: further sections of a study spec, such as `constraints`, `rules` and `retry`.

    Raises:
        SetupError: an argument is an object of Optuna; names what to write in its place.
        StudyExistsError: there is a study of that name.
    """
    for name, section, value in (("sampler", "optimizer", sampler), ("pruner", "early_stopping", pruner)):
        if value is not None and not isinstance(value, Mapping):
            raise SetupError(
                f"{name}: the service has its own: give a section {section!r} of a study spec, such as "
                f"{name}={{'name': {'tpe' if name == 'sampler' else 'median'!r}}}, or leave it out"
            )
    client = _client(storage)
    name = study_name or f"study-{uuid4().hex[:12]}"
    ways = list(directions or [direction or "minimize"])
    metrics = ["value"] if len(ways) == 1 else [f"value_{place}" for place in range(len(ways))]
    stopping = pruner or ({"name": "median", "startup_trials": 5} if steps > 1 and len(ways) == 1 else None)
    draft: dict[str, Any] = {
        "name": name,
        "objectives": [{"metric": metric, "direction": way} for metric, way in zip(metrics, ways, strict=True)],
        "task": {"kind": "custom", "metrics": dict(zip(metrics, ways, strict=True)), "epochs": steps},
        **({} if sampler is None else {"optimizer": dict(sampler)}),
        **({} if stopping is None else {"early_stopping": dict(stopping)}),
        **({} if budget is None else {"budget": dict(budget)}),
        **sections,
    }
    exists = any(found["name"] == name for found in client.studies())
    if exists and not load_if_exists:
        raise StudyExistsError(f"there is a study {name!r} already: give another name, or load_if_exists=True")
    study = Study(client, name, None if exists else draft, may_exist=load_if_exists)
    if space is not None and not exists:
        study.open({**draft, "space": dict(space), "budget": budget or {"trials": MOST_TRIALS}})
    atexit.register(study.close)
    return study


def load_study(*, study_name: str, storage: str | Client | None = None) -> Study:
    """Return a study of the service.

    Raises:
        NotFoundError: there is none of that name.
    """
    study = Study(_client(storage), study_name, None)
    atexit.register(study.close)
    return study


_services = ExitStack()


def _client(storage: str | Client | None) -> Client:
    if isinstance(storage, Client):
        return storage
    if storage is None:
        from ..functions.here import service
        from ..settings import Settings

        client = _services.enter_context(service(Settings.load()))
        atexit.register(_services.close)
        return client
    if not isinstance(storage, str) or not storage.startswith(("http://", "https://")):
        raise SetupError(
            f"storage: {storage!r} is not the address of a service; leave it out for that of this machine, or write "
            "something like http://host:8000"
        )
    from ..settings import Settings

    settings = Settings.load(url=storage)
    return Client(settings.api_url, settings.token, ca_file=settings.ca_file)
