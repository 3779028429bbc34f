"""The export of a trial: one file that trains the same model again and gets the same score.

`build_export` makes it from what the store kept, `dump_export` writes it, `load_export` reads it back for `hpo train`
and `hpo evaluate`. Nothing here knows of the database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from ..errors import ConflictError, SpecError, SpecIssue
from ..protocol import LoadedWeights
from ..spec import AnyTask, StudySpec
from ..spec.issues import path_of, unknown_kind
from ..spec.load import decode
from ..spec.wording import complaint
from ..trial import CUSTOM, RESULT_STATES, TrialRecord, TrialState
from .evidence import Evidence
from .outcome import final_metrics

FORMAT_VERSION: Final = 1
TRAIN_AGAIN = "hpo train FILE"

ExportFormat = Literal["yaml", "json"]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class ExportedWeights(BaseModel):
    """A file that the training started from, and how many of its tensors were used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """As `config` names it."""
    stream: Literal["rgb", "flow"] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """`hpo train` refuses a file of other bytes."""
    layout: str
    loaded: int
    adapted: int
    reset: int
    kept: int
    dropped: int

    @classmethod
    def of(cls, loaded: LoadedWeights) -> Self:
        """Take over what the worker said."""
        counts = {name: getattr(loaded, name).count for name in ("adapted", "reset", "kept", "dropped")}
        return cls(**loaded.model_dump(include={"source", "stream", "sha256", "layout", "loaded"}), **counts)


class Export(BaseModel):
    """Everything needed to repeat one trial. The same values on the same machine give the same result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = FORMAT_VERSION
    study: str
    trial: Annotated[int, Field(ge=0)]
    """Number of the trial in its study."""
    state: Literal["completed", "stopped"]
    """`stopped`: it was ended early, after `epochs_done` epochs of the plan."""
    objectives: dict[str, FiniteFloat]
    """The values that the study optimized, by metric."""
    metrics: dict[str, FiniteFloat]
    """All final metrics."""
    last_epochs: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)
    """By objective, over how many last epochs its value is a mean; without those where it is that of one."""
    config: dict[str, Any]
    """The complete flat configuration, defaults included."""
    task: AnyTask
    epochs_done: Annotated[int, Field(ge=0)]
    seed: int
    dataset_version: str | None
    """Fingerprint of the prepared data set."""
    environment: dict[str, Any]
    """Versions, device and thread count of the run."""
    checkpoint: str | None
    """Path of the checkpoint on the worker that trained it."""
    weights: list[ExportedWeights] = Field(default_factory=list)
    """What the training started from; nothing of it where that was from scratch."""
    evidence: Evidence | None = None
    """How good the configuration is, and how sure that is; null where the study could not say when it was exported."""
    refit: bool = False
    """Whether the checkpoint was trained on the validation videos as well; `metrics` are of the training before."""
    train_again: str = TRAIN_AGAIN

    @property
    def how_again(self) -> str:
        """How the configuration is run again, as a sentence."""
        if self.task.kind != CUSTOM:
            return f"Train it again:  hpo train {self.study}.yaml   (give the name under which you saved this file)"
        name = self.environment.get("entry", {}).get("name", "MODULE:FUNCTION")
        return f"Run it again:  hpo train {self.study}.yaml --entry {name}   (give the names that they have here)"

    @model_validator(mode="after")
    def _config_is_complete(self) -> Self:
        wrong = [
            InitErrorDetails(type=PydanticCustomError("config", "{m}", {"m": message}), loc=("config", key), input=None)
            for key, message in self.task.config_problems(self.config)
        ]
        if wrong:
            raise ValidationError.from_exception_data("Export", wrong)
        seed = {**self.task.defaults(), **self.config}.get("seed")
        if seed != self.seed:
            raise ValueError(f"`seed` is {self.seed}, but `config.seed` is {seed}; they must agree")
        return self


def build_export(
    *,
    study: str,
    spec: StudySpec,
    trial: TrialRecord,
    dataset_version: str | None,
    environment: Mapping[str, Any],
    checkpoint: str | None,
    evidence: Evidence | None = None,
) -> Export:
    """Join what is known of a finished trial.

    Raises:
        ConflictError: the trial has no result (it is not finished, it failed or was withdrawn).
    """
    if trial.state not in RESULT_STATES or not final_metrics(trial):
        raise ConflictError(
            f"trial {trial.number} of study {study!r} is {trial.state}; only completed or early-stopped trials"
            " have a result to export"
        )
    config = spec.trial_config(trial.params, number=trial.number, is_replicate=trial.replicate_of is not None)
    metrics = dict(final_metrics(trial))
    return Export(
        study=study,
        trial=trial.number,
        state="completed" if trial.state is TrialState.COMPLETED else "stopped",
        objectives={o.metric: metrics[o.metric] for o in spec.objectives if o.metric in metrics},
        metrics=metrics,
        last_epochs=spec.last_epochs,
        config=config,
        task=spec.task,
        epochs_done=trial.epochs_done,
        seed=config["seed"],
        dataset_version=dataset_version,
        environment=dict(environment),
        checkpoint=checkpoint,
        weights=[ExportedWeights.of(LoadedWeights.model_validate(loaded)) for loaded in trial.weights],
        evidence=evidence,
    )


def dump_export(export: Export, *, form: ExportFormat) -> str:
    """Write the document as text; `load_export` of it is an equal export."""
    # What an export does not use is left out, so that earlier releases, which do not know it, read the rest.
    unused = {field for field in ("evidence", "last_epochs", "weights", "refit") if not getattr(export, field)}
    document = export.model_dump(mode="json", exclude=unused)
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    values = ", ".join(f"{metric} = {value:.4g}" for metric, value in export.objectives.items())
    known = "" if export.evidence is None else "".join(f"# {line}\n" for line in export.evidence.lines())
    head = f"# Trial {export.trial} of study {export.study}: {values}.\n{known}# {export.how_again}\n"
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def load_export(path: Path) -> Export:
    """Read an export file, YAML or JSON.

    Raises:
        SpecError: the file is missing, unreadable, or not an export that this version understands; names each field.
    """
    if path.is_fifo() or path.is_char_device():  # reading could wait for ever
        raise SpecError([SpecIssue(path=str(path), message="is a pipe or a device, not an export file")])
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError([SpecIssue(path=str(path), message=f"cannot be read ({error.strerror})")]) from error
    except UnicodeDecodeError as error:
        raise SpecError([SpecIssue(path=str(path), message="is not a text file in UTF-8")]) from error
    raw = decode(text, source=str(path))
    if not isinstance(raw, Mapping) or "format_version" not in raw:
        raise SpecError(
            [SpecIssue(path=str(path), message="is not an export; make one with `hpo export STUDY -o best.yaml`")]
        )
    if raw["format_version"] != FORMAT_VERSION:
        message = f"is {raw['format_version']!r}, but this version reads {FORMAT_VERSION}; export the trial again"
        raise SpecError([SpecIssue(path="format_version", message=message)])
    try:
        return Export.model_validate(raw)
    except ValidationError as error:
        issues = [SpecIssue(path=path_of(found), message=_sentence(found)) for found in error.errors()]
        raise SpecError(issues) from error


def _sentence(found: ErrorDetails) -> str:
    if found["type"] == "config":  # a whole sentence, by the task itself
        return str(found["msg"])
    if found["type"] == "union_tag_invalid":
        return unknown_kind(found)
    if found["type"] == "extra_forbidden":
        return "there is no such field; remove it"
    if found["type"] == "missing":
        return "this field is required"
    return complaint(found)
