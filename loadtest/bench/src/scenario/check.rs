//! `check`: every subscriber hears every message of its channel exactly once, and all of a channel hear the
//! same order, whichever nodes they are on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::crowd::{LINGER, arrived};
use super::{Place, blame, open_all, run_name};
use crate::args::Check;
use crate::audience::{Faults, Run};
use crate::publisher::{Pace, Publisher, Via};
use crate::report::{Quantiles, Report, grouped, progress};

/// The findings of `check`.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    connections: usize,
    channels: usize,
    published: u64,
    expected: u64,
    delivered: u64,
    seconds: f64,
    /// Connections by the name of the node that serves them.
    nodes: BTreeMap<String, usize>,
    latency_micros: Quantiles,
    faults: Faults,
    failures: Vec<String>,
}

/// Opens the connections, publishes from some of each channel, and judges what all of them heard.
pub(crate) async fn run(arguments: &Check) -> Result<Findings> {
    let (common, size) = (&arguments.common, arguments.size);
    ensure!(
        size > 0 && (1..=size).contains(&arguments.publishers),
        "a channel needs between 1 and --size publishers"
    );
    let rooms = arguments.connections / size;
    ensure!(
        rooms > 0 && arguments.connections.is_multiple_of(size),
        "--connections must be a multiple of --size"
    );
    let run = Run::new(rooms, size, arguments.publishers);
    let name = run_name();
    let channels: Rc<[String]> = (0..rooms).map(|room| format!("{}{name}-{room}", common.prefix)).collect();
    let lines = RefCell::new(vec![None; rooms * arguments.publishers]);
    let mut nodes = BTreeMap::new();
    // Neighbours in the order of opening are in different channels, so that each is spread over the nodes.
    let place =
        |index: usize| Place { url: index % rooms + index / rooms, channel: &channels[index % rooms] };
    open_all(common, arguments.connections, &run.scratch, place, |index, connection| {
        let (room, seat) = (index % rooms, index / rooms);
        *nodes.entry(connection.node.clone()).or_default() += 1;
        if seat < arguments.publishers {
            lines.borrow_mut()[room * arguments.publishers + seat] = Some(connection.line());
        }
        drop(spawn_local(run.clone().listen(connection, Some(room * size + seat))));
    })
    .await?;
    let lines = lines.into_inner().into_iter().map(|line| line.expect("every seat was opened")).collect();
    let published = arguments.messages * (rooms * arguments.publishers) as u64;
    progress(&format!("publishing {published} messages in {rooms} channels"));
    let start = Instant::now();
    Publisher {
        run: run.clone(),
        via: &mut Via::Lines(common.protocol.protocol(), lines),
        channels,
        payload_bytes: arguments.payload,
        pace: Pace::PerSecond(arguments.rate),
        burst: 1,
        publications_max: published,
    }
    .publish()
    .await?;
    arrived(&run, arguments.patience).await;
    let seconds = start.elapsed().as_secs_f64();
    sleep(LINGER).await;
    Ok(findings(arguments, &run, published, seconds, nodes))
}

fn findings(
    arguments: &Check,
    run: &Run,
    published: u64,
    seconds: f64,
    nodes: BTreeMap<String, usize>,
) -> Findings {
    let audience = run.audience.borrow();
    let faults = audience.verdict();
    let mut failures = faults.failures();
    if nodes.len() < arguments.min_nodes {
        failures.push(format!("served by {} nodes, not {}", nodes.len(), arguments.min_nodes));
    }
    blame(&audience.troubles, &mut failures);
    Findings {
        connections: arguments.connections,
        channels: arguments.connections / arguments.size,
        published,
        expected: published * arguments.size as u64,
        delivered: audience.tally.delivered,
        seconds,
        nodes,
        latency_micros: Quantiles::of(&audience.tally.latency),
        faults,
        failures,
    }
}

impl Report for Findings {
    fn title(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|(node, count)| format!("{count} on {node}")).collect();
        format!("{} connections: {}", grouped(self.connections as f64), nodes.join(", "))
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("channels", grouped(self.channels as f64)),
            ("published", grouped(self.published as f64)),
            ("deliveries expected", grouped(self.expected as f64)),
            ("delivered", grouped(self.delivered as f64)),
            ("delivered per second", grouped(self.delivered as f64 / self.seconds)),
        ];
        rows.extend(self.latency_micros.rows());
        rows.extend(self.faults.rows());
        let agreed = self.channels as f64 - self.faults.disagreeing_rooms as f64;
        rows.push(("channels that agree on the order", grouped(agreed)));
        rows
    }

    fn failures(&self) -> &[String] {
        &self.failures
    }
}
