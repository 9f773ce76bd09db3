//! `bench`: the same work on several servers, in turn, in one run.
//!
//! A run is rounds of sets of rows. In a round each set is done by every peer before the next set begins, so that
//! what the machine does to one it does to all; the order of peers turns with the rounds. A set is one server,
//! started for it, and one crowd of connections; its rows are measured one after the other on these.
//!
//! A server that cannot be started, loses its connections or goes silent spoils its own cells and nothing else:
//! they are reported as failures.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fanfare_testbed::Authority;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::args::{Bench, Common};
use crate::process;
use crate::publisher::Pace;
use crate::report::{micros, progress};
use crate::scenario::crowd::{Crowd, Hiring, Played, Work};
use crate::scenario::idle::settled;

mod chart;
mod neighbour;
mod page;
mod plan;
mod results;
mod server;

use neighbour::Neighbour;
use plan::{Measure, PEERS, Part, Peer, Rhythm, Row, SETS, Set};
use results::{Machine, Measurement, PeerFacts, Results, RowFacts};
use server::{Server, Workshop};

const CONNECTIONS_OPENING: usize = 128;
const WARM_UP: Duration = Duration::from_millis(500);
/// Where a row does not say otherwise.
const PAYLOAD_BYTES: usize = 128;
const PATIENCE: Duration = Duration::from_secs(5);
/// For one server and all its rows.
const SET_TIMEOUT: Duration = Duration::from_secs(180);
/// What a quick run does when it is not told.
const QUICK_ROWS: &[&str] =
    &["idle", "rooms-128", "wide-128", "neighbour", "fanout-128", "rate-128", "nodes-128"];
/// A quick run has so many times fewer connections.
const QUICK_DIVISOR: usize = 10;

/// Runs what was asked for, and writes the results.
pub(crate) async fn run(arguments: &Bench) -> Result<ExitCode> {
    if let Some(path) = &arguments.render {
        let json = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let results: Results = serde_json::from_slice(&json)?;
        page::write(&results, arguments.docs.as_deref().context("--render needs --docs")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Servers end when they are dropped, so however this ends, none is left behind.
    let results = tokio::select! {
        results = rounds(arguments) => results?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    let json = serde_json::to_vec_pretty(&results)?;
    std::fs::write(&arguments.json, json)
        .with_context(|| format!("cannot write {}", arguments.json.display()))?;
    if let Some(docs) = &arguments.docs {
        page::write(&results, docs)?;
    }
    progress(&page::tables(&results));
    // Of other people's servers failures are findings; of ours they fail the run.
    let failures: Vec<_> = results.measurements.iter().filter(|it| it.is_ours() && it.failed()).collect();
    for failure in &failures {
        progress(&format!("FAILED: {} {}: {}", failure.peer, failure.row, failure.failures.join("; ")));
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn rounds(arguments: &Bench) -> Result<Results> {
    let workshop = Workshop {
        peers: arguments.peers.clone(),
        cache: arguments.cache.clone(),
        programs: arguments.programs.clone(),
    };
    let chosen: Vec<&Peer> = PEERS.iter().filter(|peer| is_chosen(peer, arguments)).collect();
    if let Some(unknown) = arguments.only.iter().find(|name| PEERS.iter().all(|it| it.name != **name)) {
        bail!("there is no peer {unknown}");
    }
    let (mut present, mut facts) = (Vec::new(), Vec::new());
    for peer in chosen {
        let version = workshop.version(peer);
        match &version {
            Ok(_) => present.push(peer),
            Err(error) => progress(&format!("{} is left out: {error:#}", peer.name)),
        }
        let version = version.ok();
        facts.push(PeerFacts { name: peer.name.into(), title: peer.title.into(), version });
    }
    if let Some(unknown) = arguments.rows.iter().find(|name| SETS.iter().all(|set| !set.has(name))) {
        bail!("there is no row {unknown}");
    }
    let sets: Vec<Set> =
        SETS.iter().map(|set| set.chosen(arguments)).filter(|it| !it.rows.is_empty()).collect();
    let rows = sets.iter().flat_map(|set| set.rows.iter().map(|row| RowFacts::of(set, row))).collect();
    let mut measurements = Vec::new();
    for round in 0..arguments.rounds {
        for set in &sets {
            for turn in 0..present.len() {
                let peer = present[(turn + round) % present.len()];
                if set.nodes > 1 && !peer.clusters {
                    continue;
                }
                measurements.extend(cell(&workshop, arguments, peer, set, round).await);
            }
        }
    }
    Ok(Results {
        machine: Machine::read()?,
        commit: arguments.commit.clone(),
        command: arguments.command_line.clone(),
        rounds: arguments.rounds,
        window_seconds: arguments.seconds.as_secs_f64(),
        peers: facts,
        rows,
        measurements,
    })
}

fn is_chosen(peer: &Peer, arguments: &Bench) -> bool {
    match arguments.only.as_slice() {
        [] if arguments.quick => ["fanfare", "fanfare-tls", "floor1", "floor8"].contains(&peer.name),
        [] => peer.part == Part::Always,
        only => only.iter().any(|it| it == peer.name),
    }
}

impl Set {
    fn has(&self, row: &str) -> bool {
        self.rows.iter().any(|it| it.name == row)
    }

    /// What is left of the set for a run with these arguments.
    fn chosen(&self, arguments: &Bench) -> Self {
        let wanted = |row: &&Row| match arguments.rows.as_slice() {
            [] => !arguments.quick || QUICK_ROWS.contains(&row.name),
            rows => rows.iter().any(|it| it == row.name),
        };
        // A share of a maximum needs the row that finds it.
        let needed = |row: &&Row| {
            wanted(row)
                || self.rows.iter().filter(wanted).any(|other| match other.measure {
                    Measure::Flow { rhythm: Rhythm::HalfOf(name), .. } => name == row.name,
                    Measure::Flow { .. } | Measure::Idle | Measure::Neighbour { .. } => false,
                })
        };
        let divisor = if arguments.quick { QUICK_DIVISOR } else { 1 };
        let (rooms, size) =
            if self.rooms > 1 { (self.rooms / divisor, self.size) } else { (1, self.size / divisor) };
        Self { rooms, size, rows: self.rows.iter().filter(needed).cloned().collect(), ..self.clone() }
    }
}

/// One peer does one set; a failure is in what it returns.
async fn cell(
    workshop: &Workshop,
    arguments: &Bench,
    peer: &Peer,
    set: &Set,
    round: usize,
) -> Vec<Measurement> {
    progress(&format!("round {}: {} on {}", round + 1, set.name, peer.name));
    let mut done = Vec::new();
    let outcome = timeout(SET_TIMEOUT, play(workshop, arguments, peer, set, &mut done)).await;
    let error = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("not done after {SET_TIMEOUT:?}")),
    };
    let missing = set.rows[done.len()..].iter().map(|row| {
        let why = error.clone().unwrap_or_else(|| "not measured".to_owned());
        progress(&format!("  {}: {why}", row.name));
        Measurement { row: row.name.into(), failures: vec![why], ..Measurement::default() }
    });
    let all: Vec<_> = done.into_iter().chain(missing).collect();
    all.into_iter().map(|it| Measurement { round, peer: peer.name.into(), ..it }).collect()
}

async fn play(
    workshop: &Workshop,
    arguments: &Bench,
    peer: &Peer,
    set: &Set,
    done: &mut Vec<Measurement>,
) -> Result<()> {
    let server = Server::start(workshop, peer, set.nodes).await?;
    let outcome = play_on(&server, arguments, peer, set, done).await;
    server.stop().await;
    outcome
}

async fn play_on(
    server: &Server,
    arguments: &Bench,
    peer: &Peer,
    set: &Set,
    done: &mut Vec<Measurement>,
) -> Result<()> {
    let common = Common {
        url: server.urls.clone(),
        authority: server.authority.as_ref().map(Authority::file),
        pid: server.pids.clone(),
        concurrency: CONNECTIONS_OPENING,
        json: None,
        protocol: peer.dialect,
        prefix: peer.prefix.to_owned(),
    };
    let idle = set.rows.iter().any(|row| matches!(row.measure, Measure::Idle));
    let resident = if idle { settled(&server.pids).await? } else { 0 };
    let (cpu, cpu_own) = (process::cpu(&server.pids)?, process::cpu_own()?);
    let mut crowd = Crowd::open(&common, set.rooms, set.size).await?;
    let opening = Opening {
        resident,
        cpu: process::cpu(&server.pids)?.since(cpu).total(),
        own: process::cpu_own()? - cpu_own,
    };
    if idle {
        done.push(opening.measurement(set, &crowd, settled(&server.pids).await?));
    }
    let publisher = peer.publishes.unwrap_or(peer.dialect);
    hire(&mut crowd, &Common { protocol: publisher, ..common.clone() }, server).await?;
    let work = Work {
        payload_bytes: PAYLOAD_BYTES,
        pace: Pace::InFlight(1),
        burst: 1,
        warm_up: WARM_UP,
        warm_up_published: 0,
        window: arguments.seconds,
        patience: PATIENCE,
    };
    for row in set.rows.iter() {
        match row.measure {
            Measure::Idle => {}
            Measure::Flow { payload_bytes, rhythm, burst } => {
                let pace = pace(rhythm, set, done)?;
                // Flat out, histories are filled with what the row is about before it is measured: that is how a node runs.
                let keeps = if let Pace::InFlight(_) = pace { peer.keeps } else { 0 };
                let warm_up_published = keeps * set.rooms as u64;
                let work = Work { payload_bytes, pace, burst, warm_up_published, ..work };
                let played = crowd.play(&work, &server.pids).await?;
                done.push(flow(row, &work, &played));
            }
            Measure::Neighbour { deliveries_beside } => {
                let neighbour = Neighbour::start(&common, server, arguments.seconds)?;
                if let Some(deliveries) = deliveries_beside {
                    let work = Work { pace: pace(Rhythm::Deliveries(deliveries), set, done)?, ..work };
                    crowd.play(&work, &server.pids).await?;
                }
                done.push(neighbour.measurement(row).await?);
            }
        }
    }
    Ok(())
}

async fn hire(crowd: &mut Crowd, common: &Common, server: &Server) -> Result<()> {
    let by = match common.protocol.protocol().posts() {
        Some(post) => Hiring::Post { url: &server.http, key: None, post },
        None => Hiring::Lines(1),
    };
    crowd.hire(common, &by).await
}

fn pace(rhythm: Rhythm, set: &Set, done: &[Measurement]) -> Result<Pace> {
    Ok(match rhythm {
        Rhythm::InFlight(window) => Pace::InFlight(window),
        Rhythm::Deliveries(per_second) => Pace::PerSecond(per_second / set.size as f64),
        Rhythm::HalfOf(row) => {
            let flat_out =
                done.iter().find(|it| it.row == row).and_then(|it| it.figure("published_per_second"));
            Pace::PerSecond(flat_out.context("the maximum is not known")?.max(2.0) / 2.0)
        }
    })
}

/// What opening the crowd cost.
struct Opening {
    resident: u64,
    cpu: Duration,
    own: Duration,
}

impl Opening {
    fn measurement(&self, set: &Set, crowd: &Crowd, resident_after: u64) -> Measurement {
        let connections = (set.rooms * set.size) as f64;
        let row = set.rows.iter().find(|row| matches!(row.measure, Measure::Idle));
        let bytes = (resident_after as f64 - self.resident as f64) / connections;
        let figures = [
            ("bytes_per_connection", bytes),
            ("handshakes_per_second", connections / crowd.opened_in.as_secs_f64()),
            ("handshakes_per_cpu_second", connections / self.cpu.as_secs_f64().max(0.01)),
            ("cpu_micros_per_handshake", micros(self.cpu) / connections),
            ("generator_cpu_micros_per_handshake", micros(self.own) / connections),
        ];
        Measurement {
            row: row.map_or_else(String::new, |row| row.name.into()),
            figures: figures.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            ..Measurement::default()
        }
    }
}

fn flow(row: &Row, work: &Work, played: &Played) -> Measurement {
    let Played { elapsed, cpu, cpu_own, kernel_drops, tally, faults, troubles } = played;
    let delivered = tally.delivered.max(1) as f64;
    let milliseconds = |fraction| micros(tally.latency.quantile(fraction)) / 1000.0;
    let mut figures = vec![
        ("published_per_second", tally.published as f64 / elapsed.as_secs_f64()),
        ("delivered_per_second", tally.delivered as f64 / elapsed.as_secs_f64()),
        ("cpu_micros_per_message", micros(cpu.total()) / delivered),
        ("user_micros_per_message", micros(cpu.user) / delivered),
        ("cores", cpu.total().as_secs_f64() / elapsed.as_secs_f64()),
        ("generator_cpu_micros_per_message", micros(*cpu_own) / delivered),
        ("generator_cores", cpu_own.as_secs_f64() / elapsed.as_secs_f64()),
        ("messages_per_read", tally.delivered as f64 / tally.reads.max(1) as f64),
        ("p50_ms", milliseconds(0.5)),
        ("p99_ms", milliseconds(0.99)),
        ("p999_ms", milliseconds(0.999)),
        ("kernel_drops", *kernel_drops as f64),
        ("lost", faults.lost as f64),
        ("doubled", faults.doubled as f64),
        ("reordered", faults.reordered as f64),
    ];
    if matches!(work.pace, Pace::PerSecond(_)) {
        figures.push(("publisher_lag_p99_ms", micros(tally.lag.quantile(0.99)) / 1000.0));
    }
    let mut failures = faults.failures();
    failures.extend(troubles.iter().map(|(what, count)| format!("{what}: {count}")));
    if tally.delivered == 0 {
        failures.push("nothing was delivered".to_owned());
    }
    progress(&format!(
        "  {}: {:.0} msg/s, {:.2} us/msg (generator {:.2}, {:.1} msg/read), p99 {:.1} ms{}",
        row.name,
        delivered / elapsed.as_secs_f64(),
        micros(cpu.total()) / delivered,
        micros(*cpu_own) / delivered,
        tally.delivered as f64 / tally.reads.max(1) as f64,
        milliseconds(0.99),
        if failures.is_empty() { String::new() } else { format!("; {}", failures.join("; ")) },
    ));
    Measurement {
        row: row.name.into(),
        figures: figures.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        failures,
        ..Measurement::default()
    }
}
