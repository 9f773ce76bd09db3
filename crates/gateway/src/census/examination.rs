//! What one node tells of its connections.

use fanfare_fanout::SubscriberId;
use fanfare_metrics::Carrier;
use fanfare_protocol::server_api::{Filter, Particulars, Whom};
use fanfare_protocol::{Channel, SessionId, UserId};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

use crate::connection::Line;
use crate::node::Services;

/// The most connections that are looked at for one question.
const EXAMINED_MAX: usize = 200_000;

/// How many are looked at before others run.
const RUN: usize = 1024;

/// Which connections are asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Question {
    user: Option<Box<str>>,
    session: Option<Box<str>>,
    channel: Option<Box<str>>,
    /// The node where the page before has ended, and its last connection.
    after: Option<(u64, u64)>,
    limit: usize,
    /// Those for whom most waits, and no others.
    #[serde(default)]
    slowest: bool,
}

/// What one node answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Connections, each with its place in the node's order.
    pub(super) found: Vec<(u64, Particulars)>,
    /// The last that was looked at, where that was not all of them.
    pub(super) broken_off: Option<u64>,
}

impl Question {
    pub(super) fn new(filter: &Filter, after: Option<(u64, u64)>, limit: usize) -> Self {
        Self {
            user: filter.user.as_ref().map(|user| user.as_str().into()),
            session: filter.session.map(|session| session.to_string().into()),
            channel: filter.channel.as_ref().map(|channel| channel.as_str().into()),
            after,
            limit,
            slowest: filter.slowest,
        }
    }
}

/// Looks through this node's connections in the order in which they were opened.
pub(super) async fn examine(services: &Services, question: &Question, life: u64) -> Part {
    let channel = question.channel.as_deref().and_then(|name| Channel::parse(name).ok());
    let session = question.session.as_deref().and_then(SessionId::parse);
    let user = question.user.as_deref().map(UserId::new);
    let whom = session.map(Whom::Session).or(user.map(Whom::User));
    let mut after = question.after.filter(|(node, _)| *node == life).map(|(_, number)| number);
    let (mut part, mut examined) = (Part::default(), 0);
    loop {
        let run = services.roster.run(whom.as_ref(), after.map(SubscriberId::from_number), RUN);
        let is_last = run.len() < RUN;
        for line in run {
            let number = line.outbox.id().number();
            let is_full = part.found.len() >= question.limit && !question.slowest;
            if is_full || examined >= EXAMINED_MAX {
                part.broken_off = after.filter(|_| !question.slowest);
                return part;
            }
            if question.slowest && line.outbox.queued_bytes() == 0 {
                examined += 1;
                after = Some(number);
                continue;
            }
            (after, examined) = (Some(number), examined + 1);
            if channel.as_ref().is_none_or(|channel| services.hub.hears(channel, &line.outbox)) {
                part.found.extend(particulars(services, &line, session.is_some()).map(|it| (number, it)));
            }
        }
        if question.slowest {
            slowest_first(&mut part.found);
            part.found.truncate(question.limit);
        }
        if is_last {
            return part;
        }
        yield_now().await;
    }
}

pub(crate) const fn name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::WebSocket => "websocket",
        Carrier::Events => "sse",
        Carrier::Lines => "stream",
        Carrier::Poll => "poll",
    }
}

/// Sorts by what waits.
pub(super) fn slowest_first(found: &mut [(u64, Particulars)]) {
    found.sort_by_key(|(_, it)| std::cmp::Reverse(it.queued_bytes));
}

/// What is told of a connection; nothing of one that only echoes.
fn particulars(services: &Services, line: &Line, with_channels: bool) -> Option<Particulars> {
    let Line { outbox, origin, grant } = line;
    let origin = (*origin)?;
    let channels = with_channels.then(|| {
        let mut channels: Vec<Box<str>> =
            services.hub.channels_of(outbox).iter().map(|channel| channel.as_str().into()).collect();
        channels.sort_unstable();
        channels
    });
    Some(Particulars {
        session: outbox.session().to_string().into(),
        user: grant.as_ref().and_then(|grant| grant.user.as_ref()).map(|user| user.as_str().into()),
        node: services.settings().policy.node.clone(),
        address: origin.address,
        transport: name(origin.carrier).into(),
        protocol: outbox.encoding().subprotocol().into(),
        connected: origin.since.millis(),
        queued_bytes: outbox.queued_bytes() as u64,
        channels,
    })
}
