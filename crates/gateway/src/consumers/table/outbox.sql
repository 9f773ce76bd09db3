-- What an application leaves here, in the transaction that it belongs to, Fanfare publishes:
--
--     INSERT INTO fanfare_outbox (channel, data) VALUES ('room:1', '{"text":"hello"}');
--
-- PostgreSQL 12 or newer. docs/consumers.md says what is promised.

BEGIN;

CREATE TABLE fanfare_outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel    text NOT NULL,
    -- One of them: any JSON, or bytes.
    data       json,
    bytes      bytea,
    -- What makes it the same publication when it is written again; without it each row is one of its own.
    key        text,
    label      text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- A channel is always in the same one: what one node works on at a time.
    partition  smallint NOT NULL GENERATED ALWAYS AS ((hashtext(channel) & 15)::smallint) STORED,
    CHECK (num_nonnulls(data, bytes) = 1)
);

CREATE INDEX fanfare_outbox_order ON fanfare_outbox (partition, id);

-- Rows come and go: what they leave behind is cleared away by their number, not by that of those that are there.
ALTER TABLE fanfare_outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- Whoever locks a row of this has the partition.
CREATE TABLE fanfare_outbox_partition (partition smallint PRIMARY KEY);
INSERT INTO fanfare_outbox_partition SELECT generate_series(0, 15);

-- What could not be published, and why; the last 10,000 of it.
CREATE TABLE fanfare_outbox_dead (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         bigint NOT NULL,
    channel    text NOT NULL,
    data       json,
    bytes      bytea,
    key        text,
    label      text,
    created_at timestamptz NOT NULL,
    reason     text NOT NULL,
    died_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Nodes look at the table every `poll_ms`; with this at once. Where very many transactions write, leave it out: PostgreSQL
-- commits those that notify one after the other.
CREATE FUNCTION fanfare_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fanfare_outbox', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER fanfare_outbox_notify AFTER INSERT ON fanfare_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION fanfare_outbox_notify();

-- What the role in the URL of the consumer may do, where the tables are another's. An application needs INSERT on the first alone.
-- GRANT SELECT, DELETE ON fanfare_outbox TO fanfare;
-- GRANT SELECT, UPDATE ON fanfare_outbox_partition TO fanfare;
-- GRANT SELECT, INSERT, DELETE ON fanfare_outbox_dead TO fanfare;

COMMIT;
