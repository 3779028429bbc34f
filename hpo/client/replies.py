"""What the API answers: plain dictionaries, typed for editors and type checkers.

A service of a later release may send further keys. Times are ISO 8601 texts with a time zone
(`datetime.datetime.fromisoformat` reads them). The OpenAPI document of the service (`/docs`) says under the same names
what each key means.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Value = bool | int | float | str
"""A value of a parameter."""
StudyState = Literal["active", "paused", "stopped", "completed", "failed"]
TrialState = Literal["suggested", "running", "paused", "completed", "stopped", "failed", "withdrawn"]
FailureKind = Literal["oom", "diverged", "error", "timeout", "lost", "invalid"]
Fault = Literal["device", "architecture", "storage", "files", "system", "kernel", "hang", "process"]


class GpuHours(TypedDict):
    """What the device hours of a study went into."""

    trained: float
    failed: float
    startup: float


class FinalistsConfig(TypedDict):
    """How the best configurations are trained again after the search."""

    top: int
    seeds: int
    share: float
    probability: float


class StudyProgress(TypedDict):
    """How far a study is, of what it may use; None for what has no limit or is not known."""

    trials_over: int
    trials: int | None
    gpu_hours: float | None
    seconds_left: float | None


class Evidence(TypedDict):
    """What stands behind a configuration."""

    metric: str
    observed: float
    believed: float
    sd: float
    clips: int | None
    validated_on: Literal["clips", "images"]
    trials: list[int]
    rank: int
    configurations: int
    expected: float
    expected_sd: float
    probability_best: float
    is_clear: bool
    highest_observed: float
    highest_trial: int


class BestValue(TypedDict):
    """The best value of a study so far, and its trial."""

    number: int
    metric: str
    value: float
    evidence: Evidence


class StudySummary(TypedDict):
    """A study in a list."""

    name: str
    state: StudyState
    state_reason: str | None
    degraded: str | None
    created_at: str
    finished_at: str | None
    gpu_hours_spent: float
    gpu_hours_by_kind: GpuHours
    gpu_hours_saved: float
    trial_counts: dict[str, int]
    guesses_waiting: int
    finalists: FinalistsConfig | None
    search_ended_at: str | None
    imported: int
    replicates: int
    progress: StudyProgress
    best: BestValue | None


class ImportanceRow(TypedDict):
    """How much one parameter matters for one objective."""

    parameter: str
    share: float
    low: float | None
    high: float | None
    trend: Literal["rises", "falls", "highest at", "lowest at"] | None
    at: Value | None


class ImportanceSummary(TypedDict):
    """What matters in a study."""

    outcomes: int
    message: str
    explained: dict[str, float | None]
    importances: dict[str, list[ImportanceRow]]


class LeftOut(TypedDict):
    """A file that a data set leaves out, and why."""

    path: str
    note: str


class DataSet(TypedDict):
    """What the trial that ended last has found in the data set."""

    version: str | None
    train: int
    validation: int
    left_out: int
    examples: list[LeftOut]
    reasons: dict[str, int]


class StudyDetail(StudySummary):
    """A study with its spec."""

    id: int
    note: str | None
    revision: int
    spec: dict[str, Any]
    configurations: int | None
    importance: ImportanceSummary | None
    earlier_trials: dict[str, int]
    missing_data: str | None
    data_changed: str | None
    few_clips: str | None
    data_set: DataSet | None


class DeletedStudy(TypedDict, total=False):
    """What became of the files of a study that was deleted; empty from a service of an earlier release."""

    name: str
    uuid: str
    hosts: list[str]
    files_removed: int
    bytes_removed: int
    left: list[str]


class Progress(TypedDict):
    """How far a running trial is."""

    stage: Literal["preparing", "training", "validation"]
    step: str
    done: int
    total: int
    epoch: int | None
    epochs: int | None
    loss: float | None
    learning_rate: float | None
    clips_per_second: float | None
    waiting: float | None
    memory_bytes: int | None
    seconds_left: float | None


class Tensors(TypedDict):
    """Tensors of a model or a file: how many there are, and the names of the first."""

    count: int
    first: list[str]


class LoadedWeights(TypedDict):
    """What a trial started from."""

    source: str
    stream: Literal["rgb", "flow"] | None
    sha256: str
    layout: str
    network: str
    loaded: int
    adapted: Tensors
    reset: Tensors
    kept: Tensors
    dropped: Tensors
    notes: list[str]


class TrialSummary(TypedDict):
    """A trial without its curve."""

    id: int
    number: int
    state: TrialState
    params: dict[str, Value]
    metrics: dict[str, float] | None
    attempt: int
    epochs_done: int
    last_metrics: dict[str, float] | None
    failure_kind: FailureKind | None
    failure_message: str | None
    generator: str | None
    origin: str | None
    replicate_of: int | None
    predicted_mean: float | None
    predicted_sd: float | None
    predicted_feasibility: float | None
    worker: str | None
    lost_on: list[str]
    dataset_version: str | None
    gpu_seconds: float
    peak_memory_bytes: int | None
    progress: Progress | None
    progress_at: str | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None


class TrialDetail(TrialSummary):
    """A trial with its curve, whose keys are the steps as texts."""

    curve: dict[str, dict[str, float]]
    weights: list[LoadedWeights]
    waits_for: str | None


class Confusion(TypedDict):
    """How the videos of one validation were classified; a cell is (class, class that the model said, videos)."""

    step: int
    class_names: list[str]
    videos: list[int]
    cells: list[tuple[int, int, int]]


class Imported(TypedDict):
    """The numbers that results from elsewhere got."""

    numbers: list[int]


class TrialPage(TypedDict):
    """Trials in the order of their numbers; `next_after` begins the next page, None on the last one."""

    trials: list[TrialSummary]
    next_after: int | None


class Enqueued(TypedDict):
    """What became of the configurations that were asked for."""

    added: int
    waiting: int


class Curve(TypedDict):
    """One metric of one trial: `values` at `steps`."""

    number: int
    state: TrialState
    steps: list[int]
    values: list[float]


class Curves(TypedDict):
    """One metric of every trial that has reported it."""

    metric: str
    curves: list[Curve]


class BestTrial(TrialDetail):
    """The trial that stands for the best configuration."""

    study: str
    metric: str
    direction: Literal["maximize", "minimize"]
    value: float
    evidence: Evidence


class ObjectiveEstimate(TypedDict):
    """What is believed of one objective of a configuration."""

    observed: float
    believed: float
    sd: float
    expected: float
    expected_sd: float


class Configuration(TypedDict):
    """A configuration with a result."""

    params: dict[str, Value]
    trials: list[int]
    chosen: int
    completed: int
    estimates: dict[str, ObjectiveEstimate]
    probability_best: float


class StudyAnswer(TypedDict):
    """What a study has found so far, the best configuration first."""

    metric: str
    configurations: list[Configuration]
    front: list[int]
    highest_trial: int
    highest_observed: float
    clips: int | None
    seed_sd: float
    is_clear: bool


class Log(TypedDict):
    """A part of what a trial printed: from byte `start` to `stop` of its log."""

    attempt: int
    worker: str
    ended_as: str | None
    start: int
    stop: int
    text: str


class Event(TypedDict):
    """Something that happened in a study; `id` is the place to continue from."""

    id: int
    kind: str
    trial_number: int | None
    actor: str
    detail: dict[str, Any]
    at: str


class MissingFiles(TypedDict):
    """A study whose files a worker has not found."""

    study: str
    message: str
    until: str


class Worker(TypedDict):
    """A worker as it last introduced itself."""

    name: str
    host: str
    pid: int
    device: str
    gpu_name: str | None
    memory_bytes: int | None
    version: str
    study: str | None
    task_kinds: list[str]
    gpus: int
    nodes: int
    first_seen: str
    last_seen: str
    seconds_since_seen: float
    alive: bool
    trial_id: int | None
    trial_study: str | None
    trial_number: int | None
    progress: Progress | None
    progress_at: str | None
    faults: int
    fault: Fault | None
    fault_message: str | None
    faulted_at: str | None
    quarantined_at: str | None
    quarantined_until: str | None
    host_fault: Fault | None
    host_fault_message: str | None
    host_quarantined_at: str | None
    host_quarantined_until: str | None
    missing_files: list[MissingFiles]


class Opening(TypedDict):
    """An opening of a sealed test list."""

    id: str
    test_list: str
    split: int
    dataset_version: str
    opened_at: str
    videos: int | None
    reason: str
    checkpoint: str | None
    host: str
    score: dict[str, Any] | None


class Token(TypedDict):
    """An API token, without its text."""

    id: int
    name: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class CreatedToken(TypedDict):
    """A token that was just made, with its text."""

    name: str
    token: str


class Health(TypedDict):
    """The state of the service; who may not read gets the first two."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    database: NotRequired[Literal["ok", "unreachable"] | None]
    optimizer: NotRequired[Literal["ok", "idle", "missing", "unknown"] | None]
