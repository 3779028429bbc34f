"""The study spec: parameters, objectives, task, budget; reading it and explaining what is wrong with it."""

from .dataset import DatasetConfig
from .include import Fragment, Fragments
from .load import dump_spec, load_spec, parse_spec, stored_spec
from .metrics import METRICS
from .parameters import (
    AnyParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    OrdinalParameter,
)
from .study import Constraint, Objective, StudySpec, TaskConfig
from .training import AugmentConfig, ClipConfig, TrainingConfig, flatten

__all__ = [
    "METRICS",
    "AnyParameter",
    "AugmentConfig",
    "CategoricalParameter",
    "ClipConfig",
    "Constraint",
    "DatasetConfig",
    "FloatParameter",
    "Fragment",
    "Fragments",
    "IntParameter",
    "Objective",
    "OrdinalParameter",
    "StudySpec",
    "TaskConfig",
    "TrainingConfig",
    "dump_spec",
    "flatten",
    "load_spec",
    "parse_spec",
    "stored_spec",
]
