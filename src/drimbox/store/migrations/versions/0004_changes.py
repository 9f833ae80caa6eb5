"""What the site says of its studies after their publication: notes, deletions; and walks through the archive."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = """
-- What made a version: '' for a report, else the cause of a resynchronisation (publication/triggers.py).
ALTER TABLE publication ADD COLUMN cause text NOT NULL DEFAULT '';

-- One open line for each cause on a study and document: of two reports that are stopped alike, none hides the other.
ALTER TABLE incident ADD COLUMN document_id text NOT NULL DEFAULT '';
UPDATE incident i SET document_id = r.document_id FROM report r WHERE r.id = i.report_id AND i.closed_at IS NULL;
DROP INDEX incident_once;
CREATE UNIQUE INDEX incident_once ON incident (structure, study_uid, code, document_id)
    WHERE closed_at IS NULL AND study_uid <> '';

-- The newest report that spoke of each document of a study, by document id: an older one changes nothing to it any
-- more. Those that stand are what a resynchronisation builds from.
ALTER TABLE reported_study ADD COLUMN reports jsonb NOT NULL DEFAULT '{}';
UPDATE reported_study s SET reports = known.reports FROM (
    SELECT structure, study_uid, jsonb_object_agg(document_id, id) AS reports FROM (
        SELECT p.structure, p.study_uid, r.document_id, max(r.id) AS id
        FROM publication p JOIN report r ON r.id = p.report_id
        WHERE p.state IN ('current', 'replaced', 'depublished') GROUP BY 1, 2, 3
    ) AS newest GROUP BY 1, 2
) AS known WHERE s.structure = known.structure AND s.study_uid = known.study_uid;

-- What each report replaces and names, as its message said: what becomes of a document is found out through reports
-- that could not be carried through, too. Reports of before say nothing here.
ALTER TABLE report ADD COLUMN replaces text NOT NULL DEFAULT '';
ALTER TABLE report ADD COLUMN studies text[] NOT NULL DEFAULT '{}';

-- A document in base64 gains nothing by compression, which was the larger part of the cost of a reception.
ALTER TABLE message ALTER COLUMN raw SET STORAGE EXTERNAL;

-- Each Key Object Selection that a PACS sent us about a change, as received (RAD-66). `title` is the code of its
-- document title (DCM 113001: rejected for quality reasons, and so on).
CREATE TABLE change_note (
    sop_instance_uid  text PRIMARY KEY,
    received_at       timestamptz NOT NULL DEFAULT now(),
    caller            text NOT NULL,
    study_uid         text NOT NULL,
    title             text NOT NULL,
    object            bytea NOT NULL
);
CREATE INDEX change_note_study ON change_note (study_uid);

-- The instances that notes reject: they are in no KOS, whatever the PACS still lists. `released_at` ends that.
CREATE TABLE rejected_instance (
    note_uid          text NOT NULL REFERENCES change_note (sop_instance_uid),
    study_uid         text NOT NULL,
    sop_instance_uid  text NOT NULL,
    title             text NOT NULL,
    released_at       timestamptz,
    PRIMARY KEY (note_uid, study_uid, sop_instance_uid)
);
CREATE INDEX rejected_instance_study ON rejected_instance (study_uid) WHERE released_at IS NULL;

-- Studies that an information system declared deleted (OMI^O23, ORC-1 CA), until it or a report speaks of them again.
CREATE TABLE withdrawn_study (
    study_uid     text PRIMARY KEY,
    withdrawn_at  timestamptz NOT NULL DEFAULT now(),
    message_id    bigint REFERENCES message (id)
);

-- Walks through the archive (DB.SO.28, DB.SO.31): how far each went and what it found. A walk takes the studies by the
-- id of their newest version in `publication`, beyond `position` and up to `last`; `total` were there at its start.
-- `rate` is in studies a minute, `base` the address that a walk of kind 'address' brings to the KOS, `note` what it
-- waits for, `stepped_at` when it took its last study, `busy` the seconds that it really walked.
CREATE TABLE walk (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('reconciliation', 'address')),
    mode          text NOT NULL CHECK (mode IN ('repair', 'report')),
    state         text NOT NULL CHECK (state IN ('running', 'paused', 'done', 'stopped')),
    rate          integer NOT NULL CHECK (rate > 0),
    base          text NOT NULL DEFAULT '',
    started_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    started_by    text NOT NULL,
    total         bigint NOT NULL,
    done          bigint NOT NULL DEFAULT 0,
    position      bigint NOT NULL DEFAULT 0,
    last          bigint NOT NULL,
    findings      jsonb NOT NULL DEFAULT '{}',
    note          text NOT NULL DEFAULT '',
    stepped_at    timestamptz,
    busy          double precision NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX walk_one_at_a_time ON walk (kind) WHERE state IN ('running', 'paused');

-- What a walk found; without health data. `kind` is empty while the study is being repaired by the job `job_id`, `was`
-- the state of its version `position` before that. Studies without any finding have no line.
CREATE TABLE walk_study (
    walk_id       bigint NOT NULL REFERENCES walk (id),
    position      bigint NOT NULL,
    kind          text NOT NULL DEFAULT '',
    structure     text NOT NULL,
    study_uid     text NOT NULL,
    was           text NOT NULL,
    at            timestamptz NOT NULL,
    detail        text NOT NULL DEFAULT '',
    job_id        bigint,
    PRIMARY KEY (walk_id, position, kind)
);
CREATE INDEX walk_study_repairing ON walk_study (walk_id) WHERE kind = '';
CREATE INDEX publication_to_walk ON publication (id) WHERE state IN ('current', 'depublished');

-- The addresses (WADO-RS base) that this source has had, the newest being its own.
CREATE TABLE source_address (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    base          text NOT NULL,
    since         timestamptz NOT NULL
);

-- The WADO-RS base in the first Retrieve URL (0008,1190) of a KOS, empty when there is none. Octets that are no text
-- are kept apart by the encoding, so that no KOS whatever can make an insertion fail.
CREATE FUNCTION retrieve_base_of(kos bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
DECLARE
    place integer := position('\\x08009011'::bytea IN kos);
BEGIN
    IF place = 0 THEN
        RETURN '';
    END IF;
    RETURN coalesce(
        substring(encode(substring(kos FROM place FOR 400), 'escape') FROM '(https?://[^\\\\]*?)/studies/'), ''
    );
END
$$;
CREATE INDEX publication_address ON publication (id, (retrieve_base_of(kos) COLLATE "C")) WHERE state = 'current';
"""

# Nothing of the same lock runs or comes before it: as procrastinate has it.
_MAY_RUN = """(target_queue_names IS NULL OR job.queue_name = ANY (target_queue_names)) AND NOT EXISTS (
            SELECT FROM procrastinate_jobs other
            WHERE other.lock = job.lock AND (other.status = 'doing' OR other.status = 'todo'
                AND (other.priority > job.priority OR other.priority = job.priority AND other.id < job.id))
        )"""

QUEUE = f"""
-- The queue of jobs, made for a long one. A job is looked for among those never tried, and among those whose next try
-- is due: however many wait for their time (a PACS was away for hours), they are passed over unread. What may run and
-- the order of work on one lock stay as they were; of the tries that are due the longest due is first.
CREATE INDEX procrastinate_jobs_same_lock ON procrastinate_jobs (lock) WHERE status IN ('todo', 'doing');
CREATE INDEX procrastinate_jobs_fresh ON procrastinate_jobs (priority DESC, id)
    WHERE status = 'todo' AND scheduled_at IS NULL;
CREATE INDEX procrastinate_jobs_due ON procrastinate_jobs (scheduled_at)
    WHERE status = 'todo' AND scheduled_at IS NOT NULL AND priority >= 0;
CREATE INDEX procrastinate_jobs_due_behind ON procrastinate_jobs (scheduled_at)
    WHERE status = 'todo' AND scheduled_at IS NOT NULL AND priority < 0;
ALTER TABLE procrastinate_jobs SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE procrastinate_events SET (autovacuum_vacuum_scale_factor = 0.02);

CREATE OR REPLACE FUNCTION procrastinate_fetch_job_v2(target_queue_names character varying[], p_worker_id bigint)
    RETURNS procrastinate_jobs LANGUAGE plpgsql AS $$
DECLARE
    found_jobs procrastinate_jobs;
BEGIN
    WITH fresh AS MATERIALIZED (
        SELECT job.id, job.priority FROM procrastinate_jobs job
        WHERE job.status = 'todo' AND job.scheduled_at IS NULL AND {_MAY_RUN}
        ORDER BY job.priority DESC, job.id LIMIT 1 FOR UPDATE OF job SKIP LOCKED
    ), due AS MATERIALIZED (
        SELECT job.id, job.priority FROM procrastinate_jobs job
        WHERE job.status = 'todo' AND job.scheduled_at IS NOT NULL AND job.priority >= 0
        AND job.scheduled_at <= now() AND {_MAY_RUN}
        ORDER BY job.scheduled_at LIMIT 1 FOR UPDATE OF job SKIP LOCKED
    ), due_behind AS MATERIALIZED (
        SELECT job.id, job.priority FROM procrastinate_jobs job
        WHERE job.status = 'todo' AND job.scheduled_at IS NOT NULL AND job.priority < 0
        AND job.scheduled_at <= now() AND {_MAY_RUN}
        ORDER BY job.scheduled_at LIMIT 1 FOR UPDATE OF job SKIP LOCKED
    ), chosen AS (
        SELECT id FROM (TABLE fresh UNION ALL TABLE due UNION ALL TABLE due_behind) AS found
        ORDER BY priority DESC, id LIMIT 1
    )
    UPDATE procrastinate_jobs SET status = 'doing', worker_id = p_worker_id
    FROM chosen WHERE procrastinate_jobs.id = chosen.id
    RETURNING procrastinate_jobs.* INTO found_jobs;
    RETURN found_jobs;
END;
$$;
"""  # noqa: S608 - put together from two constants


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)
    driver.execute(QUEUE)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
