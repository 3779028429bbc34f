"""Keep what the ended trials of a study add up to."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

_TRIGGER: Final = """
CREATE FUNCTION add_to_study_total(ended trial, times integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO study_total (study_id, state, trials, gpu_seconds, used_seconds, saved_seconds, enqueued, replicates,
                             with_epochs, first_started_at)
    SELECT study.id, ended.state, times, times * ended.gpu_seconds,
           times * GREATEST(ended.gpu_seconds, COALESCE((
               SELECT sum(gpus * EXTRACT(epoch FROM COALESCE(ended_at, seen_at) - claimed_at))::float8
               FROM attempt WHERE trial_id = ended.id), 0)),
           CASE WHEN ended.state = 'stopped' AND NOT ended.cancel_requested AND ended.epochs_done > 0
                     AND (study.state <> 'stopped' OR ended.finished_at < study.state_changed_at)
                     AND ended.finished_at < COALESCE(LEAST(study.budget_reached_at, study.search_ended_at), 'infinity')
                THEN times * ended.gpu_seconds / ended.epochs_done
                     * ((study.spec #>> '{task,epochs}')::int - ended.epochs_done)
                ELSE 0 END,
           times * (ended.generator = 'enqueued')::int,
           times * (ended.replicate_of IS NOT NULL AND ended.state <> 'withdrawn')::int,
           times * (ended.epochs_done > 0 OR ended.state = 'completed')::int,
           CASE WHEN times > 0 THEN ended.started_at END
    FROM study WHERE study.id = ended.study_id
$$;
CREATE FUNCTION keep_study_total() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.finished_at IS NOT NULL THEN
        PERFORM add_to_study_total(OLD, -1);
    END IF;
    IF NEW.finished_at IS NOT NULL THEN
        PERFORM add_to_study_total(NEW, 1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER trial_made_ended AFTER INSERT ON trial FOR EACH ROW
WHEN (NEW.finished_at IS NOT NULL AND NEW.origin IS NULL) EXECUTE FUNCTION keep_study_total();
CREATE TRIGGER trial_ended AFTER UPDATE ON trial FOR EACH ROW
WHEN (NEW.origin IS NULL AND (OLD.finished_at IS NOT NULL OR NEW.finished_at IS NOT NULL)
      AND (OLD.finished_at, OLD.state, OLD.cancel_requested, OLD.gpu_seconds, OLD.epochs_done, OLD.started_at,
           OLD.replicate_of, OLD.generator)
          IS DISTINCT FROM
          (NEW.finished_at, NEW.state, NEW.cancel_requested, NEW.gpu_seconds, NEW.epochs_done, NEW.started_at,
           NEW.replicate_of, NEW.generator))
EXECUTE FUNCTION keep_study_total()
"""
_ADD_UP: Final = """
INSERT INTO study_total (study_id, state, trials, gpu_seconds, used_seconds, saved_seconds, enqueued, replicates,
                         with_epochs, first_started_at)
SELECT study.id, ended.state, count(*), sum(ended.gpu_seconds), sum(GREATEST(ended.gpu_seconds, COALESCE((
           SELECT sum(gpus * EXTRACT(epoch FROM COALESCE(ended_at, seen_at) - claimed_at))::float8
           FROM attempt WHERE trial_id = ended.id), 0))),
       COALESCE(sum(ended.gpu_seconds / ended.epochs_done * ((study.spec #>> '{task,epochs}')::int - ended.epochs_done))
           FILTER (WHERE ended.state = 'stopped' AND NOT ended.cancel_requested AND ended.epochs_done > 0
                     AND (study.state <> 'stopped' OR ended.finished_at < study.state_changed_at)
                     AND ended.finished_at
                         < COALESCE(LEAST(study.budget_reached_at, study.search_ended_at), 'infinity')), 0),
       count(*) FILTER (WHERE ended.generator = 'enqueued'),
       count(*) FILTER (WHERE ended.replicate_of IS NOT NULL AND ended.state <> 'withdrawn'),
       count(*) FILTER (WHERE ended.epochs_done > 0 OR ended.state = 'completed'),
       min(ended.started_at)
FROM trial AS ended JOIN study ON study.id = ended.study_id
WHERE ended.finished_at IS NOT NULL AND ended.origin IS NULL
GROUP BY study.id, ended.state
"""


def upgrade() -> None:
    op.create_table(
        "study_total",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.Column("used_seconds", sa.Double(), nullable=False),
        sa.Column("saved_seconds", sa.Double(), nullable=False),
        sa.Column("enqueued", sa.Integer(), nullable=False),
        sa.Column("replicates", sa.Integer(), nullable=False),
        sa.Column("with_epochs", sa.Integer(), nullable=False),
        sa.Column("first_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('completed', 'failed', 'stopped', 'withdrawn')", name=op.f("study_total_state_check")
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("study_total_study_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("study_total_pkey")),
    )
    op.create_index("study_total_study_id_idx", "study_total", ["study_id"])
    op.create_index("trial_open_idx", "trial", ["study_id"], postgresql_where=sa.text("finished_at IS NULL"))
    # Nothing ends between the sums and the trigger, which locks the table of trials.
    op.execute("LOCK TABLE trial IN SHARE ROW EXCLUSIVE MODE")
    op.execute(_TRIGGER)
    op.execute(_ADD_UP)


def downgrade() -> None:
    op.execute("DROP TRIGGER trial_ended ON trial")
    op.execute("DROP TRIGGER trial_made_ended ON trial")
    op.execute("DROP FUNCTION keep_study_total()")
    op.execute("DROP FUNCTION add_to_study_total(trial, integer)")
    op.drop_index("trial_open_idx", table_name="trial")
    op.drop_table("study_total")
