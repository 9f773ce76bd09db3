//! `fanout` and `rooms`: publications to many, in one channel or in many small ones.
//!
//! The order of events: open all subscribers, then the publishers; publish; after the warm-up take the tally
//! and the CPU times, after the window take them again; stop publishing, but send what is numbered; wait until
//! what is on its way has arrived or nothing arrives any more; linger a moment, since a double comes last; judge.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::{Place, blame, open_all, run_name, targets};
use crate::args::{Flow, PublishBy};
use crate::audience::{Faults, Run, Tally};
use crate::connection::Connection;
use crate::process;
use crate::publisher::{Api, Pace, Publisher, Via};
use crate::report::{Quantiles, Report, grouped, micros, progress};

const GLANCE_INTERVAL: Duration = Duration::from_millis(50);
pub(super) const LINGER: Duration = Duration::from_millis(250);

/// The findings of `fanout` and `rooms`.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    rooms: usize,
    subscribers_per_room: usize,
    payload_bytes: usize,
    rate: Option<f64>,
    in_flight: Option<usize>,
    seconds: f64,
    published_per_second: f64,
    delivered: u64,
    delivered_per_second: f64,
    messages_per_read: f64,
    cpu_micros_per_message: Option<f64>,
    generator_cpu_micros_per_message: f64,
    latency_micros: Quantiles,
    publisher_lag_micros: Quantiles,
    faults: Faults,
    failures: Vec<String>,
}

/// What was counted and spent in the measured window.
struct Measured {
    elapsed: Duration,
    cpu: Duration,
    cpu_own: Duration,
    tally: Tally,
}

/// Runs `rooms` channels of `size` subscribers each.
pub(crate) async fn run(arguments: &Flow, rooms: usize, size: usize) -> Result<Findings> {
    let common = &arguments.common;
    let run = Run::new(rooms, size, 1);
    let name = run_name();
    let channels: Rc<[String]> = (0..rooms).map(|room| format!("{}{name}:{room}", common.prefix)).collect();
    // Neighbours in the order of opening are in different rooms, so that each room is spread over the URLs.
    let seat = |index: usize| (index % rooms) * size + index / rooms;
    let place =
        |index: usize| Place { url: index % rooms + index / rooms, channel: &channels[index % rooms] };
    open_all(common, rooms * size, &run.scratch, place, |index, connection| {
        drop(spawn_local(run.clone().listen(connection, Some(seat(index)))));
    })
    .await?;
    let publisher = Publisher {
        run: run.clone(),
        via: via(arguments, &run, rooms * size).await?,
        channels,
        payload_bytes: arguments.payload,
        pace: pace(arguments),
        publications_max: u64::MAX,
    };
    progress("publishing");
    let mut publishing = pin!(publisher.publish());
    let measured = tokio::select! {
        biased; // The window ends on time; a publisher that fails ends it sooner.
        measured = measure(arguments, &run) => measured?,
        failed = &mut publishing => return Err(failed.err().context("the publisher ended by itself")?),
    };
    run.stop();
    match timeout(arguments.patience, publishing).await {
        Ok(published) => published?,
        Err(_) => run.audience.borrow_mut().trouble("the publisher's messages are not read".to_owned()),
    }
    arrived(&run, arguments.patience).await;
    sleep(LINGER).await;
    Ok(findings(arguments, rooms, size, &run, &measured))
}

fn pace(arguments: &Flow) -> Pace {
    arguments.rate.map_or(Pace::InFlight(arguments.in_flight.max(1)), Pace::PerSecond)
}

async fn via(arguments: &Flow, run: &Rc<Run>, subscribers: usize) -> Result<Via> {
    if arguments.publish_by == PublishBy::Api {
        return Ok(Via::Api(Box::new(Api::connect(&arguments.api, arguments.api_key.as_deref()).await?)));
    }
    let targets = targets(&arguments.common).await?;
    let mut lines = Vec::new();
    for index in 0..arguments.publishers.max(1) {
        let target = &targets[index % targets.len()];
        let connection = Connection::open(target, subscribers + index, None, &run.scratch).await?;
        lines.push(connection.line());
        drop(spawn_local(run.clone().listen(connection, None)));
    }
    Ok(Via::Lines(lines))
}

async fn measure(arguments: &Flow, run: &Run) -> Result<Measured> {
    let pids = &arguments.common.pid;
    sleep(arguments.warm_up).await;
    std::mem::take(&mut run.audience.borrow_mut().tally);
    let (start, cpu, cpu_own) = (Instant::now(), process::cpu(pids)?, process::cpu_own()?);
    sleep(arguments.seconds).await;
    Ok(Measured {
        elapsed: start.elapsed(),
        cpu: process::cpu(pids)? - cpu,
        cpu_own: process::cpu_own()? - cpu_own,
        tally: std::mem::take(&mut run.audience.borrow_mut().tally),
    })
}

/// Waits until everyone has everything, or nothing has arrived for as long as `patience`.
pub(super) async fn arrived(run: &Run, patience: Duration) {
    let (mut delivered, mut since) = (0, Instant::now());
    loop {
        let now = {
            let audience = run.audience.borrow();
            if audience.in_flight == 0 {
                return;
            }
            audience.tally.delivered
        };
        if now != delivered {
            (delivered, since) = (now, Instant::now());
        } else if since.elapsed() >= patience {
            return;
        }
        sleep(GLANCE_INTERVAL).await;
    }
}

fn findings(arguments: &Flow, rooms: usize, size: usize, run: &Run, measured: &Measured) -> Findings {
    let Measured { elapsed, cpu, cpu_own, tally } = measured;
    let audience = run.audience.borrow();
    let faults = audience.verdict();
    let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
    let per_message = |spent: &Duration| micros(*spent) / tally.delivered.max(1) as f64;
    let cpu_micros = (!arguments.common.pid.is_empty()).then(|| per_message(cpu));
    let mut failures = faults.failures();
    if tally.delivered == 0 {
        failures.push("nothing was delivered in the measured window".to_owned());
    }
    if let Some((micros, micros_max)) = cpu_micros.zip(arguments.max_cpu_per_message)
        && micros > micros_max
    {
        failures.push(format!("{micros:.2} µs of CPU a delivered message, {micros_max} allowed"));
    }
    blame(&audience.troubles, &mut failures);
    Findings {
        rooms,
        subscribers_per_room: size,
        payload_bytes: arguments.payload,
        rate: arguments.rate,
        in_flight: arguments.rate.is_none().then_some(arguments.in_flight),
        seconds: elapsed.as_secs_f64(),
        published_per_second: per_second(tally.published),
        delivered: tally.delivered,
        delivered_per_second: per_second(tally.delivered),
        messages_per_read: tally.delivered as f64 / tally.reads.max(1) as f64,
        cpu_micros_per_message: cpu_micros,
        generator_cpu_micros_per_message: per_message(cpu_own),
        latency_micros: Quantiles::of(&tally.latency),
        publisher_lag_micros: Quantiles::of(&tally.lag),
        faults,
        failures,
    }
}

impl Report for Findings {
    fn title(&self) -> String {
        let pace = match (self.rate, self.in_flight) {
            (Some(rate), _) => format!("{rate} publications a second"),
            (None, in_flight) => format!("{} in flight", in_flight.unwrap_or_default()),
        };
        let size = grouped(self.subscribers_per_room as f64);
        let rooms = if self.rooms == 1 { "one channel".into() } else { format!("{} channels", self.rooms) };
        format!("{rooms}, {size} subscribers each, {} bytes, {pace}", self.payload_bytes)
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("published per second", grouped(self.published_per_second)),
            ("delivered per second", grouped(self.delivered_per_second)),
        ];
        if let Some(cpu) = self.cpu_micros_per_message {
            rows.push(("CPU per delivered message, µs", format!("{cpu:.2}")));
        }
        rows.push(("generator's own, µs", format!("{:.2}", self.generator_cpu_micros_per_message)));
        rows.push(("messages per read", format!("{:.1}", self.messages_per_read)));
        rows.extend(self.latency_micros.rows());
        if self.rate.is_some() {
            rows.push(("publisher's lag p99, ms", self.publisher_lag_micros.p99_milliseconds()));
        }
        rows.extend(self.faults.rows());
        rows
    }

    fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl Faults {
    /// As rows of a report.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("lost", grouped(self.lost as f64)),
            ("doubled", grouped(self.doubled as f64)),
            ("reordered", grouped(self.reordered as f64)),
        ]
    }

    /// Those that are not zero, in words.
    pub(super) fn failures(&self) -> Vec<String> {
        [
            (self.lost, "messages lost"),
            (self.doubled, "messages doubled"),
            (self.reordered, "messages out of order"),
            (self.stray, "messages heard by somebody they were not for"),
            (self.disagreeing_rooms, "channels whose subscribers heard different things or orders"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{what}: {count}"))
        .collect()
    }
}
