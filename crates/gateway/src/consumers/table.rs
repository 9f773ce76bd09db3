//! Publications from a table of PostgreSQL, into which applications write them in the transactions that they belong to.
//!
//! ```text
//!  BEGIN ─► partitions that nobody else works on (SKIP LOCKED) ─► their first rows ─► placed ─► DELETE, INSERT to the dead ─► COMMIT
//! ```
//!
//! A channel's rows are all in one partition, and whoever has locked a partition has it until the end of its transaction: so
//! nodes share the work batch by batch, and a channel's rows are published in the order of their ids. A node that dies loses its
//! locks with its connection, one that is frozen by the server's patience. NOTIFY says that there is something; where that does
//! not come through, the table is looked at now and then.

use std::error::Error;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row};

use super::entry::Entry;
use super::{Feed, MEASURE_INTERVAL, Outcome, Pause};
use crate::config::{Authorities, OutboxTable, Secret};

mod statements;
mod tls;

pub(crate) use statements::schema;

use statements::Statements;
use tls::Tls;

/// How long one answer may take; the server gives up before that.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where the rows are.
#[derive(Debug)]
pub(super) struct Table {
    url: Secret,
    poll: Duration,
    statements: Statements,
    tls: Tls,
}

impl Table {
    pub(super) fn of(config: &OutboxTable, url: &Secret, authorities: &Authorities) -> Self {
        Self {
            url: url.clone(),
            poll: config.poll,
            statements: Statements::of(&config.table),
            tls: Tls::trusting(authorities),
        }
    }
}

/// Why the table could not be read.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error("{}", told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("it has not answered within {} seconds", PATIENCE.as_secs())]
    Late,
}

/// What the server says, or else what the client does and why: neither repeats the URL.
fn told(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(it), _) => format!("{} ({})", it.message(), it.code().code()),
        (None, Some(why)) => format!("{error}: {why}"),
        (None, None) => error.to_string(),
    }
}

/// A connection, and what wakes when the server says that there is something.
struct Line {
    client: Client,
    news: Arc<Notify>,
}

/// What one transaction has come to.
enum Turn {
    /// Nothing is there, or others have it in hand.
    Idle,
    Done,
    /// The broker has not taken all of it.
    Deferred,
}

/// Publishes what is in the table, until told to stop.
pub(super) async fn run(feed: Feed, table: Table) {
    let mut pause = Pause::default();
    while !feed.stop.is_cancelled() {
        if let Err(error) = talk(&feed, &table, &mut pause).await {
            feed.is_down(&error);
            feed.rest(pause.next()).await;
        }
    }
}

/// Goes on until the connection is lost, or told to stop.
async fn talk(feed: &Feed, table: &Table, trouble: &mut Pause) -> Result<(), TableError> {
    let Some(line) = feed.stop.run_until_cancelled(connect(feed, table)).await else { return Ok(()) };
    let Line { client, news } = line?;
    let mut pause = Pause::default();
    let (mut look_at, mut measure_at) = (Instant::now(), Instant::now());
    while !feed.stop.is_cancelled() {
        if Instant::now() >= measure_at {
            measure(feed, table, &client).await?;
            measure_at = Instant::now() + MEASURE_INTERVAL;
        }
        if Instant::now() < look_at {
            let woken = timeout_at(look_at.min(measure_at), news.notified());
            if let Some(Ok(())) = feed.stop.run_until_cancelled(woken).await {
                look_at = Instant::now();
            }
            continue;
        }
        let turn = turn(feed, table, &client).await?;
        feed.is_up();
        *trouble = Pause::default();
        match turn {
            Turn::Idle => look_at = Instant::now() + table.poll,
            Turn::Done => pause = Pause::default(),
            Turn::Deferred => feed.rest(pause.next()).await,
        }
    }
    Ok(())
}

/// Connects, and has news told. The task that carries the connection ends with the client.
async fn connect(feed: &Feed, table: &Table) -> Result<Line, TableError> {
    let mut config: tokio_postgres::Config = table.url.expose().parse()?;
    config.connect_timeout(PATIENCE / 3).tcp_user_timeout(PATIENCE).keepalives_idle(PATIENCE);
    config.application_name("fanfare");
    let (client, mut connection) = within(Box::pin(config.connect(table.tls.clone()))).await?;
    let news = Arc::new(Notify::new());
    let bell = news.clone();
    feed.services.tasks.spawn(async move {
        while let Some(Ok(said)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(_) = said {
                bell.notify_one();
            }
        }
        bell.notify_one(); // Whoever waits finds out what has become of it.
    });
    within(client.batch_execute(&table.statements.listen)).await?;
    Ok(Line { client, news })
}

async fn within<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, TableError> {
    Ok(timeout(PATIENCE, answer).await.map_err(|_| TableError::Late)??)
}

/// Publishes the first rows of some partitions, and takes them out. With an error the connection ends, and so does the transaction.
async fn turn(feed: &Feed, table: &Table, client: &Client) -> Result<Turn, TableError> {
    within(client.batch_execute(table.statements.begin)).await?;
    let locked = within(client.query_typed(&table.statements.lock, &[])).await?;
    let partitions = locked.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i16>, _>>()?;
    if partitions.is_empty() {
        within(client.batch_execute("ROLLBACK")).await?;
        return Ok(Turn::Idle);
    }
    let bytes_max = feed.services.settings().policy.limits.message_bytes;
    let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX);
    let batch = i64::try_from(feed.batch).unwrap_or(i64::MAX);
    let wanted =
        [(&bytes_max as _, Type::INT4), (&partitions as _, Type::INT2_ARRAY), (&batch as _, Type::INT8)];
    let rows = within(client.query_typed(&table.statements.read, &wanted)).await?;
    let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let outcomes = feed.place(entries).await;
    let done = settle(table, client, &rows, &outcomes, feed.is_kept_aside).await;
    let deferred = outcomes.iter().filter(|it| **it == Outcome::Deferred).count();
    // Where it was not committed all of them are still there, whether or not they have been published.
    feed.read_again(if done.is_ok() { deferred } else { rows.len() });
    done.map(|()| if deferred > 0 { Turn::Deferred } else { Turn::Done })
}

/// A column as the server has it: in a database without an encoding a text may be anything, and one such must not hold up the rest.
struct Bytes(Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn entry(row: &Row) -> Result<Entry, tokio_postgres::Error> {
    let bytes = |at: usize| row.try_get::<_, Option<Bytes>>(at).map(|it| it.map(|Bytes(bytes)| bytes));
    let (id, written): (i64, &str) = (row.try_get(0)?, row.try_get(6)?);
    Ok(Entry {
        // With the time it is another id than one that a table of this name had before.
        id: format!("{id}:{written}").into(),
        channel: bytes(1)?,
        data: bytes(2)?,
        bytes: bytes(3)?,
        key: bytes(4)?,
        label: bytes(5)?,
        is_too_large: row.try_get::<_, Option<bool>>(7)?.unwrap_or(false),
    })
}

/// Takes the rows out that have been published, and those that cannot be, and commits.
async fn settle(
    table: &Table,
    client: &Client,
    rows: &[Row],
    outcomes: &[Outcome],
    is_kept_aside: bool,
) -> Result<(), TableError> {
    let (mut done, mut dead, mut reasons) = (Vec::<i64>::new(), Vec::<i64>::new(), Vec::new());
    for (row, outcome) in rows.iter().zip(outcomes) {
        match outcome {
            Outcome::Refused(failure) if is_kept_aside => {
                dead.push(row.try_get(0)?);
                reasons.push(failure.explanation.as_ref());
            }
            Outcome::Accepted | Outcome::Refused(_) => done.push(row.try_get(0)?),
            Outcome::Deferred => {}
        }
    }
    let Statements { delete, bury, trim, .. } = &table.statements;
    within(client.query_typed(delete, &[(&done, Type::INT8_ARRAY)])).await?;
    if !dead.is_empty() {
        let dead = [(&dead as _, Type::INT8_ARRAY), (&reasons as _, Type::TEXT_ARRAY)];
        within(client.query_typed(bury, &dead)).await?;
        within(client.query_typed(trim, &[])).await?;
    }
    within(client.batch_execute("COMMIT")).await
}

/// Looks how much waits.
async fn measure(feed: &Feed, table: &Table, client: &Client) -> Result<(), TableError> {
    let rows = within(client.query_typed(&table.statements.measure, &[])).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (waiting, oldest): (i64, Option<f64>) = (row.try_get(0)?, row.try_get(1)?);
    let oldest = Duration::try_from_secs_f64(oldest.unwrap_or_default()).unwrap_or_default();
    feed.measured(u64::try_from(waiting).unwrap_or_default(), oldest);
    Ok(())
}
