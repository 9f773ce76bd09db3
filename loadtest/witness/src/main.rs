//! Clients of a cluster that somebody else breaks: publishers that number what they publish, and listeners that check every
//! message, all of them of `fanfare-client`.
//!
//! Whoever breaks the cluster asks by a line on standard input, and is answered by a line of JSON: `status`; `mark`, from when on
//! it counts who has heard what had been acknowledged then; `more N`, which starts N listeners; `stop`, after which nothing is
//! published, everybody is waited for, and the verdict is given. Exit 0 when every listener heard everything that was
//! acknowledged, once and in order; 1 when not; 2 when there was no run.

mod judge;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use fanfare_client::{Client, Error, Event, Options, Subscribe, Subscription};
use serde::Serialize;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};

use crate::judge::{Judge, Listener, Stamp};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

const COULD_NOT_RUN: u8 = 2;

/// Publishes, listens, and checks every message, while somebody else breaks the cluster.
#[derive(Parser)]
struct Arguments {
    /// Where the cluster lets clients in: `ws://127.0.0.1:8000/ws`.
    #[arg(long)]
    url: String,
    /// The namespace of the channels; it has to have history.
    #[arg(long, default_value = "witness")]
    namespace: String,
    /// How many channels there are.
    #[arg(long, default_value_t = 6)]
    channels: usize,
    /// How many clients listen to begin with, each to one channel.
    #[arg(long, default_value_t = 60)]
    listeners: usize,
    /// How many clients publish, each on all channels in turn.
    #[arg(long, default_value_t = 4)]
    publishers: u32,
    /// How long each rests between two publications, in milliseconds.
    #[arg(long, default_value_t = 50)]
    pause: u64,
    /// How long `stop` waits for those who have not heard everything, in seconds.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// What is answered.
#[derive(Serialize)]
struct Status {
    listeners: usize,
    /// Of those, how many are connected to which node.
    on: BTreeMap<String, usize>,
    /// The same of the publishers.
    publishing: BTreeMap<String, usize>,
    /// How many have not heard all that had been acknowledged at the last mark.
    behind: usize,
    acknowledged: u64,
    delivered: u64,
    interruptions: u64,
    offences: u64,
    stories: Vec<String>,
}

/// The clients and what they said.
struct Witness {
    arguments: Arguments,
    judge: RefCell<Judge>,
    listeners: RefCell<Vec<Client>>,
    publishers: RefCell<Vec<Client>>,
    is_over: watch::Sender<bool>,
    started: Cell<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // As far as the hard limit goes; a lack shows as a failed connection.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let outcome =
        runtime.map_err(Into::into).and_then(|it| it.block_on(Rc::new(Witness::new(arguments)).run()));
    outcome.unwrap_or_else(|error| {
        // A closed standard error is no reason to say something else.
        let _ = writeln!(std::io::stderr(), "witness: {error:#}");
        ExitCode::from(COULD_NOT_RUN)
    })
}

/// The lines of standard input, until it ends.
fn questions() -> mpsc::Receiver<String> {
    let (ask, asked) = mpsc::channel(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        lines.map(|line| ask.blocking_send(line)).take_while(Result::is_ok).for_each(drop);
    });
    asked
}

impl Witness {
    fn new(arguments: Arguments) -> Self {
        let judge = RefCell::new(Judge::new(arguments.channels));
        let (is_over, started) = (watch::Sender::new(false), Cell::new(0));
        Self {
            arguments,
            judge,
            listeners: RefCell::default(),
            publishers: RefCell::default(),
            is_over,
            started,
        }
    }

    async fn run(self: Rc<Self>) -> Result<ExitCode> {
        if self.arguments.channels == 0 || self.arguments.listeners == 0 || self.arguments.publishers == 0 {
            bail!("at least one channel, listener and publisher is needed");
        }
        self.listen(self.arguments.listeners)?;
        let mut publishers = JoinSet::new();
        for name in 0..self.arguments.publishers {
            let client = Client::start(Options::new(&self.arguments.url))?;
            self.publishers.borrow_mut().push(client.clone());
            publishers.spawn_local(Rc::clone(&self).publish(name, client));
        }
        let mut asked = questions();
        while let Some(line) = asked.recv().await {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["status"] => {}
                ["mark"] => self.judge.borrow_mut().mark(),
                ["more", count] => self.listen(count.parse().context("more N")?)?,
                ["stop"] => break,
                _ => bail!("status, mark, more N or stop, not {line:?}"),
            }
            self.answer()?;
        }
        self.is_over.send_replace(true);
        let until = Instant::now() + Duration::from_secs(self.arguments.patience);
        if timeout_at(until, async { while publishers.join_next().await.is_some() {} }).await.is_err() {
            self.judge.borrow_mut().offend("a publication is not acknowledged".into());
        }
        self.judge.borrow_mut().mark();
        while self.judge.borrow().behind() > 0 && Instant::now() < until {
            sleep(LOOK).await;
        }
        let behind = self.judge.borrow().behind();
        if behind > 0 {
            self.judge.borrow_mut().offend(format!("{behind} listeners have not heard everything"));
        }
        self.answer()?;
        Ok(ExitCode::from(u8::from(self.judge.borrow().offences > 0)))
    }

    /// Starts so many listeners, each on the channel whose turn it is.
    fn listen(self: &Rc<Self>, count: usize) -> Result<()> {
        for _ in 0..count {
            let channel = self.started.replace(self.started.get() + 1) % self.arguments.channels;
            let client = Client::start(Options::new(&self.arguments.url))?;
            self.listeners.borrow_mut().push(client.clone());
            let listener = self.judge.borrow_mut().listener(channel);
            spawn_local(Rc::clone(self).hear(client, channel, listener));
        }
        Ok(())
    }

    async fn hear(self: Rc<Self>, client: Client, channel: usize, listener: Listener) {
        let mut subscription = self.subscribe(&client, channel).await;
        while let Some(event) = subscription.next().await {
            let mut judge = self.judge.borrow_mut();
            match event {
                Event::Subscribed { recovered, position } => {
                    judge.live(listener, recovered, position.as_ref())
                }
                Event::Message(message) => match message.json::<Stamp>() {
                    Ok(stamp) => judge.hear(listener, message.offset, stamp),
                    Err(error) => judge.offend(format!("{listener:?} heard what nobody said: {error}")),
                },
                Event::Interrupted(_) => judge.interruptions += 1,
                Event::Ended(error) => judge.offend(format!("{listener:?} was ended: {error}")),
                Event::Joined(_) | Event::Left(_) => {}
            }
        }
    }

    /// Tries until it is subscribed: whoever cannot be is behind in the end.
    async fn subscribe(&self, client: &Client, channel: usize) -> Subscription {
        loop {
            match client.subscribe(&self.name(channel), Subscribe::default()).await {
                Ok(subscription) => return subscription,
                Err(error) => self.again(&error).await,
            }
        }
    }

    /// Publishes until the run is over; each publication until it is acknowledged.
    async fn publish(self: Rc<Self>, name: u32, client: Client) {
        let mut number = 0;
        while !*self.is_over.borrow() {
            number += 1;
            let stamp: Stamp = (name, number);
            let channel = usize::try_from(number).unwrap_or_default() % self.arguments.channels;
            let key = format!("{name}-{number}");
            loop {
                match client.publish_as(&self.name(channel), &stamp, &key).await {
                    Ok(place) => break self.judge.borrow_mut().acknowledge(channel, stamp, &place),
                    Err(error) => self.again(&error).await,
                }
            }
            sleep(Duration::from_millis(self.arguments.pause)).await;
        }
    }

    /// What is worth another try is waited for; what is not is an offence, and the wait keeps it from being one a microsecond.
    async fn again(&self, error: &Error) {
        let is_passing = matches!(
            error,
            Error::Unknown | Error::Timeout | Error::Busy | Error::Refused { code: 4503 | 4429, .. }
        );
        if !is_passing {
            self.judge.borrow_mut().offend(error.to_string());
        }
        sleep(LOOK * 5).await;
    }

    fn name(&self, channel: usize) -> String {
        format!("{}:{channel}", self.arguments.namespace)
    }

    fn answer(&self) -> Result<()> {
        let judge = self.judge.borrow();
        let status = Status {
            listeners: self.listeners.borrow().len(),
            on: by_node(&self.listeners.borrow()),
            publishing: by_node(&self.publishers.borrow()),
            behind: judge.behind(),
            acknowledged: judge.acknowledged,
            delivered: judge.delivered,
            interruptions: judge.interruptions,
            offences: judge.offences,
            stories: judge.stories.clone(),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&status)?)?;
        Ok(out.flush()?)
    }
}

/// How many are connected to which node.
fn by_node(clients: &[Client]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in clients.iter().filter_map(|it| it.node().borrow().clone()) {
        *counts.entry(node).or_default() += 1;
    }
    counts
}
