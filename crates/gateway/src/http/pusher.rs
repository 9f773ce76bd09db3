//! What is Pusher's of the routes: `/app/<key>` for clients, `/apps/<id>/…` for backends, and the applications themselves.

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderName, HeaderValue, Request, StatusCode};
use bytes::Bytes;
use fanfare_fanout::presence::Recipient;
use fanfare_metrics::ApiMethod;
use fanfare_protocol::dialect::pusher;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::grant::Pattern;
use fanfare_protocol::happening::{Kinds, Report};
use fanfare_protocol::realm::{Credentials, Realm};
use fanfare_protocol::rules::Rule;
use fanfare_protocol::server_api::ApiReply;
use fanfare_protocol::{Channel, CloseReason};
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;

use super::handshake::{self, Purpose};
use super::{Answer, Peer, json, text};
use crate::api;
use crate::config::{self, AppEvent, Config, PusherWebhooks};
use crate::connection::Membership;
use crate::events::Destination;
use crate::node::Services;

/// The most calls of one request that are made at the same time.
const CALLS_AT_ONCE: usize = 32;

/// The applications that are configured, each with the rules of its channels.
pub(crate) fn realms(config: &Config) -> impl Iterator<Item = (Realm, Vec<(Box<str>, Rule)>)> {
    config.pusher.iter().map(|(id, app)| {
        let credentials = Credentials::new(&app.key, app.secret.expose());
        let terms = pusher::rules::Terms {
            client_events: app.client_events_per_second,
            event_bytes: app.event_bytes.get(),
            numbers: match app.numbers {
                config::Numbers::Unknown => pusher::rules::Numbers::Unknown,
                config::Numbers::Known => pusher::rules::Numbers::Known,
                config::Numbers::Told => pusher::rules::Numbers::Told,
            },
        };
        (Realm { namespace: id.as_str().into(), credentials }, pusher::rules::rules(terms))
    })
}

/// The namespaces of the applications whose clients are told how many hear a channel.
pub(crate) fn counting(config: &Config) -> impl Iterator<Item = Box<str>> {
    let counting = config.pusher.iter().filter(|(_, app)| app.numbers == config::Numbers::Told);
    counting.map(|(id, _)| id.as_str().into())
}

/// Whether it is told of a channel of theirs.
pub(crate) fn is_counted(channel: &Channel) -> bool {
    pusher::webhooks::kinds(channel).has_any(Kinds::COUNTED)
}

/// Where applications are told what happens on their channels, by their namespaces.
pub(crate) fn destinations(config: &Config) -> impl Iterator<Item = (Box<str>, Recipient, Destination)> {
    realms(config).flat_map(|(realm, _)| {
        let first = config.pusher.get(&*realm.namespace).and_then(|app| app.webhooks.as_ref());
        let first = first.map(|it| (Recipient::default(), it));
        let others = config.pusher_webhooks.iter().filter(|(_, it)| *it.app == *realm.namespace);
        let all = first.into_iter().chain(others.map(|(name, it)| (Recipient::named(name), &it.webhooks)));
        let all = all.map(|(to, webhooks)| (realm.namespace.clone(), to, destination(&realm, webhooks)));
        all.collect::<Vec<_>>()
    })
}

fn destination(realm: &Realm, webhooks: &PusherWebhooks) -> Destination {
    let realm = realm.clone();
    let kinds = webhooks.events.iter().map(|event| kinds_of(*event)).collect();
    let within = |pattern: &String| Pattern::parse(&format!("{}:{pattern}", realm.namespace));
    let filter: Vec<_> = webhooks.channels.iter().filter_map(within).collect();
    let kinds_of = move |channel: &Channel| match filter.iter().any(|pattern| pattern.matches(channel)) {
        true => pusher::webhooks::kinds(channel),
        false => Kinds::NONE,
    };
    let spell = move |report: &Report<'_>, now| {
        let (body, signature) = pusher::webhooks::encode(&realm, report, now);
        let value = |text: &str| HeaderValue::from_str(text).expect("a key and digits are a header value");
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static(pusher::webhooks::KEY), value(realm.credentials.key())),
            (HeaderName::from_static(pusher::webhooks::SIGNATURE), value(&signature)),
        ];
        (headers.into_iter().collect(), Bytes::from(body))
    };
    Destination { url: webhooks.url.clone(), kinds, kinds_of: Box::new(kinds_of), spell: Box::new(spell) }
}

fn kinds_of(event: AppEvent) -> Kinds {
    match event {
        AppEvent::ChannelExistence => Kinds::OCCUPIED.and(Kinds::VACATED),
        AppEvent::Presence => Kinds::JOINED.and(Kinds::LEFT),
        AppEvent::ClientEvents => Kinds::PUBLISHED,
        AppEvent::CacheMisses => Kinds::NOTHING_KEPT,
        AppEvent::SubscriptionCount => Kinds::COUNTED,
    }
}

/// Opens a conversation. A client that cannot have one is told so in it: the code of a Close is all that it understands.
pub(super) fn upgrade(peer: &Peer, request: Request<Incoming>, services: &Arc<Services>) -> Answer {
    let key = request.uri().path().trim_start_matches("/app/");
    let version =
        pusher::version(request.uri().query().unwrap_or_default(), handshake::offered(request.headers()));
    let membership = match (services.settings().realm_of_key(key), version) {
        (None, _) => Membership::Refused(CloseReason::NotFound),
        (Some(_), Err(reason)) => Membership::Refused(reason),
        (Some(namespace), Ok(())) => Membership::Of(namespace.into()),
    };
    handshake::upgrade(peer, request, Purpose::Session(&pusher::OFFER), membership, services)
}

/// Answers one call of a backend.
pub(super) async fn answer(request: Request<Incoming>, services: &Arc<Services>) -> Answer {
    let answer = match call(request, services).await {
        Ok(reply) => json(StatusCode::OK, reply),
        Err(failure) => {
            let status = StatusCode::from_u16(failure.code.http_status());
            text(status.expect("the table holds HTTP statuses"), format!("{}\n", failure.explanation))
        }
    };
    services.metrics.api_request(ApiMethod::Other, answer.status().as_u16());
    answer
}

async fn call(request: Request<Incoming>, services: &Services) -> Result<Vec<u8>, Failure> {
    let settings = services.settings();
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let policy = pusher::api::application(path).and_then(|id| settings.policy_of(Some(id)));
    let policy = policy.ok_or_else(|| Failure::new(ErrorCode::NotFound, "there is no such application"))?;
    let realm = policy.realm.as_ref().expect("the policy of a realm");
    let most = pusher::api::BATCH_MAX * policy.limits.message_bytes;
    let body = api::read(body, most, settings.header_timeout).await?;
    let query = head.uri.query().unwrap_or_default();
    let asked = pusher::api::Asked { method: head.method.as_str(), path, query, body: &body };
    pusher::api::verify(realm, asked, services.clock.unix())?;
    let plan = pusher::api::plan(realm, asked)?;
    let calls = plan.calls.iter().cloned().map(|call| api::perform(call, &policy, services));
    let replies: Vec<_> = stream::iter(calls).buffered(CALLS_AT_ONCE).collect().await;
    let replies = replies.into_iter().enumerate().map(|(call, reply)| match reply {
        Err(_) if !plan.needs(call) => Ok(ApiReply::Done),
        reply => reply,
    });
    Ok(plan.encode(&replies.collect::<Result<Vec<_>, _>>()?, services.clock.unix()))
}
