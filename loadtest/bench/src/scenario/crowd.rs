//! Subscribers and publishers that stay for several pieces of work, so that what is compared shares its sockets.
//!
//! The order of events in one piece: publish; after the warm-up take the tally and the CPU times, after the
//! window take them again; stop publishing, but send what is numbered; wait until what is on its way has arrived
//! or nothing arrives any more; linger a moment, since a double comes last; judge.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::{Place, open_all, run_name, targets};
use crate::args::Common;
use crate::audience::{Faults, Run, Tally};
use crate::connection::Connection;
use crate::process::{self, Spent};
use crate::protocol::Post;
use crate::publisher::{Pace, Posts, Publisher, Via};

const GLANCE_INTERVAL: Duration = Duration::from_millis(50);
const WARM_UP_MAX: Duration = Duration::from_secs(60);
pub(super) const LINGER: Duration = Duration::from_millis(250);

/// One piece of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Length of `data` as JSON, in bytes.
    pub(crate) payload_bytes: usize,
    pub(crate) pace: Pace,
    /// So many publications of a channel leave together.
    pub(crate) burst: u64,
    /// Before the measured window.
    pub(crate) warm_up: Duration,
    /// The measured window does not begin before so many publications have left, unless that takes longer than a minute.
    pub(crate) warm_up_published: u64,
    /// The measured window.
    pub(crate) window: Duration,
    /// How long nothing may arrive until the rest is given up.
    pub(crate) patience: Duration,
}

/// What was counted and spent in the measured window, and what was wrong in all of the work.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) elapsed: Duration,
    /// Of the processes under test.
    pub(crate) cpu: Spent,
    /// Of the generator.
    pub(crate) cpu_own: Duration,
    /// Packets that the kernel dropped.
    pub(crate) kernel_drops: u64,
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
    pub(crate) troubles: BTreeMap<String, u64>,
}

/// How publishers reach the server.
#[derive(Debug)]
pub(crate) enum Hiring<'a> {
    /// By so many connections, the first to the first URL.
    Lines(usize),
    /// By HTTP.
    Post { url: &'a str, key: Option<&'a str>, post: Post },
}

/// Rooms with their subscribers, all listening.
#[derive(Debug)]
pub(crate) struct Crowd {
    run: Rc<Run>,
    /// The channel of each room.
    channels: Rc<[String]>,
    subscribers: usize,
    via: Option<Via>,
    /// How long it took to open and subscribe all of them.
    pub(crate) opened_in: Duration,
}

impl Crowd {
    /// Opens `rooms` rooms of `size` subscribers.
    pub(crate) async fn open(common: &Common, rooms: usize, size: usize) -> Result<Self> {
        let run = Run::new(rooms, size, 1);
        let name = run_name();
        let channels: Rc<[String]> =
            (0..rooms).map(|room| format!("{}{name}-{room}", common.prefix)).collect();
        // Neighbours in the order of opening are in different rooms, so that each room is spread over the URLs.
        let seat = |index: usize| (index % rooms) * size + index / rooms;
        let place =
            |index: usize| Place { url: index % rooms + index / rooms, channel: &channels[index % rooms] };
        let opened_in = open_all(common, rooms * size, &run.scratch, place, |index, connection| {
            drop(spawn_local(run.clone().listen(connection, Some(seat(index)))));
        })
        .await?;
        Ok(Self { run, channels, subscribers: rooms * size, via: None, opened_in })
    }

    /// Connects those who publish.
    pub(crate) async fn hire(&mut self, common: &Common, hiring: &Hiring<'_>) -> Result<()> {
        let protocol = common.protocol.protocol();
        let &Hiring::Lines(count) = hiring else {
            let &Hiring::Post { url, key, post } = hiring else { unreachable!("there are two kinds") };
            self.via = Some(Via::Posts(Box::new(Posts::connect(url, key, post).await?)));
            return Ok(());
        };
        let own: Vec<&str> = self.channels.iter().map(String::as_str).collect();
        let own = if protocol.publishes_as_subscriber() { own.as_slice() } else { &[] };
        let targets = targets(common).await?;
        let mut lines = Vec::new();
        for index in 0..count {
            let target = &targets[index % targets.len()];
            let connection =
                Connection::open(target, self.subscribers + index, own, &self.run.scratch).await?;
            lines.push(connection.line());
            drop(spawn_local(self.run.clone().listen(connection, None)));
        }
        self.via = Some(Via::Lines(protocol, lines));
        Ok(())
    }

    /// Does one piece of work.
    ///
    /// # Panics
    /// When nobody was hired.
    pub(crate) async fn play(&mut self, work: &Work, pids: &[u32]) -> Result<Played> {
        let run = &self.run;
        run.audience.borrow_mut().renew();
        run.resume();
        let publisher = Publisher {
            run: run.clone(),
            via: self.via.as_mut().expect("publishers are hired before they play"),
            channels: Rc::clone(&self.channels),
            payload_bytes: work.payload_bytes,
            pace: work.pace,
            burst: work.burst,
            publications_max: u64::MAX,
        };
        let mut publishing = pin!(publisher.publish());
        let mut played = tokio::select! {
            biased; // The window ends on time; a publisher that fails ends it sooner.
            played = measure(work, run, pids) => played?,
            failed = &mut publishing => return Err(failed.err().context("the publisher ended by itself")?),
        };
        run.stop();
        match timeout(work.patience, publishing).await {
            Ok(published) => published?,
            Err(_) => {
                run.audience.borrow_mut().trouble("the publisher's messages are not read".to_owned());
            }
        }
        arrived(run, work.patience).await;
        sleep(LINGER).await;
        let mut audience = run.audience.borrow_mut();
        played.faults = audience.verdict();
        played.troubles = std::mem::take(&mut audience.troubles);
        Ok(played)
    }
}

async fn measure(work: &Work, run: &Run, pids: &[u32]) -> Result<Played> {
    sleep(work.warm_up).await;
    let begun = Instant::now();
    while run.audience.borrow().tally.published < work.warm_up_published && begun.elapsed() < WARM_UP_MAX {
        sleep(GLANCE_INTERVAL).await;
    }
    std::mem::take(&mut run.audience.borrow_mut().tally);
    let (start, cpu, cpu_own) = (Instant::now(), process::cpu(pids)?, process::cpu_own()?);
    let kernel_drops = process::kernel_drops()?;
    sleep(work.window).await;
    Ok(Played {
        elapsed: start.elapsed(),
        cpu: process::cpu(pids)?.since(cpu),
        cpu_own: process::cpu_own()? - cpu_own,
        kernel_drops: process::kernel_drops()? - kernel_drops,
        tally: std::mem::take(&mut run.audience.borrow_mut().tally),
        faults: Faults::default(),
        troubles: BTreeMap::new(),
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
