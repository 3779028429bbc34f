"""Read the study spec in a request: JSON or YAML, whatever the client calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from hpo.errors import SpecError, SpecIssue
from hpo.service.creation import MOST_SPEC_BYTES
from hpo.spec import Fragments, StudySpec, parse_spec
from hpo.spec.load import decode

YAML_TYPES: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
REFUSED_PREFIXES: Final = ("multipart/", "image/", "video/", "audio/", "application/octet-stream")

EXAMPLE: Final[dict[str, Any]] = {
    "name": "slowfast-ucf101",
    "objectives": [{"metric": "val_top1", "direction": "maximize"}],
    "task": {
        "dataset": {"name": "ucf101", "root": "/data/ucf101", "split": 1, "validation": "groups"},
        "epochs": 40,
        "base": {"batch_size": 32, "clip": {"frames": 32, "stride": 2, "size": 112}},
    },
    "space": {
        "model": {"type": "categorical", "choices": ["slowfast_r50_4x16", "r2plus1d_18"]},
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 5e-3, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r50_4x16"]}},
    },
    "early_stopping": {"name": "asha", "min_epochs": 3, "reduction": 3},
    "budget": {"trials": 60, "gpu_hours": 48},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecBody:
    """The bytes of the body, not yet looked at; parsing is left to the thread that handles the request."""

    content: bytes
    media_type: str

    def parse(self, fragments: Fragments | None = None) -> StudySpec:
        """Check the spec; what its space includes is looked up in `fragments`.

        Raises:
            SpecError: with one issue per offending field.
        """
        try:
            text = self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _wrong("the body is not UTF-8 text") from error
        if not text.strip():
            raise _wrong("the body is empty; send the study spec as JSON or YAML")
        try:
            return parse_spec(decode(text, form=self._form(text), aliases=False), fragments)
        except SpecError as error:
            if self.media_type == "application/x-www-form-urlencoded" and "\n" not in text.strip():
                # curl -d drops line ends, without which YAML means something else.
                hint = "if this was YAML, send it with curl --data-binary"
                raise SpecError([*error.issues, SpecIssue(path="", message=hint)]) from error
            raise

    def _form(self, text: str) -> Literal["yaml", "json"]:
        if self.media_type in YAML_TYPES:
            return "yaml"
        if self.media_type == "application/json" or self.media_type.endswith("+json"):
            return "json"
        # curl -d says that it sends a form.
        return "json" if text.lstrip().startswith("{") else "yaml"


async def _read(request: Request) -> SpecBody:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type.startswith(REFUSED_PREFIXES):
        raise HTTPException(415, f"a study spec is sent as application/json or application/yaml, not {media_type}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_SPEC_BYTES:
            raise HTTPException(413, f"a study spec has at most {MOST_SPEC_BYTES} bytes")
    return SpecBody(content=bytes(body), media_type=media_type)


Spec = Annotated[SpecBody, Depends(_read)]


def openapi_body() -> dict[str, Any]:
    """Describe the body for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/StudySpec"}
    named = {"video": {"summary": "SlowFast and R(2+1)D on UCF101", "value": EXAMPLE}}
    content = {"application/json": {"schema": schema, "examples": named}, "application/yaml": {"schema": schema}}
    return {"requestBody": {"required": True, "description": "The study spec.", "content": content}}


def _wrong(message: str) -> SpecError:
    return SpecError([SpecIssue(path="", message=message)])
