//! `fanout` and `rooms`: publications to many, in one channel or in many small ones.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::blame;
use super::crowd::{Crowd, Hiring, Played, Work};
use crate::args::{Flow, PublishBy};
use crate::audience::Faults;
use crate::protocol::{Fanfare, Post};
use crate::publisher::Pace;
use crate::report::{Quantiles, Report, grouped, micros, progress};

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

/// Runs `rooms` channels of `size` subscribers each.
pub(crate) async fn run(arguments: &Flow, rooms: usize, size: usize) -> Result<Findings> {
    let mut crowd = Crowd::open(&arguments.common, rooms, size).await?;
    crowd.hire(&arguments.common, &via(arguments)).await?;
    let work = Work {
        payload_bytes: arguments.payload,
        pace: arguments.rate.map_or(Pace::InFlight(arguments.in_flight.max(1)), Pace::PerSecond),
        burst: arguments.burst,
        warm_up: arguments.warm_up,
        warm_up_published: arguments.warm_up_published,
        window: arguments.seconds,
        patience: arguments.patience,
    };
    progress("publishing");
    let played = crowd.play(&work, &arguments.common.pid).await?;
    Ok(findings(arguments, rooms, size, &played))
}

fn via(arguments: &Flow) -> Hiring<'_> {
    let own = arguments.common.protocol.protocol().posts();
    let api = Post { request: Fanfare::api_request, pipelined: 1 };
    let post = own.or((arguments.publish_by == PublishBy::Api).then_some(api));
    match post {
        Some(post) => Hiring::Post { url: &arguments.api, key: arguments.api_key.as_deref(), post },
        None => Hiring::Lines(arguments.publishers.max(1)),
    }
}

fn findings(arguments: &Flow, rooms: usize, size: usize, played: &Played) -> Findings {
    let Played { elapsed, cpu, cpu_own, kernel_drops: _, tally, faults, troubles } = played;
    let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
    let per_message = |spent: &Duration| micros(*spent) / tally.delivered.max(1) as f64;
    let cpu_micros = (!arguments.common.pid.is_empty()).then(|| per_message(&cpu.total()));
    let mut failures = faults.failures();
    if tally.delivered == 0 {
        failures.push("nothing was delivered in the measured window".to_owned());
    }
    if let Some((micros, micros_max)) = cpu_micros.zip(arguments.max_cpu_per_message)
        && micros > micros_max
    {
        failures.push(format!("{micros:.2} µs of CPU a delivered message, {micros_max} allowed"));
    }
    blame(troubles, &mut failures);
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
        faults: *faults,
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
    pub(crate) fn failures(&self) -> Vec<String> {
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
