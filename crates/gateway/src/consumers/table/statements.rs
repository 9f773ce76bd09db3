//! The SQL, for a table of any name.

use crate::consumers::DEAD_MAX;

/// What makes the tables, for the default name.
const SCHEMA: &str = include_str!("outbox.sql");

/// The name that it has there.
const SCHEMA_NAME: &str = "fanfare_outbox";

/// The partitions that one transaction may lock: the others are for other nodes.
const PARTITIONS_AT_ONCE: u32 = 4;

/// The most rows that are counted.
const COUNT_MAX: u32 = 100_000;

/// The bytes of a name or a key that are read: more than any that is good has.
const NAME_BYTES_MAX: u32 = 1024;

/// The statements that make a table of this name, and what belongs to it.
pub(crate) fn schema(table: &str) -> String {
    SCHEMA.replace(SCHEMA_NAME, table)
}

/// What is asked of one table. Names are in quotes, and have none in them.
#[derive(Debug)]
pub(super) struct Statements {
    /// Has the server say when there is something.
    pub(super) listen: String,
    /// Begins a transaction, and says how long the server waits for a statement of it and for a node that does not end it.
    /// What it takes out may come back with a crash of the server: that is a redelivery like others, so no disk is waited for.
    /// Nothing of that stays with the connection, which may be a pooler's. What is read after the locks is what their last
    /// holder has left.
    pub(super) begin: &'static str,
    /// Locks partitions that have something and that nobody else has locked.
    pub(super) lock: String,
    /// The first rows of partitions ($2), at most so many ($3), without what is over a size ($1).
    pub(super) read: String,
    /// Takes rows ($1) out.
    pub(super) delete: String,
    /// Puts rows ($1) aside with the reasons ($2).
    pub(super) bury: String,
    /// Deletes the oldest that were put aside.
    pub(super) trim: String,
    /// How many rows wait, and the first of them since when.
    pub(super) measure: String,
}

impl Statements {
    pub(super) fn of(table: &str) -> Self {
        Self {
            listen: format!("LISTEN \"{table}\""),
            begin: "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '10s'; \
                    SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL synchronous_commit = off",
            lock: format!(
                "SELECT p.partition::smallint FROM \"{table}_partition\" p \
                 WHERE EXISTS (SELECT FROM \"{table}\" o WHERE o.partition = p.partition) \
                 ORDER BY random() LIMIT {PARTITIONS_AT_ONCE} FOR UPDATE OF p SKIP LOCKED"
            ),
            read: format!(
                "SELECT o.id::bigint, left(o.channel, {NAME_BYTES_MAX}), \
                 CASE WHEN octet_length(o.data::text) <= $1 THEN o.data::text END, \
                 CASE WHEN octet_length(o.bytes) <= $1 THEN o.bytes END, \
                 left(o.key, {NAME_BYTES_MAX}), left(o.label, {NAME_BYTES_MAX}), \
                 extract(epoch FROM o.created_at)::text, \
                 coalesce(octet_length(o.data::text), octet_length(o.bytes)) > $1 \
                 FROM (SELECT f.id FROM unnest($2) AS p (partition), LATERAL \
                 (SELECT t.id FROM \"{table}\" t WHERE t.partition = p.partition ORDER BY t.id LIMIT $3) AS f \
                 ORDER BY f.id LIMIT $3) AS head JOIN \"{table}\" o ON o.id = head.id ORDER BY o.id"
            ),
            delete: format!("DELETE FROM \"{table}\" WHERE id = ANY($1)"),
            bury: format!(
                "WITH gone AS (DELETE FROM \"{table}\" WHERE id = ANY($1) \
                 RETURNING id, channel, data, bytes, key, label, created_at) \
                 INSERT INTO \"{table}_dead\" (id, channel, data, bytes, key, label, created_at, reason) \
                 SELECT gone.*, why.reason FROM gone JOIN unnest($1, $2) AS why (id, reason) ON gone.id = why.id \
                 ORDER BY gone.id"
            ),
            trim: format!(
                "DELETE FROM \"{table}_dead\" WHERE number <= (SELECT max(number) FROM \"{table}_dead\") - {DEAD_MAX}"
            ),
            measure: format!(
                "SELECT (SELECT count(*) FROM (SELECT FROM \"{table}\" LIMIT {COUNT_MAX}) AS counted), \
                 (SELECT extract(epoch FROM clock_timestamp())::float8 - extract(epoch FROM created_at)::float8 \
                 FROM \"{table}\" ORDER BY id LIMIT 1)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_another_name_has_nothing_in_common_with_the_first() {
        let schema = schema("orders");
        assert!(schema.contains("CREATE TABLE orders (") && schema.contains("orders_partition"), "{schema}");
        let all = format!("{schema}{:?}", Statements::of("orders"));
        assert!(!all.contains("fanfare_outbox"), "{all}");
    }
}
