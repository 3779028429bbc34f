-- The life of a trial. These statements, and no others, move a trial from one state to another.
--
-- Each is one transition in one statement. A statement that acts for a worker carries the fence: it compares trial,
-- attempt and lease id for equality, so a worker that lost its lease changes nothing. Rows are locked in a
-- materialized CTE first, study before trial, so that what the statement then decides on is the newest version.
-- Only clock_timestamp() of this server decides about time.


-- name: suggest
-- (nothing) -> suggested. Only the holder of the generator lease, only for an active study, never beyond
-- budget.trials. The counter on the study row, which stays locked until the commit, keeps the numbers gap-free.
WITH place AS MATERIALIZED (
    SELECT id, next_number, LEAST(:wanted, COALESCE((spec #>> '{budget,trials}')::int - live_trials, :wanted)) AS room
    FROM study
    WHERE id = :study_id
      AND state = 'active'
      AND budget_reached_at IS NULL
      AND generation = :generation
      AND generator_owner = :owner
      AND generator_expires_at > clock_timestamp()
    FOR NO KEY UPDATE
), added AS (
    INSERT INTO trial (study_id, number, params, generator, priority, predicted_mean, predicted_sd,
                       predicted_feasibility, required_memory_bytes)
    SELECT place.id,
           place.next_number + proposed.position - 1,
           proposed.value -> 'params',
           proposed.value ->> 'generator',
           (proposed.value ->> 'priority')::int,
           (proposed.value ->> 'predicted_mean')::float8,
           (proposed.value ->> 'predicted_sd')::float8,
           (proposed.value ->> 'predicted_feasibility')::float8,
           (proposed.value ->> 'required_memory_bytes')::bigint
    FROM place,
         jsonb_array_elements(CAST(:suggestions AS jsonb)) WITH ORDINALITY AS proposed (value, position)
    WHERE proposed.position <= place.room
    RETURNING id
), counted AS (
    UPDATE study
    SET next_number = study.next_number + (SELECT count(*) FROM added),
        live_trials = study.live_trials + (SELECT count(*) FROM added)
    WHERE study.id = :study_id AND EXISTS (SELECT FROM added)
)
SELECT id FROM added;


-- name: replace_suggestion
-- suggested -> suggested. New parameters in place for a suggestion that nobody has ever claimed.
WITH place AS MATERIALIZED (
    SELECT study.id
    FROM study
    WHERE study.id = (SELECT study_id FROM trial WHERE trial.id = :trial_id)
      AND study.state = 'active'
      AND study.budget_reached_at IS NULL
      AND study.generation = :generation
      AND study.generator_owner = :owner
      AND study.generator_expires_at > clock_timestamp()
    FOR NO KEY UPDATE
), old AS MATERIALIZED (
    SELECT trial.id, trial.params
    FROM trial
    JOIN place ON place.id = trial.study_id
    WHERE trial.id = :trial_id AND trial.state = 'suggested' AND trial.attempt = 0
    FOR NO KEY UPDATE OF trial
)
UPDATE trial
SET params = CAST(:params AS jsonb),
    generator = :generator,
    priority = :priority,
    predicted_mean = :predicted_mean,
    predicted_sd = :predicted_sd,
    predicted_feasibility = CAST(:predicted_feasibility AS float8),
    required_memory_bytes = CAST(:required_memory_bytes AS bigint),
    created_at = clock_timestamp()
FROM old
WHERE trial.id = old.id
RETURNING trial.study_id, old.params AS old_params;


-- name: withdraw
-- suggested -> withdrawn. Suggestions that nobody has ever claimed; they no longer count against budget.trials.
WITH place AS MATERIALIZED (
    SELECT id FROM study WHERE id = :study_id FOR NO KEY UPDATE
), gone AS (
    UPDATE trial
    SET state = 'withdrawn', finished_at = clock_timestamp()
    FROM place
    WHERE trial.study_id = place.id AND trial.state = 'suggested' AND trial.attempt = 0
    RETURNING trial.id
), counted AS (
    UPDATE study
    SET live_trials = study.live_trials - (SELECT count(*) FROM gone)
    WHERE study.id = :study_id AND EXISTS (SELECT FROM gone)
)
SELECT id FROM gone;


-- name: close
-- suggested (retry) | paused -> stopped. The study has ended: what had begun and waits keeps what it has measured.
WITH ended AS MATERIALIZED (
    SELECT id FROM study
    WHERE id = :study_id AND (state = 'stopped' OR budget_reached_at IS NOT NULL)
    FOR NO KEY UPDATE
), waiting AS MATERIALIZED (
    SELECT trial.id
    FROM trial
    JOIN ended ON ended.id = trial.study_id
    WHERE trial.state = 'paused' OR (trial.state = 'suggested' AND trial.attempt > 0)
    FOR NO KEY UPDATE OF trial
)
UPDATE trial
SET state = 'stopped',
    metrics = (SELECT measurement.metrics FROM measurement WHERE measurement.trial_id = trial.id
               ORDER BY measurement.attempt DESC, measurement.step DESC LIMIT 1),
    lease_id = NULL,
    not_before = NULL,
    held = false,
    finished_at = clock_timestamp()
FROM waiting
WHERE trial.id = waiting.id
RETURNING trial.id;


-- name: promote
-- paused (held) -> paused (to be claimed). The stopping rule lets it continue by what is known now.
WITH place AS MATERIALIZED (
    SELECT id FROM study
    WHERE id = :study_id AND state = 'active' AND budget_reached_at IS NULL
    FOR NO KEY UPDATE
), chosen AS MATERIALIZED (
    SELECT trial.id
    FROM trial
    JOIN place ON place.id = trial.study_id
    WHERE trial.id = ANY(:trial_ids) AND trial.state = 'paused' AND trial.held
    FOR NO KEY UPDATE OF trial
)
UPDATE trial
SET held = false
FROM chosen
WHERE trial.id = chosen.id
RETURNING trial.id;


-- name: close_held
-- paused (held) -> stopped. All trials of the budget are there and none but held ones is open: nothing is left that
-- could make the stopping rule think again.
WITH place AS MATERIALIZED (
    SELECT id FROM study
    WHERE id = :study_id AND state = 'active' AND live_trials >= (spec #>> '{budget,trials}')::int
    FOR NO KEY UPDATE
), waiting AS MATERIALIZED (
    SELECT trial.id
    FROM trial
    JOIN place ON place.id = trial.study_id
    WHERE trial.held
      AND NOT EXISTS (SELECT FROM trial AS other
                      WHERE other.study_id = place.id AND other.finished_at IS NULL AND NOT other.held)
    FOR NO KEY UPDATE OF trial
)
UPDATE trial
SET state = 'stopped',
    held = false,
    metrics = (SELECT measurement.metrics FROM measurement WHERE measurement.trial_id = trial.id
               ORDER BY measurement.attempt DESC, measurement.step DESC LIMIT 1),
    finished_at = clock_timestamp()
FROM waiting
WHERE trial.id = waiting.id
RETURNING trial.id;


-- name: reclaim
-- running -> running. The reply to a claim was lost and the worker asks again: the same lease, renewed.
UPDATE trial
SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds), lease_seconds = :lease_seconds
WHERE lease_id = CAST(:lease_id AS uuid) AND state = 'running'
RETURNING id, study_id, number, attempt, params, checkpoint, epochs_done;


-- name: claim
-- suggested | paused -> running. What was begun before first, then what a person asked for, then in the order of
-- suggestion. SKIP LOCKED lets claimers pass each other; NO KEY, because inserted measurements and events share-lock
-- the key of their trial.
WITH chosen AS MATERIALIZED (
    SELECT trial.id
    FROM trial
    JOIN study ON study.id = trial.study_id
    WHERE trial.state IN ('suggested', 'paused')
      AND NOT trial.held
      AND study.state = 'active'
      AND study.budget_reached_at IS NULL
      AND (CAST(:study AS text) IS NULL OR study.name = :study)
      AND (trial.not_before IS NULL OR trial.not_before <= clock_timestamp())
      AND (trial.required_memory_bytes IS NULL OR CAST(:memory_bytes AS bigint) IS NULL
           OR trial.required_memory_bytes <= :memory_bytes)
    ORDER BY trial.priority DESC, trial.id
    LIMIT 1
    FOR NO KEY UPDATE OF trial SKIP LOCKED
)
UPDATE trial
SET state = 'running',
    attempt = trial.attempt + 1,
    lease_id = CAST(:lease_id AS uuid),
    lease_worker = :worker,
    lease_seconds = :lease_seconds,
    lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds),
    not_before = NULL,
    started_at = COALESCE(trial.started_at, clock_timestamp())
FROM chosen
WHERE trial.id = chosen.id
RETURNING trial.id, trial.study_id, trial.number, trial.attempt, trial.params, trial.checkpoint, trial.epochs_done;


-- name: report
-- running | suggested (lease expired, nobody else came) -> running. Heartbeat and measurements in one. A worker that
-- comes back to a trial that nobody has re-claimed was not dead: it continues, and the retry is given back. A measurement
-- sent twice is kept once, and its GPU time is counted once.
WITH owned AS MATERIALIZED (
    SELECT id
    FROM trial
    WHERE id = :trial_id
      AND attempt = :attempt
      AND lease_id = CAST(:lease_id AS uuid)
      AND state IN ('running', 'suggested')
    FOR NO KEY UPDATE
), added AS (
    INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
    SELECT owned.id, :attempt, sent.step, sent.metrics, sent.wall_seconds, sent.gpu_seconds
    FROM owned,
         jsonb_to_recordset(CAST(:measurements AS jsonb))
             AS sent (step int, metrics jsonb, wall_seconds float8, gpu_seconds float8)
    ON CONFLICT (trial_id, attempt, step) DO NOTHING
    RETURNING step, gpu_seconds
), total AS (
    SELECT COALESCE(sum(gpu_seconds), 0) AS gpu_seconds,
           COALESCE(max(step), 0) AS last_step,
           COALESCE(array_agg(step ORDER BY step), '{}') AS steps
    FROM added
)
UPDATE trial
SET state = 'running',
    retries = CASE WHEN trial.state = 'suggested' THEN trial.retries - 1 ELSE trial.retries END,
    not_before = NULL,
    lease_expires_at = clock_timestamp() + make_interval(secs => trial.lease_seconds),
    gpu_seconds = trial.gpu_seconds + total.gpu_seconds,
    epochs_done = GREATEST(trial.epochs_done, total.last_step),
    checkpoint = COALESCE(:checkpoint, trial.checkpoint),
    peak_memory_bytes = GREATEST(trial.peak_memory_bytes, CAST(:peak_memory_bytes AS bigint))
FROM owned, total, study
WHERE trial.id = owned.id AND study.id = trial.study_id
RETURNING trial.study_id, trial.lease_worker, trial.cancel_requested, total.steps AS new_steps,
          CASE WHEN study.budget_reached_at IS NULL THEN study.state ELSE 'stopped' END AS study_state;


-- name: finish
-- running | suggested (lease expired, nobody else came) -> completed | stopped | failed. A cancelled trial that did
-- not complete counts as stopped. The lease id stays: it marks whose result was accepted.
UPDATE trial
SET state = CASE WHEN cancel_requested AND :outcome = 'failed' THEN 'stopped' ELSE :outcome END,
    metrics = CASE WHEN :outcome = 'failed' THEN NULL ELSE CAST(:metrics AS jsonb) END,
    failure_kind = CASE WHEN cancel_requested THEN NULL ELSE CAST(:failure_kind AS text) END,
    failure_message = :failure_message,
    lease_expires_at = NULL,
    not_before = NULL,
    checkpoint = COALESCE(:checkpoint, checkpoint),
    dataset_version = COALESCE(:dataset_version, dataset_version),
    environment = CAST(:environment AS jsonb),
    peak_memory_bytes = GREATEST(peak_memory_bytes, CAST(:peak_memory_bytes AS bigint)),
    finished_at = clock_timestamp()
WHERE id = :trial_id
  AND attempt = :attempt
  AND lease_id = CAST(:lease_id AS uuid)
  AND state IN ('running', 'suggested')
RETURNING id, study_id, state, lease_worker;


-- name: accepted
-- (no transition) Whether this very result was accepted before, and only the reply was lost.
SELECT id
FROM trial
WHERE id = :trial_id
  AND attempt = :attempt
  AND lease_id = CAST(:lease_id AS uuid)
  AND state = CASE WHEN cancel_requested AND :outcome = 'failed' THEN 'stopped' ELSE :outcome END
  AND metrics IS NOT DISTINCT FROM (CASE WHEN :outcome = 'failed' THEN NULL ELSE CAST(:metrics AS jsonb) END)
  AND (cancel_requested OR failure_kind IS NOT DISTINCT FROM CAST(:failure_kind AS text));


-- name: release
-- running -> suggested (drained) | paused | suggested with backoff or failed(lost) (crashed) | stopped (cancelled).
-- The lease id goes: who released a trial cannot come back to it. A pause in an active study is one of the stopping
-- rule, where that pauses: such a trial is held until it is promoted.
WITH owned AS MATERIALIZED (
    SELECT trial.id,
           CASE
               WHEN trial.cancel_requested THEN 'stopped'
               WHEN :reason = 'paused' THEN 'paused'
               WHEN :reason = 'drained' THEN 'suggested'
               WHEN trial.retries < (study.spec #>> '{retry,attempts}')::int THEN 'suggested'
               ELSE 'failed'
           END AS target,
           study.state = 'active' AND study.budget_reached_at IS NULL
               AND COALESCE((study.spec #>> '{early_stopping,pause}')::boolean, false) AS by_rule
    FROM trial
    JOIN study ON study.id = trial.study_id
    WHERE trial.id = :trial_id
      AND trial.attempt = :attempt
      AND trial.lease_id = CAST(:lease_id AS uuid)
      AND trial.state = 'running'
    FOR NO KEY UPDATE OF trial
)
UPDATE trial
SET state = owned.target,
    retries = trial.retries + (CASE WHEN :reason = 'crashed' THEN 1 ELSE 0 END),
    held = owned.target = 'paused' AND owned.by_rule,
    priority = 2,
    not_before = CASE WHEN owned.target = 'suggested' AND :reason = 'crashed'
                      THEN clock_timestamp() + make_interval(secs => LEAST(:backoff_limit_seconds,
                                                                           :backoff_seconds * 2 ^ trial.retries)) END,
    lease_id = NULL,
    lease_expires_at = NULL,
    checkpoint = COALESCE(:checkpoint, trial.checkpoint),
    required_memory_bytes = GREATEST(trial.required_memory_bytes, trial.peak_memory_bytes),
    failure_kind = CASE WHEN owned.target = 'failed' THEN 'lost' END,
    failure_message = CASE WHEN owned.target = 'failed' THEN COALESCE(:message, 'its process ended unexpectedly') END,
    metrics = CASE WHEN owned.target = 'stopped'
                   THEN (SELECT measurement.metrics FROM measurement WHERE measurement.trial_id = trial.id
                         ORDER BY measurement.attempt DESC, measurement.step DESC LIMIT 1) END,
    finished_at = CASE WHEN owned.target IN ('failed', 'stopped') THEN clock_timestamp() END
FROM owned
WHERE trial.id = owned.id
RETURNING trial.study_id, trial.state, trial.lease_worker, trial.retries;


-- name: reap
-- running, lease expired -> suggested with backoff | failed(lost) | stopped (cancelled). A retry keeps the lease id:
-- until somebody else claims, its owner may come back. The backoff gives a live worker time for its next heartbeat.
WITH expired AS MATERIALIZED (
    SELECT trial.id,
           CASE
               WHEN trial.cancel_requested THEN 'stopped'
               WHEN trial.retries < (study.spec #>> '{retry,attempts}')::int THEN 'suggested'
               ELSE 'failed'
           END AS target
    FROM trial
    JOIN study ON study.id = trial.study_id
    WHERE trial.state = 'running' AND trial.lease_expires_at < clock_timestamp()
    ORDER BY trial.id
    FOR NO KEY UPDATE OF trial SKIP LOCKED
)
UPDATE trial
SET state = expired.target,
    retries = trial.retries + 1,
    priority = 2,
    not_before = CASE WHEN expired.target = 'suggested'
                      THEN clock_timestamp() + make_interval(secs => LEAST(:backoff_limit_seconds,
                                                                           :backoff_seconds * 2 ^ trial.retries)) END,
    lease_id = CASE WHEN expired.target = 'suggested' THEN trial.lease_id END,
    lease_expires_at = NULL,
    required_memory_bytes = GREATEST(trial.required_memory_bytes, trial.peak_memory_bytes),
    failure_kind = CASE WHEN expired.target = 'failed' THEN 'lost' END,
    failure_message = CASE WHEN expired.target = 'failed'
                           THEN 'its worker was not heard of any more, for the ' || (trial.retries + 1) || '. time' END,
    metrics = CASE WHEN expired.target = 'stopped'
                   THEN (SELECT measurement.metrics FROM measurement WHERE measurement.trial_id = trial.id
                         ORDER BY measurement.attempt DESC, measurement.step DESC LIMIT 1) END,
    finished_at = CASE WHEN expired.target IN ('failed', 'stopped') THEN clock_timestamp() END
FROM expired
WHERE trial.id = expired.id
RETURNING trial.id, trial.study_id, trial.state, trial.lease_worker, trial.attempt, trial.retries;


-- name: cancel
-- suggested | paused -> withdrawn (never claimed) | stopped; running -> running with a flag, which its worker sees at
-- the next heartbeat.
WITH place AS MATERIALIZED (
    SELECT study.id FROM study WHERE study.id = (SELECT study_id FROM trial WHERE trial.id = :trial_id)
    FOR NO KEY UPDATE
), chosen AS MATERIALIZED (
    SELECT trial.id,
           CASE
               WHEN trial.state = 'running' THEN 'running'
               WHEN trial.attempt = 0 THEN 'withdrawn'
               ELSE 'stopped'
           END AS target
    FROM trial
    JOIN place ON place.id = trial.study_id
    WHERE trial.id = :trial_id AND trial.state IN ('suggested', 'paused', 'running')
    FOR NO KEY UPDATE OF trial
), counted AS (
    UPDATE study
    SET live_trials = study.live_trials - 1
    FROM chosen, place
    WHERE study.id = place.id AND chosen.target = 'withdrawn'
)
UPDATE trial
SET state = chosen.target,
    cancel_requested = true,
    held = false,
    lease_id = CASE WHEN chosen.target = 'running' THEN trial.lease_id END,
    not_before = NULL,
    metrics = CASE WHEN chosen.target = 'stopped'
                   THEN (SELECT measurement.metrics FROM measurement WHERE measurement.trial_id = trial.id
                         ORDER BY measurement.attempt DESC, measurement.step DESC LIMIT 1) END,
    finished_at = CASE WHEN chosen.target <> 'running' THEN clock_timestamp() END
FROM chosen
WHERE trial.id = chosen.id
RETURNING trial.study_id, trial.state;
