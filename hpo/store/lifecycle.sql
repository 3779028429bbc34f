-- The life of a trial. These statements, and no others, move a trial from one state to another.
--
-- Each is one transition in one statement. A statement that acts for a worker carries the fence: it compares trial,
-- attempt and lease id for equality, so a worker that lost its lease changes nothing. Rows are locked in a
-- materialized CTE first, study before trial, so that what the statement then decides on is the newest version.
-- Only clock_timestamp() of this server decides about time. Device time is that of attempts: an attempt is a row of its
-- own, begun by a claim and ended by the statement that takes the trial from its worker. `usage.py` says what
-- `{study_used_seconds}` (of the row `study`) and `{heartbeats_per_lease}` stand for, `fleet_sql.py` says it of
-- `{others_may_have_files}` (of the row `study`) and `{too_large}`, `trials.py` of `{is_loss}` (of the row `attempt`),
-- `statements.py` of `{token_is_valid}`: a token that has been revoked since the call began changes nothing. What the
-- next statements of a call need is returned with the transition, so that a call waits for few answers.


-- name: suggest
-- (nothing) -> suggested. Only the holder of the generator lease, only for an active study, never beyond
-- budget.trials. The counter on the study row, which stays locked until the commit, keeps the numbers gap-free.
WITH place AS MATERIALIZED (
    SELECT id, next_number, LEAST(:wanted, COALESCE((spec #>> '{budget,trials}')::int - live_trials, :wanted)) AS room
    FROM study
    WHERE id = :study_id
      AND state = 'active'
      AND budget_reached_at IS NULL
      AND search_ended_at IS NULL
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


-- name: replicate
-- (nothing) -> suggested. The configuration of a trial that was claimed before, or comes from elsewhere, once more under a
-- number, and so with a seed, of its own. It does not count against budget.trials. Whoever has planned it names the
-- number that comes next: of two who have read the same trials, one adds it.
WITH place AS MATERIALIZED (
    SELECT id, next_number
    FROM study
    WHERE id = :study_id
      AND state IN ('active', 'paused')
      AND budget_reached_at IS NULL
      AND next_number = COALESCE(CAST(:next_number AS int), next_number)
    FOR NO KEY UPDATE
), added AS (
    INSERT INTO trial (study_id, number, params, generator, priority, required_memory_bytes, replicate_of)
    SELECT place.id, place.next_number, asked.params, :generator, :priority,
           GREATEST(asked.required_memory_bytes, asked.peak_memory_bytes), COALESCE(asked.replicate_of, asked.number)
    FROM place
    JOIN trial AS asked ON asked.study_id = place.id AND asked.number = :number AND asked.state <> 'withdrawn'
                            AND (asked.attempt > 0 OR asked.origin IS NOT NULL)
    RETURNING id
), counted AS (
    UPDATE study
    SET next_number = study.next_number + 1
    WHERE study.id = :study_id AND EXISTS (SELECT FROM added)
)
SELECT id FROM added;


-- name: take_over
-- (nothing) -> completed | stopped | failed. Results of trainings elsewhere. They count against no budget, and no worker
-- has had them. What has a key that a trial of the study has already is left out. The caller has locked the study before,
-- so that this statement sees what others have taken over.
WITH place AS MATERIALIZED (
    SELECT id, next_number
    FROM study
    WHERE id = :study_id AND state IN ('active', 'paused') AND budget_reached_at IS NULL
    FOR NO KEY UPDATE
), new AS MATERIALIZED (
    SELECT given.value, given.value #>> '{origin,key}' AS key, row_number() OVER (ORDER BY given.position) - 1 AS place
    FROM jsonb_array_elements(CAST(:trials AS jsonb)) WITH ORDINALITY AS given (value, position)
    WHERE NOT EXISTS (SELECT FROM trial AS known
                      WHERE known.study_id = :study_id AND known.state <> 'withdrawn' AND known.origin IS NOT NULL
                        AND known.origin ->> 'key' = given.value #>> '{origin,key}')
), added AS (
    INSERT INTO trial (study_id, number, params, generator, state, origin, metrics, failure_kind, failure_message,
                       epochs_done, finished_at)
    SELECT place.id,
           place.next_number + new.place,
           new.value -> 'params',
           :generator,
           new.value ->> 'state',
           new.value -> 'origin',
           CASE WHEN new.value ->> 'state' <> 'failed' THEN new.value -> 'metrics' END,
           CASE WHEN new.value ->> 'state' = 'failed' THEN 'error' END,
           new.value ->> 'failure_message',
           COALESCE((SELECT max(step::int) FROM jsonb_object_keys(new.value -> 'curve') AS step), 0),
           clock_timestamp()
    FROM place, new
    RETURNING id, number, origin ->> 'key' AS key
), measured AS (
    INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
    SELECT added.id, 1, point.key::int, point.value, 0, 0
    FROM added
    JOIN new ON new.key = added.key
    CROSS JOIN LATERAL jsonb_each(new.value -> 'curve') AS point
), counted AS (
    UPDATE study
    SET next_number = study.next_number + (SELECT count(*) FROM added)
    WHERE study.id = :study_id AND EXISTS (SELECT FROM added)
)
SELECT id, number FROM added ORDER BY number;


-- name: replace_suggestion
-- suggested -> suggested. New parameters in place for a suggestion that nobody has ever claimed.
WITH place AS MATERIALIZED (
    SELECT study.id
    FROM study
    WHERE study.id = (SELECT study_id FROM trial WHERE trial.id = :trial_id)
      AND study.state = 'active'
      AND study.budget_reached_at IS NULL
      AND study.search_ended_at IS NULL
      AND study.generation = :generation
      AND study.generator_owner = :owner
      AND study.generator_expires_at > clock_timestamp()
    FOR NO KEY UPDATE
), old AS MATERIALIZED (
    SELECT trial.id, trial.params
    FROM trial
    JOIN place ON place.id = trial.study_id
    WHERE trial.id = :trial_id AND trial.state = 'suggested' AND trial.attempt = 0 AND trial.replicate_of IS NULL
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
-- suggested -> withdrawn. Suggestions that nobody has ever claimed; they no longer count against budget.trials. After the
-- search alone, what trains a configuration again stays.
WITH place AS MATERIALIZED (
    SELECT id, search_ended_at IS NOT NULL AND budget_reached_at IS NULL AND state <> 'stopped' AS is_race
    FROM study WHERE id = :study_id FOR NO KEY UPDATE
), gone AS (
    UPDATE trial
    SET state = 'withdrawn', finished_at = clock_timestamp()
    FROM place
    WHERE trial.study_id = place.id AND trial.state = 'suggested' AND trial.attempt = 0
      AND (trial.replicate_of IS NULL OR NOT place.is_race)
    RETURNING trial.id, trial.replicate_of
), counted AS (
    UPDATE study
    SET live_trials = study.live_trials - (SELECT count(*) FROM gone WHERE replicate_of IS NULL)
    WHERE study.id = :study_id AND EXISTS (SELECT FROM gone)
)
SELECT id FROM gone;


-- name: close
-- suggested (retry) | paused -> stopped. The study has ended, or its search has: what had begun and waits keeps what it
-- has measured.
WITH ended AS MATERIALIZED (
    SELECT id, state <> 'stopped' AND budget_reached_at IS NULL AS is_race
    FROM study
    WHERE id = :study_id AND (state = 'stopped' OR budget_reached_at IS NOT NULL OR search_ended_at IS NOT NULL)
    FOR NO KEY UPDATE
), waiting AS MATERIALIZED (
    SELECT trial.id
    FROM trial
    JOIN ended ON ended.id = trial.study_id
    WHERE (trial.state = 'paused' OR (trial.state = 'suggested' AND trial.attempt > 0))
      AND (trial.replicate_of IS NULL OR NOT ended.is_race)
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
-- paused (held) -> stopped. All trials of the budget or of a used-up space are there and none but held ones is open:
-- nothing is left that could make the stopping rule think again.
WITH place AS MATERIALIZED (
    SELECT id FROM study
    WHERE id = :study_id AND state = 'active' AND (:is_used_up OR live_trials >= (spec #>> '{budget,trials}')::int)
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
WITH renewed AS (
    UPDATE trial
    SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds), lease_seconds = :lease_seconds
    WHERE lease_id = CAST(:lease_id AS uuid) AND state = 'running'
      AND (lease_token IS NULL OR lease_token = CAST(:token AS bigint))
      AND {token_is_valid}
    RETURNING id, study_id, number, attempt, params, replicate_of, checkpoint, epochs_done
), seen AS (
    UPDATE attempt
    SET seen_at = GREATEST(attempt.seen_at, clock_timestamp())
    FROM renewed
    WHERE attempt.trial_id = renewed.id AND attempt.attempt = renewed.attempt
)
SELECT renewed.*, study.name AS study, study.uuid, study.spec::text AS spec
FROM renewed JOIN study ON study.id = renewed.study_id;


-- name: standing
-- (no transition) Why a claim got no trial: the lease id was good for a claim before, worker or host is in quarantine,
-- or the token is not valid any more.
-- The attempt keeps the lease id after its trial was given back: a copy of the claim that comes late must not take a trial
-- for a worker that does not know of it.
SELECT EXISTS (SELECT FROM attempt WHERE lease_id = CAST(:lease_id AS uuid))
           OR EXISTS (SELECT FROM trial WHERE lease_id = CAST(:lease_id AS uuid)) AS is_used,
       EXISTS (SELECT FROM worker WHERE name = :worker AND quarantined_until > clock_timestamp()) AS is_worker_shut,
       EXISTS (SELECT FROM host_quarantine WHERE host = :host) AS is_host_shut,
       {token_is_valid} AS is_token_valid;


-- name: claim
-- suggested | paused -> running. A worker of several GPUs takes first what needs most of them: fewer workers can, and
-- nothing large waits behind what is small. Of that, what was begun before first, then what a person asked for, then in
-- the order of suggestion; nothing of a study whose GPU hours are used up, or whose files this worker has just missed
-- while another worker may have them, and nothing that has just failed on this machine while another, on which it has
-- not, could train it. What has just failed on all machines comes last. What needs more memory than there is here waits
-- for a worker that has it, if one was heard of lately; but where a single clip did not fit, as much memory is of no use.
-- SKIP LOCKED lets claimers pass each other; NO KEY, because inserted measurements and events share-lock the key of their
-- trial. A lease id that was good for a claim before gets nothing, and `standing` says so; nor does who is in quarantine,
-- unless `:is_trial_run` says that it may show that it is well.
-- Of all that wait, only the first `:near` in this order are looked at, so that long queues cost no claim anything. Where
-- one behind them might come before what is found there, nothing is claimed, and the row says `is_partial`:
-- the statement is repeated with more of them, in the end with null, for all.
WITH asking AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM worker WHERE name = :worker AND quarantined_at IS NOT NULL) AS was_in_quarantine
    WHERE {token_is_valid}
      AND NOT EXISTS (SELECT FROM attempt WHERE lease_id = CAST(:lease_id AS uuid))
      AND NOT EXISTS (SELECT FROM trial WHERE lease_id = CAST(:lease_id AS uuid))
      AND NOT EXISTS (SELECT FROM worker WHERE name = :worker AND quarantined_until > clock_timestamp())
      AND (:is_trial_run OR NOT EXISTS (SELECT FROM host_quarantine WHERE host = :host))
), lost_here AS MATERIALIZED (
    SELECT DISTINCT trial_id
    FROM attempt
    WHERE worker = :worker AND fault IS NOT NULL
      AND ended_at > clock_timestamp() - make_interval(secs => :avoid_seconds)
), lacking AS MATERIALIZED (
    SELECT DISTINCT study.id
    FROM attempt AS missed
    JOIN trial ON trial.id = missed.trial_id
    JOIN study ON study.id = trial.study_id
    LEFT JOIN worker AS mine ON mine.name = missed.worker
    WHERE missed.worker = :worker AND missed.fault = 'files'
      AND missed.ended_at > GREATEST(clock_timestamp() - make_interval(secs => :avoid_seconds),
                                     study.state_changed_at, mine.cleared_at)
      AND {others_may_have_files}
), heads AS MATERIALIZED (
    -- The first that waits in each study, which says which studies come first.
    SELECT study.id AS study_id, study.gpus, study.search_ended_at, first.priority, first.id
    FROM study
    CROSS JOIN LATERAL (
        SELECT trial.id, trial.priority
        FROM trial
        WHERE trial.study_id = study.id AND {may_begin}
        ORDER BY trial.priority DESC, trial.id
        LIMIT 1
    ) AS first
    WHERE EXISTS (SELECT FROM asking)
      AND study.state = 'active'
      AND study.budget_reached_at IS NULL
      AND study.task_kind = ANY (CAST(:task_kinds AS text[]))
      AND study.gpus <= :gpus AND study.nodes = :nodes
      AND (CAST(:study AS text) IS NULL OR study.name = :study)
      AND study.id NOT IN (SELECT id FROM lacking)
    ORDER BY study.gpus DESC, first.priority DESC, first.id
    LIMIT CAST(:near AS int)
), near AS MATERIALIZED (
    SELECT first.id, study.gpus, first.priority,
           row_number() OVER (ORDER BY study.gpus DESC, first.priority DESC, first.id) AS place
    FROM heads AS study
    CROSS JOIN LATERAL (
        SELECT trial.id, trial.priority
        FROM trial
        WHERE trial.study_id = study.study_id AND {may_begin}
        ORDER BY trial.priority DESC, trial.id
        LIMIT CAST(:near AS int)
    ) AS first
    ORDER BY place
    LIMIT CAST(:near AS int)
), edge AS MATERIALIZED (
    SELECT gpus, priority, id FROM near WHERE place = CAST(:near AS int)
), chosen AS MATERIALIZED (
    SELECT trial.id, NOT EXISTS (SELECT FROM edge)
                     OR failed.here = 0
                        AND NOT COALESCE(trial.required_memory_bytes > :memory_bytes, false)
                        AND EXISTS (SELECT FROM edge
                                    WHERE (study.gpus, trial.priority, -trial.id) >= (edge.gpus, edge.priority, -edge.id))
                     AS is_first
    FROM trial
    JOIN study ON study.id = trial.study_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN study.race IS NULL THEN 3600 * (study.spec #>> '{budget,gpu_hours}')::float8
                    ELSE (study.race ->> 'gpu_seconds')::float8 END AS gpu_seconds,
               GREATEST(clock_timestamp() - make_interval(secs => :avoid_seconds), study.state_changed_at) AS since,
               (SELECT cleared_at FROM worker WHERE worker.name = :worker) AS cleared_at
    ) AS limits
    CROSS JOIN LATERAL (
        -- 0: it has not just failed here, or there is no other worker; 1: it has, as on all others; 2: on some it has not.
        SELECT CASE WHEN trial.id IN (SELECT trial_id FROM lost_here)
                     AND EXISTS (SELECT FROM attempt AS lost
                                 WHERE lost.trial_id = trial.id AND lost.worker = :worker AND lost.fault IS NOT NULL
                                   AND lost.ended_at > GREATEST(limits.since, limits.cleared_at))
               THEN (SELECT COALESCE(max(CASE WHEN EXISTS (SELECT FROM attempt AS lost
                                                           WHERE lost.trial_id = trial.id AND lost.worker = other.name
                                                             AND lost.fault IS NOT NULL AND lost.ended_at > limits.since)
                                         THEN 1 ELSE 2 END), 0)
                     FROM worker AS other
                     WHERE other.name <> :worker AND other.quarantined_at IS NULL
                       AND NOT EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = other.host)
                       AND other.last_seen > clock_timestamp() - make_interval(secs => :alive_seconds)
                       AND (other.study IS NULL OR other.study = study.name)
                       AND study.task_kind = ANY (other.task_kinds)
                       AND other.gpus >= study.gpus AND other.nodes = study.nodes
                       AND (trial.required_memory_bytes IS NULL OR other.memory_bytes IS NULL
                            OR trial.required_memory_bytes <= other.memory_bytes))
               ELSE 0 END AS here
    ) AS failed
    -- An array, for an index whatever the planner knows of the tables: as a join, new tables made it compare all with all.
    WHERE trial.id = ANY (ARRAY(SELECT id FROM near))
      -- What `near` asked is asked of the locked row again: another claim may have been faster.
      AND {may_begin}
      AND study.state = 'active'
      AND study.budget_reached_at IS NULL
      AND (trial.required_memory_bytes IS NULL OR CAST(:memory_bytes AS bigint) IS NULL
           OR trial.required_memory_bytes <= :memory_bytes
           -- What nobody has begun the optimizer plans anew when the workers change.
           OR (trial.attempt > 0 OR trial.priority > 0 OR trial.replicate_of IS NOT NULL)
              AND NOT EXISTS (SELECT FROM worker AS large
                              WHERE large.name <> :worker AND large.quarantined_at IS NULL
                                AND NOT EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = large.host)
                                AND large.memory_bytes >= trial.required_memory_bytes
                                AND large.last_seen > clock_timestamp() - make_interval(secs => :large_seconds)
                                AND (large.study IS NULL OR large.study = study.name)
                                AND study.task_kind = ANY (large.task_kinds)
                                AND large.gpus >= study.gpus AND large.nodes = study.nodes)
              AND NOT EXISTS (SELECT FROM attempt AS unfit
                              JOIN worker AS small ON small.name = unfit.worker
                              WHERE unfit.trial_id = trial.id AND unfit.ended_as = 'failed'
                                AND small.memory_bytes >= :memory_bytes))
      AND failed.here < 2
      AND (limits.gpu_seconds IS NULL
           OR {study_used_seconds} < limits.gpu_seconds)
    ORDER BY failed.here, study.gpus DESC, trial.priority DESC,
             COALESCE(trial.required_memory_bytes > :memory_bytes, false), trial.id
    LIMIT 1
    FOR NO KEY UPDATE OF trial SKIP LOCKED
), claimed AS (
    UPDATE trial
    SET state = 'running',
        attempt = trial.attempt + 1,
        lease_id = CAST(:lease_id AS uuid),
        lease_token = CAST(:token AS bigint),
        lease_worker = :worker,
        lease_seconds = :lease_seconds,
        lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds),
        not_before = NULL,
        started_at = COALESCE(trial.started_at, clock_timestamp())
    FROM chosen
    WHERE trial.id = chosen.id AND chosen.is_first
    RETURNING trial.id, trial.study_id, trial.number, trial.attempt, trial.params, trial.replicate_of,
              trial.checkpoint, trial.epochs_done
), begun AS (
    INSERT INTO attempt (trial_id, attempt, worker, lease_id, gpus, claimed_at, seen_at)
    SELECT claimed.id, claimed.attempt, :worker, CAST(:lease_id AS uuid), study.gpus * study.nodes,
           moment.value, moment.value
    FROM claimed JOIN study ON study.id = claimed.study_id, (SELECT clock_timestamp() AS value) AS moment
)
SELECT claimed.*, study.name AS study, study.uuid, study.spec::text AS spec, asking.was_in_quarantine,
       EXISTS (SELECT FROM edge) AS is_partial
FROM asking
LEFT JOIN claimed ON true
LEFT JOIN study ON study.id = claimed.study_id;


-- name: report
-- running | suggested (lease expired, nobody else came) -> running. Heartbeat and measurements in one. A worker that
-- comes back to a trial that nobody has re-claimed was not dead: it continues, and the retry is given back. A measurement
-- sent twice is kept once, and its GPU time is counted once. The curve is read where a stopping rule will ask for it.
WITH owned AS MATERIALIZED (
    SELECT id, lease_worker
    FROM trial
    WHERE id = :trial_id
      AND attempt = :attempt
      AND lease_id = CAST(:lease_id AS uuid)
      AND (lease_token IS NULL OR lease_token = CAST(:token AS bigint))
      AND state IN ('running', 'suggested')
      AND {token_is_valid}
    FOR NO KEY UPDATE
), added AS (
    INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
    SELECT owned.id, :attempt, sent.step, sent.metrics, sent.wall_seconds, sent.gpu_seconds
    FROM owned,
         jsonb_to_recordset(CAST(:measurements AS jsonb))
             AS sent (step int, metrics jsonb, wall_seconds float8, gpu_seconds float8)
    ON CONFLICT (trial_id, attempt, step) DO NOTHING
    RETURNING attempt, step, metrics, gpu_seconds
), total AS (
    SELECT COALESCE(sum(gpu_seconds), 0) AS gpu_seconds,
           COALESCE(max(step), 0) AS last_step,
           COALESCE(array_agg(step ORDER BY step), '{}') AS steps
    FROM added
), seen AS (
    UPDATE attempt
    SET seen_at = GREATEST(attempt.seen_at, clock_timestamp()), ended_at = NULL, ended_as = NULL,
        progress = COALESCE(CAST(:progress AS jsonb), attempt.progress),
        progress_at = CASE WHEN CAST(:progress AS jsonb) IS NULL THEN attempt.progress_at ELSE clock_timestamp() END
    FROM owned
    WHERE attempt.trial_id = owned.id AND attempt.attempt = :attempt
)
UPDATE trial
SET state = 'running',
    retries = CASE WHEN trial.state = 'suggested' THEN trial.retries - 1 ELSE trial.retries END,
    not_before = NULL,
    lease_expires_at = clock_timestamp() + make_interval(secs => trial.lease_seconds),
    gpu_seconds = trial.gpu_seconds + total.gpu_seconds,
    epochs_done = GREATEST(trial.epochs_done, total.last_step),
    checkpoint = COALESCE(:checkpoint, trial.checkpoint),
    dataset_version = COALESCE(:dataset_version, trial.dataset_version),
    peak_memory_bytes = GREATEST(trial.peak_memory_bytes, CAST(:peak_memory_bytes AS bigint)),
    weights = COALESCE(CAST(:weights AS jsonb), trial.weights)
FROM total, study, owned LEFT JOIN worker ON worker.name = owned.lease_worker
WHERE trial.id = owned.id AND study.id = trial.study_id
RETURNING trial.id, trial.number, trial.state, trial.metrics, trial.attempt, trial.replicate_of, trial.study_id,
          trial.lease_worker, trial.cancel_requested, total.steps AS new_steps,
          study.uuid, study.fault, study.spec::text AS spec,
          study.marked AND NOT EXISTS (SELECT FROM mark WHERE mark.study_id = study.id AND mark.board = 'stale') AS marked,
          worker.last_seen < clock_timestamp() - make_interval(secs => :touch_seconds) AS is_touched,
          worker.faults > 0 OR EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = worker.host) AS is_suspect,
          CASE WHEN total.last_step > 0 AND study.spec #>> '{early_stopping,name}' <> 'none'
               THEN (SELECT jsonb_object_agg(known.step::text, known.metrics ORDER BY known.attempt)
                     FROM (SELECT attempt, step, metrics FROM measurement WHERE measurement.trial_id = trial.id
                           UNION ALL
                           SELECT attempt, step, metrics FROM added) AS known) END AS curve,
          study.spec #>> '{budget,gpu_hours}' IS NOT NULL OR study.spec #>> '{budget,wall_hours}' IS NOT NULL
              AS has_hours,
          CASE
              WHEN study.budget_reached_at IS NOT NULL THEN 'stopped'
              WHEN study.search_ended_at IS NOT NULL AND trial.replicate_of IS NULL THEN 'stopped'
              ELSE study.state
          END AS study_state,
          study.spec #>> '{early_stopping,name}' AS rule;


-- name: finish
-- running | suggested (lease expired, nobody else came) -> completed | stopped | failed. A cancelled trial that did
-- not complete counts as stopped. The lease id stays: it marks whose result was accepted.
WITH ended AS (
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
      AND (lease_token IS NULL OR lease_token = CAST(:token AS bigint))
      AND state IN ('running', 'suggested')
      AND {token_is_valid}
    RETURNING id, number, study_id, params, generator, state, attempt, replicate_of, origin, metrics, failure_kind,
              failure_message, predicted_mean, predicted_sd, predicted_feasibility, lease_worker, dataset_version,
              weights, epochs_done, gpu_seconds, peak_memory_bytes, created_at, started_at, finished_at
), over AS (
    UPDATE attempt
    SET ended_at = GREATEST(attempt.seen_at, clock_timestamp()), ended_as = ended.state
    FROM ended
    WHERE attempt.trial_id = ended.id AND attempt.attempt = ended.attempt
)
SELECT ended.*, study.uuid, study.fault, study.spec::text AS spec,
       study.marked AND NOT EXISTS (SELECT FROM mark WHERE mark.study_id = study.id AND mark.board = 'stale') AS marked,
       worker.last_seen < clock_timestamp() - make_interval(secs => :touch_seconds) AS is_touched,
       worker.faults > 0 OR EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = worker.host) AS is_suspect,
       study.spec #>> '{early_stopping,name}' AS rule,
       study.spec -> 'objectives' AS objectives,
       (SELECT COALESCE(jsonb_object_agg(step::text, measurement.metrics ORDER BY measurement.attempt), '{}')
        FROM measurement WHERE measurement.trial_id = ended.id) AS curve,
       -- Of the attempt that ends here, this statement still sees what it was before.
       (SELECT COALESCE(array_agg(attempt.worker ORDER BY attempt.attempt), '{}') FROM attempt
        WHERE attempt.trial_id = ended.id AND attempt.attempt <> ended.attempt AND {is_loss}) AS lost_on,
       NULL::jsonb AS progress, NULL::timestamptz AS progress_at
FROM ended JOIN study ON study.id = ended.study_id LEFT JOIN worker ON worker.name = ended.lease_worker;


-- name: reroute
-- running | suggested (lease expired, nobody else came) -> suggested. Not one clip fitted into the memory of its worker,
-- and a live worker of the same kind, which takes trials of this study, has more: the trial waits for one with more. It
-- costs no retry. Without such a worker, and for a cancelled trial, this changes nothing.
WITH owned AS MATERIALIZED (
    SELECT trial.id, trial.attempt, mine.memory_bytes
    FROM trial
    JOIN study ON study.id = trial.study_id
    JOIN worker AS mine ON mine.name = trial.lease_worker
    WHERE trial.id = :trial_id
      AND trial.attempt = :attempt
      AND trial.lease_id = CAST(:lease_id AS uuid)
      AND (trial.lease_token IS NULL OR trial.lease_token = CAST(:token AS bigint))
      AND trial.state IN ('running', 'suggested')
      AND {token_is_valid}
      AND NOT trial.cancel_requested
      AND EXISTS (SELECT FROM worker AS other
                  WHERE other.memory_bytes > mine.memory_bytes
                    AND (other.gpu_name IS NULL) = (mine.gpu_name IS NULL)
                    AND (other.study IS NULL OR other.study = study.name)
                    AND study.task_kind = ANY (other.task_kinds)
                    AND other.gpus >= study.gpus AND other.nodes = study.nodes
                    AND other.quarantined_at IS NULL
                    AND NOT EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = other.host)
                    AND other.last_seen > clock_timestamp() - make_interval(secs => :alive_seconds))
    FOR NO KEY UPDATE OF trial
), over AS (
    UPDATE attempt
    SET ended_at = GREATEST(attempt.seen_at, clock_timestamp()), ended_as = 'failed'
    FROM owned
    WHERE attempt.trial_id = owned.id AND attempt.attempt = owned.attempt
)
UPDATE trial
SET state = 'suggested',
    priority = 2,
    not_before = NULL,
    lease_id = NULL,
    lease_expires_at = NULL,
    required_memory_bytes = GREATEST(trial.required_memory_bytes, owned.memory_bytes + 1)
FROM owned
WHERE trial.id = owned.id
RETURNING trial.study_id, trial.lease_worker, trial.required_memory_bytes, trial.retries;


-- name: warn
-- (no transition) Trials of which a single clip did not fit into the memory of a worker, and for which no live worker has
-- more, as long as nothing was said of it since.
SELECT stuck.id, stuck.study_id, stuck.attempt, stuck.worker, stuck.memory_bytes
FROM ({too_large}) AS stuck
WHERE NOT stuck.has_larger AND stuck.warned_at IS NULL;


-- name: give_up
-- suggested | paused -> failed(oom). A single clip did not fit into the memory of a worker. It was said long ago that no
-- live worker has more, and none with more was heard of since then.
WITH stuck AS MATERIALIZED (
    SELECT trial.id, found.study, found.worker, found.memory_bytes
    FROM trial
    JOIN ({too_large}) AS found ON found.id = trial.id
    WHERE NOT found.had_larger AND found.warned_at < clock_timestamp() - make_interval(secs => :wait_seconds)
    ORDER BY trial.id
    FOR NO KEY UPDATE OF trial SKIP LOCKED
)
UPDATE trial
SET state = 'failed',
    failure_kind = 'oom',
    failure_message = format('a single clip did not fit into the %s GiB of %s, and for %s minutes there was no worker '
                             'with more memory. When there is one, `hpo study enqueue %s --again %s` trains it again',
                             round(stuck.memory_bytes / 2 ^ 30), stuck.worker, round(:wait_seconds / 60.0), stuck.study,
                             trial.number),
    lease_id = NULL,
    not_before = NULL,
    held = false,
    finished_at = clock_timestamp()
FROM stuck
WHERE trial.id = stuck.id
  -- As the locked row is now: it may have been claimed or cancelled since the statement began.
  AND trial.state IN ('suggested', 'paused')
RETURNING trial.id, trial.study_id;


-- name: accepted
-- (no transition) Whether this very result was accepted before, and only the reply was lost.
SELECT id
FROM trial
WHERE id = :trial_id
  AND attempt = :attempt
  AND lease_id = CAST(:lease_id AS uuid)
  AND (lease_token IS NULL OR lease_token = CAST(:token AS bigint))
  AND state = CASE WHEN cancel_requested AND :outcome = 'failed' THEN 'stopped' ELSE :outcome END
  AND metrics IS NOT DISTINCT FROM (CASE WHEN :outcome = 'failed' THEN NULL ELSE CAST(:metrics AS jsonb) END)
  AND (cancel_requested OR failure_kind IS NOT DISTINCT FROM CAST(:failure_kind AS text));


-- name: release
-- running -> suggested (drained) | paused | suggested with backoff or failed(lost, error) (crashed) | stopped
-- (cancelled). The lease id goes: who released a trial cannot come back to it. A pause in an active study is one of the
-- stopping rule, where that pauses: such a trial is held until it is promoted. A fault of the machine costs no retry. A
-- computation that stopped on two machines is an error of the trial, and so is what machines always report of this one
-- trial while they complete others. What has met nothing but faults of machines for long, on several hosts and on every
-- worker that could train it, is lost.
WITH owned AS MATERIALIZED (
    SELECT trial.id, blame.is_trials, blame.is_trials OR NOT :is_machines AS costs_retry, met.sentence,
           CASE
               WHEN trial.cancel_requested THEN 'stopped'
               WHEN :reason = 'paused' THEN 'paused'
               WHEN :reason = 'drained' THEN 'suggested'
               WHEN blame.is_trials THEN 'failed'
               WHEN :is_machines AND met.is_enough THEN 'failed'
               WHEN :is_machines THEN 'suggested'
               WHEN trial.retries < (study.spec #>> '{retry,attempts}')::int THEN 'suggested'
               ELSE 'failed'
           END AS target,
           study.state = 'active' AND study.budget_reached_at IS NULL
               AND trial.replicate_of IS NULL
               AND COALESCE((study.spec #>> '{early_stopping,pause}')::boolean, false) AS by_rule
    FROM trial
    JOIN study ON study.id = trial.study_id
    CROSS JOIN LATERAL (
        SELECT (CAST(:fault AS text) = 'kernel'
                AND EXISTS (SELECT FROM attempt AS other
                            WHERE other.trial_id = trial.id AND other.fault = 'kernel'
                              AND other.worker <> trial.lease_worker))
            OR (CAST(:fault AS text) IS NOT NULL
                AND :most_faults <= (SELECT count(*) FROM attempt AS other
                                     WHERE other.trial_id = trial.id AND other.fault IS NOT NULL
                                       AND EXISTS (SELECT FROM attempt AS later
                                                   WHERE later.worker = other.worker
                                                     AND later.claimed_at >= other.ended_at
                                                     AND later.ended_as IN ('completed', 'stopped')))) AS is_trials
    ) AS blame
    CROSS JOIN LATERAL (
        -- The faults of machines since it last trained an epoch, with this one. Missing files are the study's to pause.
        SELECT sum(faults) > :most_faults
               AND count(DISTINCT host) > 1
               AND min(since) < clock_timestamp() - make_interval(secs => :tried_seconds)
               AND NOT EXISTS (SELECT FROM worker AS untried
                               WHERE untried.name <> ALL (array_agg(streak.worker)) AND untried.quarantined_at IS NULL
                                 AND NOT EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = untried.host)
                                 AND untried.last_seen > clock_timestamp() - make_interval(secs => :alive_seconds)
                                 AND (untried.study IS NULL OR untried.study = study.name)
                                 AND study.task_kind = ANY (untried.task_kinds)
                                 AND untried.gpus >= study.gpus AND untried.nodes = study.nodes
                                 -- `claim` gives it what is too large for it once no larger worker is heard of.
                                 AND ((trial.required_memory_bytes <= untried.memory_bytes) IS NOT FALSE
                                      OR NOT EXISTS (SELECT FROM worker AS large
                                                     WHERE large.memory_bytes >= trial.required_memory_bytes
                                                       AND large.quarantined_at IS NULL
                                                       AND NOT EXISTS (SELECT FROM host_quarantine AS sick
                                                                       WHERE sick.host = large.host)
                                                       AND large.last_seen > clock_timestamp()
                                                                             - make_interval(secs => :large_seconds)
                                                       AND (large.study IS NULL OR large.study = study.name)
                                                       AND study.task_kind = ANY (large.task_kinds)
                                                       AND large.gpus >= study.gpus AND large.nodes = study.nodes))
                              ) AS is_enough,
               'no machine could train it: ' || string_agg(format('%s faults of %s (%s)', streak.faults, streak.worker,
                                                                 streak.kinds), ', ' ORDER BY streak.worker)
                   || COALESCE('; the last one: ' || split_part(:message, E'\n', 1), '')
                   || format('. When one can, `hpo study enqueue %s --again %s` trains it again', study.name, trial.number)
                   AS sentence
        FROM (SELECT seen.worker, COALESCE(min(worker.host), seen.worker) AS host, count(*) AS faults,
                     min(seen.ended_at) AS since, string_agg(DISTINCT seen.fault, ', ' ORDER BY seen.fault) AS kinds
              FROM (SELECT attempt.worker, attempt.fault, attempt.ended_at
                    FROM attempt
                    WHERE attempt.trial_id = trial.id AND attempt.fault = ANY (CAST(:machine_faults AS text[]))
                      AND attempt.attempt > COALESCE((SELECT max(measurement.attempt) FROM measurement
                                                      WHERE measurement.trial_id = trial.id), 0)
                    UNION ALL
                    SELECT trial.lease_worker, CAST(:fault AS text), clock_timestamp()) AS seen
              LEFT JOIN worker ON worker.name = seen.worker
              GROUP BY seen.worker) AS streak
    ) AS met
    WHERE trial.id = :trial_id
      AND trial.attempt = :attempt
      AND trial.lease_id = CAST(:lease_id AS uuid)
      AND (trial.lease_token IS NULL OR trial.lease_token = CAST(:token AS bigint))
      AND trial.state = 'running'
      AND {token_is_valid}
    FOR NO KEY UPDATE OF trial
), over AS (
    UPDATE attempt
    SET ended_at = GREATEST(attempt.seen_at, clock_timestamp()), ended_as = :reason, fault = :fault
    FROM owned
    WHERE attempt.trial_id = owned.id AND attempt.attempt = :attempt
)
UPDATE trial
SET state = owned.target,
    retries = trial.retries + (CASE WHEN :reason = 'crashed' AND owned.costs_retry THEN 1 ELSE 0 END),
    held = owned.target = 'paused' AND owned.by_rule,
    priority = 2,
    not_before = CASE WHEN owned.target = 'suggested' AND :reason = 'crashed'
                      THEN clock_timestamp() + make_interval(secs => LEAST(:backoff_limit_seconds,
                                                                           :backoff_seconds * 2 ^ trial.retries)) END,
    lease_id = NULL,
    lease_expires_at = NULL,
    checkpoint = COALESCE(:checkpoint, trial.checkpoint),
    required_memory_bytes = GREATEST(trial.required_memory_bytes, trial.peak_memory_bytes),
    failure_kind = CASE WHEN owned.target = 'failed' AND owned.is_trials THEN 'error'
                        WHEN owned.target = 'failed' THEN 'lost' END,
    failure_message = CASE WHEN owned.target = 'failed' AND :is_machines AND NOT owned.is_trials
                           THEN owned.sentence
                           WHEN owned.target = 'failed' THEN COALESCE(:message, 'its process ended unexpectedly') END,
    metrics = CASE WHEN owned.target = 'stopped'
                   THEN (SELECT measurement.metrics FROM measurement WHERE measurement.trial_id = trial.id
                         ORDER BY measurement.attempt DESC, measurement.step DESC LIMIT 1) END,
    finished_at = CASE WHEN owned.target IN ('failed', 'stopped') THEN clock_timestamp() END
FROM owned
WHERE trial.id = owned.id
RETURNING trial.study_id, trial.state, trial.lease_worker, trial.retries;


-- name: refund
-- (no transition) What a worker in quarantine has cost waiting and running trials: their retries are given back.
WITH charged AS MATERIALIZED (
    SELECT attempt.trial_id, count(*) AS retries
    FROM attempt
    WHERE attempt.worker = :worker AND attempt.ended_at >= :since AND attempt.fault = ANY(CAST(:faults AS text[]))
    GROUP BY attempt.trial_id
), owned AS MATERIALIZED (
    SELECT trial.id, charged.retries
    FROM trial
    JOIN charged ON charged.trial_id = trial.id
    WHERE trial.state IN ('suggested', 'running', 'paused')
    ORDER BY trial.id
    FOR NO KEY UPDATE OF trial SKIP LOCKED
)
UPDATE trial
SET retries = GREATEST(trial.retries - owned.retries, 0)
FROM owned
WHERE trial.id = owned.id
RETURNING trial.id;


-- name: reap
-- running, lease expired -> suggested with backoff | failed(lost) | stopped (cancelled). A retry keeps the lease id:
-- until somebody else claims, its owner may come back. The attempt ended at the latest one heartbeat after the last sign
-- of life. The backoff gives a live worker time for its next heartbeat.
WITH expired AS MATERIALIZED (
    SELECT trial.id,
           trial.attempt,
           make_interval(secs => trial.lease_seconds / {heartbeats_per_lease}) AS heartbeat,
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
), over AS (
    UPDATE attempt
    SET ended_at = attempt.seen_at + expired.heartbeat, ended_as = 'expired'
    FROM expired
    WHERE attempt.trial_id = expired.id AND attempt.attempt = expired.attempt
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
    SELECT trial.id, trial.replicate_of,
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
    WHERE study.id = place.id AND chosen.target = 'withdrawn' AND chosen.replicate_of IS NULL
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


-- name: discard
-- completed | stopped | failed -> withdrawn. A person takes a trial that has ended out of its study: its result counts for
-- nothing any more, and its place in budget.trials is free. Its number and the device time that it took stay. Not the
-- trial whose configuration others train again.
WITH place AS MATERIALIZED (
    SELECT study.id FROM study WHERE study.id = (SELECT study_id FROM trial WHERE trial.id = :trial_id)
    FOR NO KEY UPDATE
), chosen AS MATERIALIZED (
    SELECT trial.id, trial.state AS old_state, trial.replicate_of IS NULL AND trial.origin IS NULL AS is_counted
    FROM trial
    JOIN place ON place.id = trial.study_id
    WHERE trial.id = :trial_id
      AND trial.state IN ('completed', 'stopped', 'failed')
      AND NOT EXISTS (SELECT FROM trial AS again
                      WHERE again.study_id = place.id AND again.replicate_of = trial.number
                        AND again.state <> 'withdrawn')
    FOR NO KEY UPDATE OF trial
), counted AS (
    UPDATE study
    SET live_trials = study.live_trials - 1
    FROM chosen, place
    WHERE study.id = place.id AND chosen.is_counted
)
UPDATE trial
SET state = 'withdrawn', metrics = NULL, failure_kind = NULL, failure_message = NULL, lease_id = NULL
FROM chosen
WHERE trial.id = chosen.id
RETURNING trial.study_id, chosen.old_state;


-- name: reopen
-- (no transition) Before a study that has ended goes on: its trials that ended because it did count as ended by a person,
-- not as stopped early; otherwise the epochs that they lack would be saved ones from now on.
UPDATE trial
SET cancel_requested = true
FROM study
WHERE study.id = :study_id AND trial.study_id = study.id AND trial.state = 'stopped'
  AND trial.finished_at >= LEAST(study.budget_reached_at, study.search_ended_at,
                                 CASE WHEN study.state = 'stopped' THEN study.state_changed_at END);
