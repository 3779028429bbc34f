"""The tables. Every invariant of the service that one row can show is a constraint here.

`lifecycle.sql` moves trials from state to state; nothing else updates `trial`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.event import listens_for
from sqlalchemy.types import UserDefinedType

from ..trial import MACHINE_FAULTS, TERMINAL_STATES, AttemptEnd, FailureKind, Fault, StudyState, TrialState
from .total_trigger import TRIGGER

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

NOW = text("clock_timestamp()")
TOKEN_KINDS = ("api", "login", "session")
SCOPES = ("admin", "worker", "read")


class TransactionId(UserDefinedType[str]):
    """Postgres' 64-bit transaction number."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Name the type in DDL."""
        return "xid8"


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in sorted(values))})"


def _time() -> DateTime:
    return DateTime(timezone=True)


def _finite(column: str) -> str:
    # NaN sorts above Infinity in Postgres, so the upper bound refuses it too.
    return f"{column} > '-Infinity' AND {column} < 'Infinity'"


def _numbers(column: str) -> str:
    # JSON has no NaN and no infinity: an object of numbers is an object of finite numbers.
    return f"jsonb_typeof({column}) = 'object' AND NOT jsonb_path_exists({column}, '$.* ? (@.type() != \"number\")')"


study = Table(
    "study",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("spec", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    Column("state_reason", Text),
    Column("state_changed_at", _time(), nullable=False, server_default=NOW),
    Column("created_at", _time(), nullable=False, server_default=NOW),
    Column("finished_at", _time()),
    # Set once a limit other than the number of trials is reached: nothing is suggested or claimed any more.
    Column("budget_reached_at", _time()),
    # Trials ever numbered, and those of them that count against budget.trials (neither withdrawn nor replicates).
    Column("next_number", Integer, nullable=False, server_default=text("0")),
    Column("live_trials", Integer, nullable=False, server_default=text("0")),
    # The generator lease: who may suggest. The generation grows with every change of owner.
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    Column("generator_owner", Text),
    Column("generator_expires_at", _time()),
    # What people asked to be tried, in that order: those of the spec, then those that came later. Never shortened: as
    # many of the first as there are trials of the generator `enqueued` have become trials.
    Column("guesses", JSONB, nullable=False, server_default=text("'[]'")),
    # How the best configurations are trained again after the search (NULL: they are not), when the search ended for
    # that, and what the study may use up to then (`study_row.Race`).
    Column("finalists", JSONB(none_as_null=True)),
    Column("search_ended_at", _time()),
    Column("race", JSONB(none_as_null=True)),
    # The limit that set budget_reached_at is budget.max_failed: the study ends as failed.
    Column("too_many_failed", Boolean, nullable=False, server_default=text("false")),
    # The identity of the study, also among studies of other databases: ids begin at 1 in each.
    Column("uuid", Uuid, nullable=False, unique=True, server_default=text("gen_random_uuid()")),
    # Every trial has its rows in `mark`; a study of an earlier release gets them when they are first needed.
    Column("marked", Boolean, nullable=False, server_default=text("false")),
    # What of the service fails with this study, a sentence on a line for each part; NULL where nothing does.
    Column("fault", Text),
    # Grows with every change of the spec.
    Column("revision", Integer, nullable=False, server_default=text("1")),
    # Which workers can run its trials; specs do not write the kind of a video task.
    Column("task_kind", Text, Computed("COALESCE(spec #>> '{task,kind}', 'video')", persisted=True), nullable=False),
    # The GPUs that each of its trials needs on a machine.
    Column(
        "gpus", Integer, Computed("COALESCE((spec #>> '{resources,gpus}')::integer, 1)", persisted=True), nullable=False
    ),
    # The machines that these are of, so many GPUs on each.
    Column(
        "nodes",
        Integer,
        Computed("COALESCE((spec #>> '{resources,nodes}')::integer, 1)", persisted=True),
        nullable=False,
    ),
    # What a person has noted about the study; NULL where nobody has.
    Column("note", Text),
    CheckConstraint("length(note) BETWEEN 1 AND 20000", name="note_check"),
    CheckConstraint("length(name) BETWEEN 1 AND 100", name="name_check"),
    CheckConstraint("jsonb_typeof(spec) = 'object' AND spec ->> 'name' = name", name="spec_check"),
    CheckConstraint(_one_of("state", StudyState), name="state_check"),
    CheckConstraint(
        "state = 'stopped' OR (state IN ('completed', 'failed')) = (finished_at IS NOT NULL)",
        name="finished_check",
    ),
    CheckConstraint("live_trials BETWEEN 0 AND next_number", name="count_check"),
    CheckConstraint("generation >= 0", name="generation_check"),
    CheckConstraint("revision >= 1", name="revision_check"),
    CheckConstraint("(generator_owner IS NULL) = (generator_expires_at IS NULL)", name="generator_check"),
    CheckConstraint("jsonb_typeof(guesses) = 'array'", name="guesses_check"),
    CheckConstraint("jsonb_typeof(finalists) = 'object'", name="finalists_check"),
    CheckConstraint(
        "(race IS NULL) = (search_ended_at IS NULL) AND (race IS NULL OR finalists IS NOT NULL)", name="race_check"
    ),
)

trial = Table(
    "trial",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("study_id", BigInteger, ForeignKey("study.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("params", JSONB, nullable=False),
    Column("generator", Text, nullable=False),
    Column("predicted_mean", Double),
    Column("predicted_sd", Double),
    Column("state", Text, nullable=False, server_default=text("'suggested'")),
    # 2 for a trial that has run before, since what was begun is finished first; 1 for what a person asked for.
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("not_before", _time()),
    Column("required_memory_bytes", BigInteger),
    # The fence. A lease id that stays after the lease expired lets its owner come back until somebody else claims;
    # one that stays in a terminal state is that of the worker whose result was accepted.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("lease_id", Uuid, unique=True),
    # The token that claimed: no other may speak for the trial. NULL: claimed under release 0.2.0 or earlier.
    Column("lease_token", BigInteger),
    Column("lease_worker", Text),
    Column("lease_seconds", Double),
    Column("lease_expires_at", _time()),
    Column("retries", Integer, nullable=False, server_default=text("0")),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("metrics", JSONB),
    Column("failure_kind", Text),
    Column("failure_message", Text),
    Column("epochs_done", Integer, nullable=False, server_default=text("0")),
    Column("gpu_seconds", Double, nullable=False, server_default=text("0")),
    Column("peak_memory_bytes", BigInteger),
    Column("checkpoint", Text),
    Column("dataset_version", Text),
    Column("environment", JSONB, nullable=False, server_default=text("'{}'")),
    Column("created_at", _time(), nullable=False, server_default=NOW),
    Column("started_at", _time()),
    Column("finished_at", _time()),
    # Paused by the stopping rule: not handed out before it is promoted.
    Column("held", Boolean, nullable=False, server_default=text("false")),
    Column("predicted_feasibility", Double),
    # The number of the first trial of the same configuration; with it, it does not count against budget.trials.
    Column("replicate_of", Integer),
    # What the last attempt that began to train started from, a list of LoadedWeights.
    Column("weights", JSONB),
    # Where a result from elsewhere was measured (`hpo.protocol.Origin`): no worker has had it, and no budget counts it.
    Column("origin", JSONB(none_as_null=True)),
    UniqueConstraint("study_id", "number"),
    ForeignKeyConstraint(
        ["study_id", "replicate_of"], ["trial.study_id", "trial.number"], name="trial_replicate_of_fkey"
    ),
    CheckConstraint("replicate_of < number", name="replicate_check"),
    CheckConstraint("number >= 0", name="number_check"),
    CheckConstraint("jsonb_typeof(params) = 'object'", name="params_check"),
    CheckConstraint(_finite("predicted_mean"), name="predicted_mean_check"),
    CheckConstraint("predicted_sd >= 0 AND predicted_sd < 'Infinity'", name="predicted_sd_check"),
    CheckConstraint(_one_of("state", TrialState), name="state_check"),
    CheckConstraint("priority >= 0", name="priority_check"),
    CheckConstraint("not_before IS NULL OR state = 'suggested'", name="not_before_check"),
    CheckConstraint("required_memory_bytes > 0", name="required_memory_check"),
    CheckConstraint("attempt >= 0", name="attempt_check"),
    CheckConstraint("retries BETWEEN 0 AND attempt", name="retries_check"),
    CheckConstraint(
        "(state = 'running') = (lease_expires_at IS NOT NULL)"
        " AND (state <> 'running' OR (lease_id IS NOT NULL AND lease_worker IS NOT NULL AND lease_seconds > 0))",
        name="lease_check",
    ),
    CheckConstraint("(attempt > 0) = (started_at IS NOT NULL)", name="started_check"),
    CheckConstraint(
        "attempt > 0 OR (lease_id IS NULL AND (origin IS NOT NULL OR state IN ('suggested', 'withdrawn')))",
        name="unclaimed_check",
    ),
    CheckConstraint(
        "origin IS NULL OR (attempt = 0 AND finished_at IS NOT NULL AND replicate_of IS NULL"
        " AND jsonb_typeof(origin -> 'key') = 'string')",
        name="origin_check",
    ),
    CheckConstraint(f"({_one_of('state', TERMINAL_STATES)}) = (finished_at IS NOT NULL)", name="finished_check"),
    CheckConstraint("(state = 'failed') = (failure_kind IS NOT NULL)", name="failure_check"),
    CheckConstraint(_one_of("failure_kind", FailureKind), name="failure_kind_check"),
    CheckConstraint(_numbers("metrics"), name="metrics_check"),
    CheckConstraint("metrics IS NOT NULL OR state <> 'completed'", name="completed_check"),
    CheckConstraint("metrics IS NULL OR state IN ('completed', 'stopped')", name="result_check"),
    CheckConstraint("epochs_done >= 0", name="epochs_check"),
    CheckConstraint("gpu_seconds >= 0 AND gpu_seconds < 'Infinity'", name="gpu_seconds_check"),
    CheckConstraint("peak_memory_bytes > 0", name="peak_memory_check"),
    CheckConstraint("jsonb_typeof(environment) = 'object'", name="environment_check"),
    CheckConstraint("NOT held OR state = 'paused'", name="held_check"),
    CheckConstraint("predicted_feasibility BETWEEN 0 AND 1", name="predicted_feasibility_check"),
)
Index(
    "trial_waiting_idx",
    trial.c.study_id,
    trial.c.held,
    trial.c.priority.desc(),
    trial.c.id,
    postgresql_where=text("state IN ('suggested', 'paused')"),
)
Index(
    "trial_origin_idx",
    trial.c.study_id,
    trial.c.origin["key"].astext,
    unique=True,
    postgresql_where=text("origin IS NOT NULL AND state <> 'withdrawn'"),
)
Index("trial_open_idx", trial.c.study_id, postgresql_where=text("finished_at IS NULL"))
Index("trial_leased_idx", trial.c.lease_expires_at, postgresql_where=text("state = 'running'"))

study_total = Table(
    "study_total",
    metadata,
    # What the ended trials of a study add up to: the sum over all of its rows of a state (`totals.py`).
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("study_id", BigInteger, ForeignKey("study.id", ondelete="CASCADE"), nullable=False),
    Column("state", Text, nullable=False),
    # Negative where a trial is not in that state any more, as are the following.
    Column("trials", Integer, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    Column("used_seconds", Double, nullable=False),
    Column("saved_seconds", Double, nullable=False),
    Column("enqueued", Integer, nullable=False),
    Column("replicates", Integer, nullable=False),
    Column("with_epochs", Integer, nullable=False),
    Column("first_started_at", _time()),
    CheckConstraint(_one_of("state", TERMINAL_STATES), name="state_check"),
)
Index("study_total_study_id_idx", study_total.c.study_id)

attempt = Table(
    "attempt",
    metadata,
    # One row for each claim of a trial. A device is in use from the claim to the end; see `usage.py`.
    Column("trial_id", BigInteger, ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("claimed_at", _time(), nullable=False),
    # The last sign of life: claim, report, release or result.
    Column("seen_at", _time(), nullable=False),
    Column("ended_at", _time()),
    Column("ended_as", Text),
    # What was wrong with the machine, as far as its worker knew.
    Column("fault", Text),
    # That of the claim: it is good for one, also after the trial was given back. NULL before release 0.3.0.
    Column("lease_id", Uuid, unique=True),
    # The GPUs that it has, on all machines.
    Column("gpus", Integer, nullable=False, server_default=text("1")),
    # How far it was when its worker last said so, a Progress.
    Column("progress", JSONB(none_as_null=True)),
    Column("progress_at", _time()),
    CheckConstraint("attempt >= 1", name="attempt_check"),
    CheckConstraint("gpus >= 1", name="gpus_check"),
    CheckConstraint("claimed_at <= seen_at AND seen_at <= ended_at", name="order_check"),
    CheckConstraint("(ended_at IS NULL) = (ended_as IS NULL)", name="ended_check"),
    CheckConstraint(_one_of("ended_as", AttemptEnd), name="ended_as_check"),
    CheckConstraint(_one_of("fault", Fault), name="fault_check"),
    CheckConstraint("fault IS NULL OR ended_as = 'crashed'", name="fault_ended_check"),
    CheckConstraint(
        "jsonb_typeof(progress) = 'object' AND (progress IS NULL) = (progress_at IS NULL)", name="progress_check"
    ),
)
Index("attempt_fault_idx", attempt.c.worker, attempt.c.ended_at, postgresql_where=text("fault IS NOT NULL"))

log_part = Table(
    "log_part",
    metadata,
    # What an attempt printed, as its worker sent it: bytes `start` to `stop` of its log. Only the end is kept.
    Column("trial_id", BigInteger, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("stop", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    ForeignKeyConstraint(
        ["trial_id", "attempt"],
        ["attempt.trial_id", "attempt.attempt"],
        name="log_part_attempt_fkey",
        ondelete="CASCADE",
    ),
    CheckConstraint("start >= 0 AND start < stop", name="place_check"),
)

earlier_trial = Table(
    "earlier_trial",
    metadata,
    # What a study has taken over from others when it was made: a copy, so that they may change or be deleted.
    Column("study_id", BigInteger, ForeignKey("study.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("source", Text, nullable=False),
    Column("params", JSONB, nullable=False),
    Column("metrics", JSONB, nullable=False),
    # The SHA-256 of each file that the trial started from, by its source.
    Column("weights", JSONB(none_as_null=True)),
    CheckConstraint("place >= 0", name="place_check"),
    CheckConstraint("jsonb_typeof(params) = 'object'", name="params_check"),
    CheckConstraint(_numbers("metrics"), name="metrics_check"),
    CheckConstraint("jsonb_typeof(weights) = 'object'", name="weights_check"),
)

measurement = Table(
    "measurement",
    metadata,
    Column("trial_id", BigInteger, ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("metrics", JSONB, nullable=False),
    Column("wall_seconds", Double, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    Column("created_at", _time(), nullable=False, server_default=NOW),
    CheckConstraint("attempt >= 1", name="attempt_check"),
    CheckConstraint("step >= 1", name="step_check"),
    CheckConstraint(_numbers("metrics"), name="metrics_check"),
    CheckConstraint("wall_seconds >= 0 AND wall_seconds < 'Infinity'", name="wall_seconds_check"),
    CheckConstraint("gpu_seconds >= 0 AND gpu_seconds < 'Infinity'", name="gpu_seconds_check"),
)

confusion = Table(
    "confusion",
    metadata,
    # How the newest validation of a trial classified its videos, a Confusion. Nothing is decided by it.
    Column("trial_id", BigInteger, ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("counts", JSONB, nullable=False),
    CheckConstraint("attempt >= 1", name="attempt_check"),
    CheckConstraint("step >= 1", name="step_check"),
    CheckConstraint("jsonb_typeof(counts) = 'object'", name="counts_check"),
)

mark = Table(
    "mark",
    metadata,
    # What the stopping rule compares, by trial (`hpo.stopping.standing`). The study is here for the index alone.
    Column("trial_id", BigInteger, ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    Column("board", Text, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("study_id", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    Column("own", Double),
    CheckConstraint("place >= 0", name="place_check"),
    CheckConstraint(_finite("value"), name="value_check"),
    CheckConstraint(_finite("own"), name="own_check"),
)
Index("mark_place_idx", mark.c.study_id, mark.c.board, mark.c.place, mark.c.value, mark.c.trial_id)

worker = Table(
    "worker",
    metadata,
    Column("name", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("gpu_name", Text),
    Column("memory_bytes", BigInteger),
    Column("version", Text, nullable=False, server_default=text("''")),
    # What its process drew when it started; NULL of a worker up to release 0.2.0.
    Column("start_id", Text),
    # The one study it asks for; NULL when it takes any.
    Column("study", Text),
    # The kinds of task whose trials it runs; workers up to release 0.2.0 do not say them, and train videos.
    Column("task_kinds", ARRAY(Text), nullable=False, server_default=text("'{video}'")),
    # The GPUs that a trial may have there, on each machine; `memory_bytes` is that of one.
    Column("gpus", Integer, nullable=False, server_default=text("1")),
    # The machines that it and its followers are: a trial has all of them.
    Column("nodes", Integer, nullable=False, server_default=text("1")),
    Column("first_seen", _time(), nullable=False, server_default=NOW),
    Column("last_seen", _time(), nullable=False, server_default=NOW),
    # Faults since it last trained an epoch: how many, when the first and the last, and what the last was.
    Column("faults", Integer, nullable=False, server_default=text("0")),
    Column("faulty_since", _time()),
    Column("faulted_at", _time()),
    Column("fault", Text),
    Column("fault_message", Text),
    # It gets no trials; at the second time it may try one.
    Column("quarantined_at", _time()),
    Column("quarantined_until", _time()),
    # Files that it missed before may be there by now: it was started again, or a person let it have trials.
    Column("cleared_at", _time()),
    CheckConstraint("faults >= 0", name="faults_check"),
    CheckConstraint(_one_of("fault", Fault), name="fault_check"),
    CheckConstraint(
        "(faults > 0) = (faulty_since IS NOT NULL) AND (faults > 0) = (faulted_at IS NOT NULL)"
        " AND (faults > 0) = (fault IS NOT NULL)",
        name="faulty_check",
    ),
    CheckConstraint(
        "(quarantined_at IS NULL) = (quarantined_until IS NULL) AND (quarantined_at IS NULL OR faults > 0)",
        name="quarantine_check",
    ),
    CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_check"),
    CheckConstraint("memory_bytes > 0", name="memory_check"),
    CheckConstraint("gpus >= 1", name="gpus_check"),
    CheckConstraint("nodes >= 1", name="nodes_check"),
)

host_quarantine = Table(
    "host_quarantine",
    metadata,
    # A host of which several workers are in quarantine for one fault: none of its workers gets a trial, except one that
    # tries after the second time.
    Column("host", Text, primary_key=True),
    Column("fault", Text, nullable=False),
    Column("fault_message", Text),
    # Faults of its workers since it is in quarantine, and when the last was.
    Column("faults", Integer, nullable=False, server_default=text("0")),
    Column("faulted_at", _time(), nullable=False, server_default=NOW),
    Column("quarantined_at", _time(), nullable=False, server_default=NOW),
    Column("quarantined_until", _time(), nullable=False),
    CheckConstraint(_one_of("fault", MACHINE_FAULTS), name="fault_check"),
    CheckConstraint("faults >= 0", name="faults_check"),
)

optimizer = Table(
    "optimizer",
    metadata,
    # The processes that suggest, which share the studies (`hpo/service/sharing.py`). One lives until its row expires.
    Column("owner", Text, primary_key=True),
    Column("started_at", _time(), nullable=False, server_default=NOW),
    Column("expires_at", _time(), nullable=False),
    # When it last looked at all studies: while it is busy with one of them it does not.
    Column("looked_at", _time(), nullable=False, server_default=NOW),
    # How often it has made or changed suggestions, and how long that took in all.
    Column("steps", BigInteger, nullable=False, server_default=text("0")),
    Column("busy_seconds", Double, nullable=False, server_default=text("0")),
    CheckConstraint("length(owner) >= 1", name="owner_check"),
    CheckConstraint("steps >= 0", name="steps_check"),
    CheckConstraint("busy_seconds >= 0 AND busy_seconds < 'Infinity'", name="busy_seconds_check"),
)

test_opening = Table(
    "test_opening",
    metadata,
    # A sealed test list was opened. It belongs to no study: deleting the study does not seal the list again.
    Column("id", Uuid, primary_key=True),
    Column("test_list", Text, nullable=False),
    Column("split", Integer, nullable=False),
    Column("dataset_version", Text, nullable=False),
    Column("opened_at", _time(), nullable=False),
    Column("videos", Integer),
    Column("reason", Text, nullable=False),
    # SHA-256 of the file that was scored; NULL where a release up to 0.2.0 recorded the opening.
    Column("checkpoint", Text),
    Column("host", Text, nullable=False, server_default=text("''")),
    Column("score", JSONB),
    Column("actor", Text, nullable=False),
    Column("recorded_at", _time(), nullable=False, server_default=NOW),
    CheckConstraint("test_list ~ '^[0-9a-f]{32}$'", name="test_list_check"),
    CheckConstraint("checkpoint ~ '^[0-9a-f]{64}$'", name="checkpoint_check"),
    CheckConstraint("split >= 1", name="split_check"),
    CheckConstraint("videos >= 1", name="videos_check"),
    CheckConstraint("jsonb_typeof(score) = 'object'", name="score_check"),
)
Index("test_opening_list_idx", test_opening.c.test_list, test_opening.c.opened_at)

event = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # Identities are drawn before the commit; only the transaction's number shows what can still appear before.
    Column("transaction_id", TransactionId, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("study_id", BigInteger, ForeignKey("study.id", ondelete="CASCADE")),
    Column("trial_id", BigInteger, ForeignKey("trial.id", ondelete="CASCADE")),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("created_at", _time(), nullable=False, server_default=NOW),
    CheckConstraint("jsonb_typeof(detail) = 'object'", name="detail_check"),
    Index("event_stream_idx", "study_id", "transaction_id", "id"),
    Index("event_trial_id_idx", "trial_id"),
    Index(
        "event_checkpoint_idx",
        "study_id",
        "kind",
        "trial_id",
        postgresql_where=text("kind IN ('trial.exported', 'trial.checkpoint_removed')"),
    ),
    Index(
        "event_notice_idx",
        "study_id",
        "kind",
        "transaction_id",
        "id",
        postgresql_where=text("kind IN ('study.importance', 'study.few_clips')"),
    ),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default=text("'api'")),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", _time(), nullable=False, server_default=NOW),
    Column("expires_at", _time()),
    Column("revoked_at", _time()),
    Column("last_used_at", _time()),
    # Whose login code or session this is: it ends with that token.
    Column("parent_id", BigInteger, ForeignKey("api_token.id", ondelete="CASCADE")),
    CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_check"),
    CheckConstraint(_one_of("kind", TOKEN_KINDS), name="kind_check"),
    CheckConstraint("octet_length(hash) = 32", name="hash_check"),
    CheckConstraint("cardinality(scopes) > 0 AND scopes <@ ARRAY['admin', 'worker', 'read']", name="scopes_check"),
    CheckConstraint("kind = 'api' OR expires_at IS NOT NULL", name="expiry_check"),
)


@listens_for(metadata, "after_create")
def _make_trigger(_: MetaData, connection: Connection, **_options: object) -> None:
    connection.exec_driver_sql(TRIGGER)
