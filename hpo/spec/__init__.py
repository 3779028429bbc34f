"""The study spec: parameters, objectives, task, budget; reading it and explaining what is wrong with it."""

from .flat import flatten
from .include import Fragment, Fragments
from .load import dump_spec, load_spec, parse_spec, stored_spec
from .parameters import (
    AnyParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    OrdinalParameter,
)
from .study import Constraint, Objective, StudySpec
from .tasks import AnyTask
from .tasks.custom import CustomTask
from .tasks.image import ImageTask
from .tasks.task import Metric, TaskConfig
from .tasks.video import METRICS, TrainingConfig, VideoTask

__all__ = [
    "METRICS",
    "AnyParameter",
    "AnyTask",
    "CategoricalParameter",
    "Constraint",
    "CustomTask",
    "FloatParameter",
    "Fragment",
    "Fragments",
    "ImageTask",
    "IntParameter",
    "Metric",
    "Objective",
    "OrdinalParameter",
    "StudySpec",
    "TaskConfig",
    "TrainingConfig",
    "VideoTask",
    "dump_spec",
    "flatten",
    "load_spec",
    "parse_spec",
    "stored_spec",
]
