"""The base of all specifications: frozen, checked when made, and refused in one sentence."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ..errors import InvalidSpecError

_RULE: Final = re.compile(r"\w+ should (.*)", re.DOTALL)


class Spec(BaseModel):
    """A value object with checked fields.

    Made directly, it raises `InvalidSpecError`. As a part of a larger pydantic model, such as a study spec, it reports
    what is wrong as pydantic does, with the path of the field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InvalidSpecError(_sentence(type(self), error.errors()[0])) from error

    # Without this mark pydantic would call `__init__` for nested values too, and lose the paths of their fields.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pydantic's own mark on a function


def _sentence(spec: type[Spec], found: ErrorDetails) -> str:
    field = ".".join(str(part) for part in found["loc"])
    if found["type"] == "missing":
        return f"{field} is missing; {spec.__name__} needs it"
    if found["type"] == "extra_forbidden":
        return f"{spec.__name__} has no field {field}; it has: {', '.join(spec.model_fields)}"
    message = str(found["msg"]).removeprefix("Value error, ")
    if rule := _RULE.fullmatch(message):
        return f"{field} is {found['input']!r}; it must {rule[1]}"
    return f"{field}: {message}" if field else message
