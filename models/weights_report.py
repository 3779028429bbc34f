"""The report of loading a weights file into a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsReport:
    """What was loaded from a weights file. Names are the model's, except those in `dropped`."""

    loaded: tuple[str, ...]
    """Names of the tensors loaded from the file, bit for bit if dtype and shape are the same."""
    reset: tuple[str, ...]
    """Names of the classifier's tensors that were not loaded, because the file has other classes."""
    layout: str = "as it is"
    """The program with the parameter names of the file."""
    network: str = ""
    """The network of the file in its author's words; empty if it is not known."""
    adapted: tuple[str, ...] = ()
    """Those of `loaded` that were changed in shape, for more frames or other input channels."""
    kept: tuple[str, ...] = ()
    """Names of tensors that the file's kind of network lacks, such as temporal modules; they were not changed."""
    dropped: tuple[str, ...] = ()
    """The file's names of parts that the model does not need, such as auxiliary heads."""
    notes: tuple[str, ...] = ()
    """Sentences about what differs between the file's network and the model; worth reading before training."""
