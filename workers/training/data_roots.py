"""Folders that the data sets of studies may be in: who creates a study does not choose what a machine may read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data import DatasetNotFoundError, DatasetSpec
from data.specs.place import is_below, is_remote


def check_roots(dataset: DatasetSpec, roots: Sequence[Path] | None, remote_roots: Sequence[str] = ()) -> None:
    """Check that a data set, and the weights of its optical flow, are below one of `roots`; None allows any folder.

    Links are followed up to the folder that the study names, not inside of it. An address has to be below one of
    `remote_roots`: a worker reaches places, with credentials of its own, that who creates a study does not.

    Raises:
        DatasetNotFoundError: another place is named; the message says how to allow it.
    """
    remote = is_remote(str(dataset.root))
    if remote and not is_below(str(dataset.root), remote_roots):
        raise DatasetNotFoundError(
            f"this worker does not read {dataset.root}, since nobody has allowed that address here: start the worker "
            f"with --data-root {dataset.root}, or name it in HPO_DATA_ROOTS"
        )
    if roots is None:
        return
    for named in (None if remote else dataset.root, dataset.flow_weights):
        if named is not None and not any(Path(named).resolve().is_relative_to(root.resolve()) for root in roots):
            places = " or ".join(map(str, (*roots, *remote_roots)))
            raise DatasetNotFoundError(
                f"this worker does not read {named}, which is not in {places}; to allow it, start the worker with "
                f"--data-root {named}, or set HPO_DATA_ROOTS"
            )
