"""What a caller says about a data set, its clips and their augmentation: one schema, for Python and for study specs.

Nothing here touches a file or imports torch or numpy, so that a study can be checked without them.
"""

from .augment import AugmentSpec, CropKind, Interpolation
from .clip import ClipSettings, ClipSpec, FlowCentring, Padding, Sampling, Stream
from .dataset import ANY_SPLIT, LAYOUTS, DatasetSpec, FlowKind, SplitSpec, StoreKind, Validation

__all__ = [
    "ANY_SPLIT",
    "LAYOUTS",
    "AugmentSpec",
    "ClipSettings",
    "ClipSpec",
    "CropKind",
    "DatasetSpec",
    "FlowCentring",
    "FlowKind",
    "Interpolation",
    "Padding",
    "Sampling",
    "SplitSpec",
    "StoreKind",
    "Stream",
    "Validation",
]
