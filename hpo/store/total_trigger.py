"""The trigger that keeps what the ended trials of a study add up to; `totals.py` says why. Migrations have a copy."""

from __future__ import annotations

from typing import Final

TRIGGER: Final = """
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
