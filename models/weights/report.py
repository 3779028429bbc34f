"""What loading a file of weights did to a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsReport:
    """What a weights file gave to a model. Names are the model's, but for those in `dropped`."""

    loaded: tuple[str, ...]
    """Names of the tensors taken from the file, bit for bit where dtype and shape are the same."""
    reset: tuple[str, ...]
    """Names of the classifier's tensors, left as they were: the file has other classes."""
    layout: str = "as it is"
    """Whose names the file has."""
    adapted: tuple[str, ...] = ()
    """Those of `loaded` that were brought to another shape: more frames, other input channels."""
    kept: tuple[str, ...] = ()
    """Names of tensors that the file's kind of network lacks, such as temporal modules; left as they were."""
    dropped: tuple[str, ...] = ()
    """The file's names of parts that the model does without, such as auxiliary heads."""
