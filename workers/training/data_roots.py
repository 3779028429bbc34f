"""Folders that the data sets of studies may be in: who creates a study does not choose what a machine may read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data import DatasetNotFoundError, DatasetSpec


def check_roots(dataset: DatasetSpec, roots: Sequence[Path] | None) -> None:
    """Check that a data set, and the weights of its optical flow, are below one of `roots`; None allows any place.

    Links are followed up to the folder that the study names, not inside of it.

    Raises:
        DatasetNotFoundError: another place is named; the message says how to allow it.
    """
    if roots is None:
        return
    for named in (dataset.root, dataset.flow_weights):
        if named is not None and not any(Path(named).resolve().is_relative_to(root.resolve()) for root in roots):
            places = " or ".join(map(str, roots))
            raise DatasetNotFoundError(
                f"this worker does not read {named}, which is not in {places}; to allow it, start the worker with "
                f"--data-root {named}, or set HPO_DATA_ROOTS"
            )
