//! What operators ask: is it alive, is it ready, what is it doing; and the pages that show it to them and to newcomers.

use ::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use fanfare_fanout::broker::Link;
use serde::Serialize;

use crate::http::{Answer, Body, Door, json, operators, text, with_type};
use crate::node::Services;

pub(crate) mod console;

/// The process answers: nothing more is claimed.
pub(crate) fn health() -> Answer {
    text(StatusCode::OK, "ok\n")
}

/// Whether new clients should be sent here, and if not why.
pub(crate) fn ready(services: &Services) -> Answer {
    let report = services.readiness.report(services);
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, serde_json::to_vec(&report).expect("plain fields are JSON"))
}

#[derive(Serialize)]
struct Status<'a> {
    node: &'a str,
    version: &'static str,
    uptime_seconds: u64,
    connections: u64,
    subscriptions: u64,
    channels: u64,
    messages_received: u64,
    messages_sent: u64,
    broker: BrokerStatus,
    draining: bool,
    /// Where the operators' console is, for who is on the same machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    console: Option<String>,
}

#[derive(Serialize)]
struct BrokerStatus {
    kind: &'static str,
    connected: bool,
}

/// What the node is doing, for the page and for people.
pub(crate) fn status<B>(request: &Request<B>, services: &Services) -> Answer {
    let metrics = &services.metrics;
    let settings = services.settings();
    let status = Status {
        node: &settings.policy.node,
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: services.clock.moment().since_start().as_secs(),
        connections: metrics.connections(),
        subscriptions: metrics.subscriptions(),
        channels: metrics.channels(),
        messages_received: metrics.messages_received(),
        messages_sent: metrics.messages_sent(),
        broker: BrokerStatus { kind: services.hub.broker_kind(), connected: services.hub.link() == Link::Up },
        draining: services.readiness.is_draining(),
        console: operators::place(request, services),
    };
    json(StatusCode::OK, serde_json::to_vec(&status).expect("plain fields are JSON"))
}

/// Everything the node counts, in Prometheus' text format.
pub(crate) fn metrics(services: &Services) -> Answer {
    let Services { metrics, readiness, hub, .. } = services;
    metrics.channels_watched(hub.channels_watched() as u64);
    metrics.readiness(readiness.report(services).ready, readiness.lag(), readiness.stall());
    let body = Bytes::from(services.metrics.render());
    with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

/// The file at this path of a listener's page, where there is one and the listener has a page.
pub(crate) fn page(door: Door, path: &str, services: &Services) -> Option<console::Asset> {
    let settings = services.settings();
    match door {
        Door::Public if settings.console.enabled => console::asset(path),
        Door::Internal if settings.console.internal => console::operators(path),
        Door::Public | Door::Internal => None,
    }
}

/// A file of a page.
pub(crate) fn serve(asset: &console::Asset, headers: &HeaderMap) -> Answer {
    asset.response(headers.get(header::IF_NONE_MATCH)).map(Body::from)
}
