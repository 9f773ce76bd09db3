//! What backends order of every node at once: to disconnect somebody, or to take no more of somebody's tokens.
//!
//! ```text
//!  POST /api/disconnect, /api/revoke ─► cluster::order ─► broker ─► (every node) Ear ─► obey: roster, revoked
//! ```
//!
//! **Invariants.** The node that was asked obeys by the same way as the others. An order is safe to hear again: a node that
//! listens anew hears those that are kept, and disconnects nobody who has come since they were given. A revocation that is in
//! force and is not among those, since Redis has lost them, is given again by whoever knows it, for nodes that start later.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::Order;
use fanfare_fanout::broker::BrokerError;
use fanfare_fanout::cluster::{self, Ear, Told};
use fanfare_protocol::command::Start;
use fanfare_protocol::grant::{Amendment, Pass};
use fanfare_protocol::publication::{Epoch, Offset, Payload, Position};
use fanfare_protocol::server_api::{Among, Whom};
use fanfare_protocol::{Channel, CloseReason, SessionId, UserId};
use futures_util::FutureExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::auth::Revocation;
use crate::connection::Entry;
use crate::node::Services;

mod terms;

use terms::Terms;

/// How long to wait before listening is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

/// The longest that a node waits before it gives again what has been lost: the first spares the others the trouble.
const RESTATING: Duration = Duration::from_secs(2);

/// Whether bids are heard.
#[derive(Debug, Default)]
pub(crate) struct Bids {
    is_heard: watch::Sender<bool>,
}

impl Bids {
    /// Waits until they are.
    pub(crate) async fn heard(&self) {
        let waiting = self.is_heard.subscribe().wait_for(|it| *it).await.map(drop);
        waiting.expect("the sender is this one's own");
    }
}

/// An order, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Directive {
    /// Close what is open, with this code.
    Disconnect { whom: Named, code: u16 },
    /// Have them hear a channel.
    Subscribe {
        whom: Named,
        channel: Box<str>,
        start: Beginning,
        #[serde(default, skip_serializing_if = "Terms::are_plain")]
        terms: Terms,
    },
    /// Have them hear it no longer.
    Unsubscribe { whom: Named, channel: Box<str> },
    /// What is known of them ends then (Unix seconds), or never; and others are shown this of them, which is JSON.
    Refresh { whom: Named, expires: Option<u64>, info: Option<Box<str>> },
    /// Take no token of theirs that was issued so far, until then (Unix seconds), and close what they have opened.
    Revoke { whom: Named, until: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    User(String),
    Session(String),
    Token(String),
    Among { user: Option<String>, session: Option<String>, ticket: Option<String>, except: Vec<String> },
}

/// A [`Start`], as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Beginning {
    Live,
    Since(u64, u64),
    Rewind(u32),
}

impl Beginning {
    fn of(start: Start) -> Self {
        match start {
            Start::Live => Self::Live,
            Start::Since(Position { epoch, offset }) => Self::Since(epoch.0, offset.0),
            Start::Rewind(count) => Self::Rewind(count),
        }
    }

    fn start(&self) -> Start {
        match *self {
            Self::Live => Start::Live,
            Self::Since(epoch, offset) => {
                Start::Since(Position { epoch: Epoch(epoch), offset: Offset(offset) })
            }
            Self::Rewind(count) => Start::Rewind(count),
        }
    }
}

impl Named {
    fn of(whom: &Whom) -> Self {
        match whom {
            Whom::User(user) => Self::User(user.as_str().into()),
            Whom::Session(session) => Self::Session(session.to_string()),
            Whom::Token(token) => Self::Token(token.clone().into()),
            Whom::Among(among) => Self::Among {
                user: among.user.as_ref().map(|user| user.as_str().into()),
                session: among.session.map(|session| session.to_string()),
                ticket: among.secret.map(|secret| format!("{secret:032x}")),
                except: among.except.iter().map(SessionId::to_string).collect(),
            },
        }
    }
}

impl Directive {
    fn whom(&self) -> Option<Whom> {
        let (Self::Disconnect { whom, .. }
        | Self::Revoke { whom, .. }
        | Self::Refresh { whom, .. }
        | Self::Subscribe { whom, .. }
        | Self::Unsubscribe { whom, .. }) = self;
        match whom {
            Named::User(user) => Some(Whom::User(UserId::new(user))),
            Named::Session(session) => SessionId::parse(session).map(Whom::Session),
            Named::Token(token) => Some(Whom::Token(token.as_str().into())),
            Named::Among { user, session, ticket, except } => {
                // What cannot be read would be as good as not there, and mean more than was meant.
                let session = session.as_deref().map(SessionId::parse);
                let secret = ticket.as_deref().map(|it| u128::from_str_radix(it, 16).ok());
                let except = except.iter().map(|it| SessionId::parse(it)).collect::<Option<_>>()?;
                Some(Whom::Among(Box::new(Among {
                    user: user.as_deref().map(UserId::new),
                    session: session.map_or(Some(None), |it| it.map(Some))?,
                    secret: secret.map_or(Some(None), |it| it.map(Some))?,
                    except,
                })))
            }
        }
    }
}

/// An order, and when it was given.
#[derive(Serialize, Deserialize)]
struct Given {
    /// Microseconds since 1970, by the clock of the node that was asked.
    at: u64,
    #[serde(flatten)]
    directive: Directive,
}

/// Has all nodes disconnect somebody.
pub(crate) async fn disconnect(
    services: &Services,
    whom: &Whom,
    reason: CloseReason,
) -> Result<(), BrokerError> {
    give(services, Directive::Disconnect { whom: Named::of(whom), code: reason.number() }).await
}

/// Has all nodes take no tokens of somebody any more that were issued so far.
pub(crate) async fn revoke(services: &Services, whom: &Whom, ttl: Duration) -> Result<(), BrokerError> {
    let until = services.clock.unix().0 / 1_000_000 + ttl.as_secs();
    give(services, Directive::Revoke { whom: Named::of(whom), until }).await
}

/// Has the connections of somebody hear a channel.
pub(crate) async fn subscribe(
    services: &Services,
    whom: &Whom,
    channel: &Channel,
    start: Start,
    pass: &Pass,
) -> Result<(), BrokerError> {
    let (whom, channel) = (Named::of(whom), channel.as_str().into());
    let (start, terms) = (Beginning::of(start), Terms::of(pass));
    bid(services, Directive::Subscribe { whom, channel, start, terms }).await
}

/// Has them hear it no longer.
pub(crate) async fn unsubscribe(
    services: &Services,
    whom: &Whom,
    channel: &Channel,
) -> Result<(), BrokerError> {
    bid(services, Directive::Unsubscribe { whom: Named::of(whom), channel: channel.as_str().into() }).await
}

/// Has what is known of somebody end at another time.
pub(crate) async fn refresh(
    services: &Services,
    whom: &Whom,
    amendment: &Amendment,
) -> Result<(), BrokerError> {
    let json = |profile: &Payload| String::from_utf8_lossy(&profile.json()).into();
    let (expires, info) = (amendment.expires, amendment.profile.as_ref().map(json));
    bid(services, Directive::Refresh { whom: Named::of(whom), expires, info }).await
}

async fn bid(services: &Services, directive: Directive) -> Result<(), BrokerError> {
    let now = services.clock.unix();
    let given = serde_json::to_string(&Given { at: now.0, directive }).expect("plain fields are JSON");
    cluster::bid(&services.hub, Payload::parse(&given).expect("it was just written"), now).await
}

async fn give(services: &Services, directive: Directive) -> Result<(), BrokerError> {
    send(services, &Given { at: services.clock.unix().0, directive }).await
}

async fn send(services: &Services, given: &Given) -> Result<(), BrokerError> {
    let given = serde_json::to_string(given).expect("plain fields are JSON");
    let payload = Payload::parse(&given).expect("it was just written");
    cluster::order(&services.hub, payload, services.clock.unix()).await
}

/// Gives again what is in force and is not kept any more, unless another node does.
async fn restate(services: &Services) {
    sleep(RESTATING.mul_f64(fastrand::f64())).await;
    let lost = services.revoked.unheard(services.clock.unix().0 / 1_000_000);
    if !lost.is_empty() {
        warn!(revocations = lost.len(), "the broker has lost what was revoked: it is given again");
    }
    for Revocation { whom, at, until } in lost {
        let directive = Directive::Revoke { whom: Named::of(&whom), until };
        let given = Given { at: at * 1_000_000, directive };
        while !services.revoked.is_heard(&whom) && send(services, &given).await.is_err() {
            sleep(RETRY).await;
        }
    }
}

/// Hears orders, and obeys, until told to stop.
pub(crate) async fn follow(services: Arc<Services>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            match Ear::open(&services.hub, &services.metrics).await {
                Ok(ear) => {
                    services.revoked.listens_anew();
                    listen(&ear, &services).await;
                }
                Err(error) => debug!(%error, "orders cannot be heard yet"),
            }
            sleep(RETRY).await;
        }
    })
    .await;
}

/// Hears bids, and obeys, until told to stop. None is heard twice; those that come while this node hears nothing and that are
/// kept no longer when it hears again are lost.
pub(crate) async fn follow_bids(services: Arc<Services>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            match Ear::of_bids(&services.hub, &services.metrics).await {
                Ok(ear) => {
                    services.bids.is_heard.send_replace(true);
                    while let Told::Said(events) = ear.next().await {
                        events
                            .iter()
                            .filter_map(|event| read(event))
                            .for_each(|given| obey(&services, &given, false));
                    }
                    warn!("what backends have said of subscriptions and expiries may have been missed");
                }
                Err(error) => debug!(%error, "bids cannot be heard yet"),
            }
            sleep(RETRY).await;
        }
    })
    .await;
}

/// Obeys until something may be missing.
async fn listen(ear: &Ear, services: &Services) {
    let mut is_kept = true; // The first are those that were given before.
    let mut restating = pin!(restate(services).fuse());
    let mut next = async |is_kept: bool| {
        let mut hearing = pin!(ear.next());
        loop {
            tokio::select! {
                biased;
                told = hearing.as_mut() => return told,
                () = restating.as_mut(), if !is_kept => {}
            }
        }
    };
    while let Told::Said(events) = next(is_kept).await {
        for event in events {
            match read(&event) {
                Some(given) => obey(services, &given, is_kept),
                None => warn!("an order cannot be understood: is there a node of another version?"),
            }
        }
        services.revoked.complete();
        is_kept = false;
    }
}

/// What an event says that an ear has heard.
pub(crate) fn read<T: DeserializeOwned>(event: &[u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct Message<T> {
        data: T,
    }
    serde_json::from_slice(event).ok().map(|message: Message<T>| message.data)
}

/// Those of this node's connections that are meant.
fn meant(services: &Services, whom: &Whom) -> Vec<Entry> {
    let Whom::Among(among) = whom else { return services.roster.of(whom) };
    let Some(secret) = among.secret else { return services.roster.of(whom) };
    let Some(session) = services.talks.session(secret).filter(|it| among.names(*it)) else {
        return Vec::new();
    };
    let among = Among { session: Some(session), ..(**among).clone() };
    services.roster.of(&Whom::Among(Box::new(among)))
}

/// What is revoked is written down before those who are meant are looked for, and whoever becomes known looks at it after it
/// can be found: so nobody slips through between.
fn obey(services: &Services, given: &Given, is_kept: bool) {
    let Services { roster, revoked, clock, metrics, .. } = services;
    let (at, now) = (given.at / 1_000_000, clock.unix().0 / 1_000_000);
    let Some(whom) = given.directive.whom() else { return };
    let (reason, meant) = match given.directive {
        Directive::Subscribe { ref channel, ref start, ref terms, .. } => {
            let (Ok(channel), Some(pass)) = (Channel::parse(channel), terms.pass()) else { return };
            let pass = Arc::new(pass);
            let enlist =
                || Order::Enlist { channel: channel.clone(), start: start.start(), pass: pass.clone() };
            return meant(services, &whom).iter().for_each(|entry| entry.outbox.order(enlist()));
        }
        Directive::Unsubscribe { ref channel, .. } => {
            let Ok(channel) = Channel::parse(channel) else { return };
            let expel = || Order::Expel { channel: channel.clone() };
            return meant(services, &whom).iter().for_each(|entry| entry.outbox.order(expel()));
        }
        Directive::Refresh { expires, ref info, .. } => {
            let Ok(profile) = info.as_deref().map(Payload::parse).transpose() else { return };
            let amendment = Arc::new(Amendment { expires, profile });
            let amend = || Order::Amend { amendment: amendment.clone() };
            return meant(services, &whom).iter().for_each(|entry| entry.outbox.order(amend()));
        }
        Directive::Disconnect { code, .. } => {
            let mut meant = meant(services, &whom);
            // Those who have come since are not.
            meant.retain(|entry| !is_kept || entry.since.0 <= given.at);
            (CloseReason::from_number(code).unwrap_or(CloseReason::Forbidden), meant)
        }
        Directive::Revoke { until, .. } if until <= now => return,
        Directive::Revoke { until, .. } => {
            match &whom {
                Whom::User(user) => revoked.revoke_user(user.clone(), at, until, now),
                Whom::Token(token) => revoked.revoke_token(token.clone(), at, until, now),
                Whom::Session(_) | Whom::Among(_) => return,
            }
            let mut meant = roster.of(&whom);
            let is_users = matches!(whom, Whom::User(_));
            meant.retain(|entry| !is_users || entry.issued.is_none_or(|issued| issued <= at));
            (CloseReason::Unauthorized, meant)
        }
    };
    meant.iter().for_each(|entry| entry.outbox.order(Order::Dismiss { reason }));
    metrics.dismissed(meant.len() as u64);
}
