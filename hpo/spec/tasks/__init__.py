"""The kinds of task that a study can have. A new kind is a module here, and its line in `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ...trial import CUSTOM, IMAGE, VIDEO
from .custom import CustomTask
from .image import ImageTask
from .task import TaskConfig
from .video import VideoTask

DEFAULT_KIND: Final = VIDEO
"""Of a task without `kind`."""
KINDS: Final[dict[str, type[TaskConfig]]] = {
    VIDEO: VideoTask,
    IMAGE: ImageTask,
    CUSTOM: CustomTask,
}


def kind_of(task: object) -> str:
    """Return the kind that a task names, as `kind` or as `type`, be it checked already or as decoded."""
    if isinstance(task, TaskConfig):
        return task.kind
    return str(task.get("kind", task.get("type", DEFAULT_KIND))) if isinstance(task, Mapping) else DEFAULT_KIND


class _TaggedByKind:
    """Has pydantic read a task as the member of `KINDS` that its `kind` names."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {kind: handler.generate_schema(task) for kind, task in KINDS.items()}
        return core_schema.tagged_union_schema(choices, discriminator=kind_of)


AnyTask = Annotated[TaskConfig, _TaggedByKind()]
"""A task of any kind. Its static type is the interface, so that what only one kind has cannot be used unnoticed."""
