"""Let a study that has ended go on, if there is anything left for it to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from ..errors import ConflictError
from ..store import budgets
from ..store.study_row import StudyRow
from .limits import full, reached, search_over, used_up_space


def reopen(
    connection: Connection, name: str, changes: Mapping[str, Any], *, actor: str, revision: int | None = None
) -> StudyRow:
    """Let an ended study search on, with its budget changed: `changes` are fields of it, None for no limit.

    `revision` is that of the spec that the changes were made from; None for whatever it is now.

    Raises:
        NotFoundError: there is no such study.
        SpecError: names what is wrong with the budget.
        ConflictError: the study has not ended, has another revision, or would end again at once. The caller rolls back.
    """
    found = budgets.open_again(connection, name, changes, actor=actor, revision=revision)
    limit, configurations = reached(connection, found), used_up_space(connection, found)
    reason = limit.reason if limit is not None else full(found, configurations)
    reason = reason or search_over(connection, found, configurations)
    if reason is not None:
        raise ConflictError(f"the study {name!r} would end again at once: {reason}; change that limit, too")
    return found
