"""Make the tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


class _TransactionId(UserDefinedType[str]):
    def get_col_spec(self, **_: object) -> str:
        return "xid8"


def upgrade() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default=sa.text("'api'"), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ ARRAY['admin', 'worker', 'read']",
            name=op.f("api_token_scopes_check"),
        ),
        sa.CheckConstraint("kind = 'api' OR expires_at IS NOT NULL", name=op.f("api_token_expiry_check")),
        sa.CheckConstraint("kind IN ('api', 'login', 'session')", name=op.f("api_token_kind_check")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name=op.f("api_token_name_check")),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("api_token_hash_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_token_pkey")),
        sa.UniqueConstraint("hash", name=op.f("api_token_hash_key")),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column(
            "state_changed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("budget_reached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_number", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("live_trials", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("generator_owner", sa.Text(), nullable=True),
        sa.Column("generator_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state = 'stopped' OR (state = 'completed') = (finished_at IS NOT NULL)",
            name=op.f("study_finished_check"),
        ),
        sa.CheckConstraint("jsonb_typeof(spec) = 'object' AND spec ->> 'name' = name", name=op.f("study_spec_check")),
        sa.CheckConstraint("state IN ('active', 'completed', 'paused', 'stopped')", name=op.f("study_state_check")),
        sa.CheckConstraint(
            "(generator_owner IS NULL) = (generator_expires_at IS NULL)", name=op.f("study_generator_check")
        ),
        sa.CheckConstraint("generation >= 0", name=op.f("study_generation_check")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 100", name=op.f("study_name_check")),
        sa.CheckConstraint("live_trials BETWEEN 0 AND next_number", name=op.f("study_count_check")),
        sa.CheckConstraint("revision >= 1", name=op.f("study_revision_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("study_pkey")),
        sa.UniqueConstraint("name", name=op.f("study_name_key")),
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("gpu_name", sa.Text(), nullable=True),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("study", sa.Text(), nullable=True),
        sa.Column(
            "first_seen", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("last_seen", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("jsonb_typeof(labels) = 'object'", name=op.f("worker_labels_check")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name=op.f("worker_name_check")),
        sa.CheckConstraint("memory_bytes > 0", name=op.f("worker_memory_check")),
        sa.PrimaryKeyConstraint("name", name=op.f("worker_pkey")),
    )
    op.create_table(
        "trial",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("generator", sa.Text(), nullable=False),
        sa.Column("predicted_mean", sa.Double(), nullable=True),
        sa.Column("predicted_sd", sa.Double(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'suggested'"), nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("required_memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("lease_worker", sa.Text(), nullable=True),
        sa.Column("lease_seconds", sa.Double(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("epochs_done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("gpu_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("checkpoint", sa.Text(), nullable=True),
        sa.Column("dataset_version", sa.Text(), nullable=True),
        sa.Column(
            "environment", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'failed') = (failure_kind IS NOT NULL)", name=op.f("trial_failure_check")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_expires_at IS NOT NULL) AND (state <> 'running' OR (lease_id IS NOT NULL AND lease_worker IS NOT NULL AND lease_seconds > 0))",
            name=op.f("trial_lease_check"),
        ),
        sa.CheckConstraint(
            "(state IN ('completed', 'failed', 'stopped', 'withdrawn')) = (finished_at IS NOT NULL)",
            name=op.f("trial_finished_check"),
        ),
        sa.CheckConstraint("attempt = 0 OR state <> 'withdrawn'", name=op.f("trial_withdrawn_check")),
        sa.CheckConstraint(
            "attempt > 0 OR (lease_id IS NULL AND state IN ('suggested', 'withdrawn'))",
            name=op.f("trial_unclaimed_check"),
        ),
        sa.CheckConstraint(
            "failure_kind IN ('diverged', 'error', 'invalid', 'lost', 'oom', 'timeout')",
            name=op.f("trial_failure_kind_check"),
        ),
        sa.CheckConstraint("gpu_seconds >= 0 AND gpu_seconds < 'Infinity'", name=op.f("trial_gpu_seconds_check")),
        sa.CheckConstraint("jsonb_typeof(environment) = 'object'", name=op.f("trial_environment_check")),
        sa.CheckConstraint("jsonb_typeof(params) = 'object'", name=op.f("trial_params_check")),
        sa.CheckConstraint("metrics IS NOT NULL OR state <> 'completed'", name=op.f("trial_completed_check")),
        sa.CheckConstraint("metrics IS NULL OR state IN ('completed', 'stopped')", name=op.f("trial_result_check")),
        sa.CheckConstraint("not_before IS NULL OR state = 'suggested'", name=op.f("trial_not_before_check")),
        sa.CheckConstraint(
            "predicted_mean > '-Infinity' AND predicted_mean < 'Infinity'", name=op.f("trial_predicted_mean_check")
        ),
        sa.CheckConstraint("predicted_sd >= 0 AND predicted_sd < 'Infinity'", name=op.f("trial_predicted_sd_check")),
        sa.CheckConstraint(
            "state IN ('completed', 'failed', 'paused', 'running', 'stopped', 'suggested', 'withdrawn')",
            name=op.f("trial_state_check"),
        ),
        sa.CheckConstraint("(attempt > 0) = (started_at IS NOT NULL)", name=op.f("trial_started_check")),
        sa.CheckConstraint("attempt >= 0", name=op.f("trial_attempt_check")),
        sa.CheckConstraint("epochs_done >= 0", name=op.f("trial_epochs_check")),
        sa.CheckConstraint(
            "jsonb_typeof(metrics) = 'object' AND NOT jsonb_path_exists(metrics, '$.* ? (@.type() != \"number\")')",
            name=op.f("trial_metrics_check"),
        ),
        sa.CheckConstraint("number >= 0", name=op.f("trial_number_check")),
        sa.CheckConstraint("peak_memory_bytes > 0", name=op.f("trial_peak_memory_check")),
        sa.CheckConstraint("priority >= 0", name=op.f("trial_priority_check")),
        sa.CheckConstraint("required_memory_bytes > 0", name=op.f("trial_required_memory_check")),
        sa.CheckConstraint("retries BETWEEN 0 AND attempt", name=op.f("trial_retries_check")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("trial_study_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("trial_pkey")),
        sa.UniqueConstraint("lease_id", name=op.f("trial_lease_id_key")),
        sa.UniqueConstraint("study_id", "number", name=op.f("trial_study_id_number_key")),
    )
    op.create_index(
        "trial_claimable_idx",
        "trial",
        [sa.literal_column("priority DESC"), "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('suggested', 'paused')"),
    )
    op.create_index(
        "trial_leased_idx", "trial", ["lease_expires_at"], unique=False, postgresql_where=sa.text("state = 'running'")
    )
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("transaction_id", _TransactionId(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=True),
        sa.Column("trial_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("jsonb_typeof(detail) = 'object'", name=op.f("event_detail_check")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("event_study_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("event_trial_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("event_pkey")),
    )
    op.create_index("event_stream_idx", "event", ["study_id", "transaction_id", "id"], unique=False)
    op.create_index("event_trial_id_idx", "event", ["trial_id"], unique=False)
    op.create_table(
        "measurement",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("wall_seconds", sa.Double(), nullable=False),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("gpu_seconds >= 0 AND gpu_seconds < 'Infinity'", name=op.f("measurement_gpu_seconds_check")),
        sa.CheckConstraint(
            "wall_seconds >= 0 AND wall_seconds < 'Infinity'", name=op.f("measurement_wall_seconds_check")
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("measurement_attempt_check")),
        sa.CheckConstraint(
            "jsonb_typeof(metrics) = 'object' AND NOT jsonb_path_exists(metrics, '$.* ? (@.type() != \"number\")')",
            name=op.f("measurement_metrics_check"),
        ),
        sa.CheckConstraint("step >= 1", name=op.f("measurement_step_check")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("measurement_trial_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "attempt", "step", name=op.f("measurement_pkey")),
    )


def downgrade() -> None:
    op.drop_table("measurement")
    op.drop_index("event_trial_id_idx", table_name="event")
    op.drop_index("event_stream_idx", table_name="event")
    op.drop_table("event")
    op.drop_index("trial_leased_idx", table_name="trial", postgresql_where=sa.text("state = 'running'"))
    op.drop_index(
        "trial_claimable_idx", table_name="trial", postgresql_where=sa.text("state IN ('suggested', 'paused')")
    )
    op.drop_table("trial")
    op.drop_table("worker")
    op.drop_table("study")
    op.drop_table("api_token")
