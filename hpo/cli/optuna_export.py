"""`hpo export NAME --to-optuna URL`: a study as a database of Optuna, to go on with its tools."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..errors import ConflictError, SetupError
from ..trial import TERMINAL_STATES, TrialState
from .app import err, out
from .files import counted

if TYPE_CHECKING:
    from ..report.material import Material


def write_optuna(material: Material, url: str) -> None:
    """Write the trials that have ended, with their curves, into a new study of the Optuna database at `url`.

    Optuna counts them anew; what they are called here is their attribute `number`. Where this fails, no study is left.

    Raises:
        SetupError: `url` is no address of a database, or nothing can be written there.
        ConflictError: there is a study of that name already.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    from ..optuna_view.trials import directions, distributions, frozen_trial

    spec, known = material.spec, distributions(material.spec)
    ended = [record for record in material.records if record.state in TERMINAL_STATES - {TrialState.WITHDRAWN}]
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        study = optuna.create_study(storage=url, study_name=spec.name, directions=directions(spec))
        try:
            for record in ended:
                trial = frozen_trial(spec, record, known)
                trial.set_user_attr("number", record.number)
                study.add_trial(trial)
        except BaseException:  # also when it is interrupted
            _remove(url, spec.name)
            raise
    except optuna.exceptions.DuplicatedStudyError as error:
        raise ConflictError(f"there is a study {spec.name!r} in that database already; name another one") from error
    except (optuna.exceptions.OptunaError, SQLAlchemyError, ImportError, ValueError) as error:
        # What the libraries say may hold the password of the address.
        raise SetupError(
            "the Optuna database cannot be written: give an address such as sqlite:///study.db or "
            f"postgresql+psycopg2://user@host/name, with the password in PGPASSWORD ({type(error).__name__})"
        ) from error
    out.print(f"wrote {counted(len(ended), 'trial')} into the Optuna study {spec.name}")


def _remove(url: str, name: str) -> None:
    """Remove a study that was written in part."""
    import optuna

    try:
        optuna.delete_study(study_name=name, storage=url)
    except Exception:  # whatever a database says: the first error is the one to tell
        err.print(f"the Optuna study {name} was written in part and could not be removed")
