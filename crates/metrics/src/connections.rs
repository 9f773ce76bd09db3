//! Who came, who was turned away, who left and why, and what they asked for.

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{Carrier, CloseCode, Command, Enforcement, HttpVersion, Limit, Refusal, RefusalCode};

#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) open: IntGauge,
    most: IntGauge,
    accepted: IntCounter,
    carried: By<Carrier, IntCounter>,
    closed: By<CloseCode, IntCounter>,
    websockets: By<HttpVersion, IntCounter>,
    refused: By<Refusal, IntCounter>,
    exceeded: By<(Limit, Enforcement), IntCounter>,
    forwarded_malformed: IntCounter,
    pub(crate) subscriptions: IntGauge,
    pub(crate) channels: IntGauge,
    commands: By<Command, IntCounter>,
    errors: By<RefusalCode, IntCounter>,
    heartbeats: IntCounter,
    heartbeat_timeouts: IntCounter,
}

impl Connections {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            open: catalog.gauge(
                fact("fanfare_connections", "Connections open now.")
                    .query("sum(fanfare_connections) by (instance)"),
            ),
            most: catalog.gauge(
                fact(
                    "fanfare_connections_limit",
                    "Connections that may be open, by limits.connections as it is in force.",
                )
                .query("fanfare_connections / fanfare_connections_limit"),
            ),
            accepted: catalog.counter(
                fact("fanfare_connections_accepted_total", "Connections that were let in.")
                    .query("sum(rate(fanfare_connections_accepted_total[1m]))"),
            ),
            carried: catalog.counters(
                fact(
                    "fanfare_transport_connections_total",
                    "Connections that were let in, by transport; a long poll is a connection each time.",
                )
                .query("sum(rate(fanfare_transport_connections_total[5m])) by (transport)"),
            ),
            closed: catalog.counters(
                fact(
                    "fanfare_connections_closed_total",
                    "Connections that ended, by close code; 1006 when none was exchanged.",
                )
                .query("sum(rate(fanfare_connections_closed_total[5m])) by (code)"),
            ),
            websockets: catalog.counters(
                fact(
                    "fanfare_websockets_accepted_total",
                    "WebSocket handshakes that succeeded, by the version of HTTP that they came by.",
                )
                .query("sum(rate(fanfare_websockets_accepted_total[5m])) by (http)"),
            ),
            refused: catalog.counters(
                fact(
                    "fanfare_handshakes_refused_total",
                    "Connections that were refused before they began, by reason.",
                )
                .query("sum(rate(fanfare_handshakes_refused_total[5m])) by (reason)"),
            ),
            exceeded: exceeded(catalog),
            forwarded_malformed: catalog.counter(fact(
                "fanfare_forwarded_malformed_total",
                "Requests whose trusted proxy named a client that is no address; they count for the proxy's.",
            )),
            subscriptions: catalog.gauge(fact(
                "fanfare_subscriptions",
                "Subscriptions of this node's connections, all channels together.",
            )),
            channels: catalog
                .gauge(fact("fanfare_channels", "Channels with at least one subscriber on this node.")),
            commands: catalog.counters(
                fact("fanfare_commands_total", "Commands received from clients, by type.")
                    .query("sum(rate(fanfare_commands_total[1m])) by (command)"),
            ),
            errors: catalog.counters(
                fact("fanfare_command_errors_total", "Commands answered with an error, by code.")
                    .query("sum(rate(fanfare_command_errors_total[5m])) by (code)"),
            ),
            heartbeats: catalog.counter(fact("fanfare_heartbeats_sent_total", "Pings sent to idle peers.")),
            heartbeat_timeouts: catalog.counter(fact(
                "fanfare_heartbeat_timeouts_total",
                "Peers given up because no pong came in time.",
            )),
        }
    }
}

fn exceeded(catalog: &mut Catalog) -> By<(Limit, Enforcement), IntCounter> {
    catalog.counters(
        fact(
            "fanfare_limit_exceeded_total",
            "Times that a limit was met, by limit, and whether it was enforced or is in limits.dry_run.",
        )
        .query("sum(rate(fanfare_limit_exceeded_total[5m])) by (limit, mode)"),
    )
}

impl Metrics {
    /// A connection was let in and lives.
    pub fn connection_opened(&self, carrier: Carrier) {
        self.connections.accepted.inc();
        self.connections.carried.of(carrier).inc();
        self.connections.open.inc();
    }

    /// A connection that was opened is gone. `code` is the one sent or received first, 1006 without any.
    pub fn connection_closed(&self, code: u16) {
        self.connections.closed.of(CloseCode::of(code)).inc();
        self.connections.open.dec();
    }

    /// So many connections may be open from now on.
    pub fn connections_limit(&self, most: usize) {
        self.connections.most.set(i64::try_from(most).unwrap_or(i64::MAX));
    }

    /// A WebSocket handshake succeeded.
    pub fn websocket_accepted(&self, http: HttpVersion) {
        self.connections.websockets.of(http).inc();
    }

    /// An upgrade was refused.
    pub fn handshake_refused(&self, reason: Refusal) {
        self.connections.refused.of(reason).inc();
    }

    /// A limit was met.
    pub fn limit_exceeded(&self, limit: Limit, enforcement: Enforcement) {
        self.connections.exceeded.of((limit, enforcement)).inc();
    }

    /// A trusted proxy named a client that is no address.
    pub fn forwarded_malformed(&self) {
        self.connections.forwarded_malformed.inc();
    }

    /// A connection joined a channel.
    pub fn subscription_added(&self) {
        self.connections.subscriptions.inc();
    }

    /// A connection left a channel, or ended while in it.
    pub fn subscription_removed(&self) {
        self.connections.subscriptions.dec();
    }

    /// The first subscriber of a channel came.
    pub fn channel_opened(&self) {
        self.connections.channels.inc();
    }

    /// The last subscriber of a channel left.
    pub fn channel_closed(&self) {
        self.connections.channels.dec();
    }

    /// A client asked for something.
    pub fn command_received(&self, command: Command) {
        self.connections.commands.of(command).inc();
    }

    /// A command was answered with an error of this code.
    pub fn command_refused(&self, code: u16) {
        self.connections.errors.of(RefusalCode::of(code)).inc();
    }

    /// An idle peer was pinged.
    pub fn heartbeat_sent(&self) {
        self.connections.heartbeats.inc();
    }

    /// A peer did not answer in time and is closed with 4408.
    pub fn heartbeat_timed_out(&self) {
        self.connections.heartbeat_timeouts.inc();
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        level(&self.connections.open)
    }

    /// Subscriptions held now, all channels together.
    #[must_use]
    pub fn subscriptions(&self) -> u64 {
        level(&self.connections.subscriptions)
    }

    /// Channels with a subscriber on this node.
    #[must_use]
    pub fn channels(&self) -> u64 {
        level(&self.connections.channels)
    }
}

/// A gauge that is only ever raised before it is lowered. A reader may meet the two steps in the other order: not below 0.
fn level(gauge: &IntGauge) -> u64 {
    u64::try_from(gauge.get()).unwrap_or(0)
}
