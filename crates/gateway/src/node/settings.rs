//! What a running node may be given anew: swapped whole, so that nobody sees half of one configuration and half of another.
//!
//! Whoever needs settings takes them once per socket, request or connection, under a lock that is held for one clone. The
//! fast lane needs none: a session carries the policy, and is told when there is another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::dialect::Offer;
use fanfare_protocol::limits::{self, Bound};
use fanfare_protocol::publication::Retention;
use fanfare_protocol::rules::{Consent, Count, MayPublish, MaySubscribe, Overflow, Roll, Rule, Rules};
use fanfare_protocol::session::Policy;
use fanfare_protocol::websocket::{Context, Shape, Willingness};

use crate::admission::Origins;
use crate::api::Keys;
use crate::auth::{Auth, Means};
use crate::config::{
    self, Compression, Config, Identity, Limits, Namespace, PublishBy, SlowSubscriber, SubscribeBy, Told,
    Trial, WebSocket,
};
use crate::hooks::Hooks;
use crate::http::{self, Door};
use crate::proxy::Proxies;
use crate::tls::Tls;

/// See the [module's note](self).
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) policy: Arc<Policy>,
    /// That of the clients of each application, by its namespace.
    realms: HashMap<Box<str>, Arc<Policy>>,
    pub(crate) auth: Auth,
    /// What the backend is asked.
    pub(crate) hooks: Hooks,
    pub(crate) origins: Origins,
    pub(crate) websocket: WebSocket,
    /// What is agreed to with clients that offer compression.
    pub(crate) compression: Option<Willingness>,
    /// The bounds on who may come in, and on what is no session's matter.
    pub(crate) limits: Limits,
    pub(crate) proxies: Proxies,
    pub(crate) api_keys: Keys,
    /// What clients are offered at `/connection/…`, where they are served.
    pub(crate) offer: Option<&'static Offer>,
    /// Which pages are served.
    pub(crate) console: config::Console,
    /// How long the head of a request, or the body of an API call, may take to arrive.
    pub(crate) header_timeout: Duration,
    pub(crate) drain_window: Duration,
    pub(crate) readiness: config::Readiness,
    /// TLS on the public listener, and on the internal one; without it they serve in clear.
    tls: (Option<Tls>, Option<Tls>),
}

impl Settings {
    /// Those of a configuration, in force after those of `before` if the node runs already.
    pub(super) fn of(config: &Config, before: Option<&Self>, means: &Means<'_>) -> Self {
        let tls = |door, identity: &Option<Arc<Identity>>| {
            let before = before.and_then(|before| before.tls(door));
            identity.as_ref().map(|identity| Tls::new(identity, &config.tls, before))
        };
        Self {
            tls: (tls(Door::Public, &config.tls.public), tls(Door::Internal, &config.tls.internal)),
            policy: Arc::new(policy(config)),
            realms: realms(config),
            auth: Auth::of(&config.auth, before.map(|before| &before.auth), means),
            hooks: Hooks::of(config, before.map(|before| &before.hooks), means.dialer),
            origins: Origins::new(&config.origin.allow),
            websocket: config.websocket.clone(),
            compression: config.compression.as_ref().map(willingness),
            limits: config.limits.clone(),
            proxies: Proxies::of(&config.proxy),
            api_keys: Keys::of(&config.api),
            offer: http::offer(config),
            console: config.console.clone(),
            header_timeout: config.limits.header_timeout,
            drain_window: config.node.drain,
            readiness: config.readiness,
        }
    }

    /// What holds for the clients of an application, or for those of none; none where there is no such application.
    pub(crate) fn policy_of(&self, namespace: Option<&str>) -> Option<Arc<Policy>> {
        namespace.map_or(Some(&self.policy), |namespace| self.realms.get(namespace)).cloned()
    }

    /// The namespace of the application with this key.
    pub(crate) fn realm_of_key(&self, key: &str) -> Option<&str> {
        let mut realms = self.realms.values().filter_map(|policy| policy.realm.as_ref());
        realms.find(|realm| realm.credentials.key() == key).map(|realm| &*realm.namespace)
    }

    /// Whether no session is to know of the difference.
    pub(super) fn decides_as(&self, other: &Self) -> bool {
        self.policy == other.policy && self.realms == other.realms
    }

    /// TLS on a listener. None: it serves in clear.
    pub(crate) fn tls(&self, door: Door) -> Option<&Tls> {
        match door {
            Door::Public => self.tls.0.as_ref(),
            Door::Internal => self.tls.1.as_ref(),
        }
    }
}

fn willingness(compression: &Compression) -> Willingness {
    let Compression { threshold_bytes, level, context_takeover, window_bits } = *compression;
    Willingness {
        shape: Shape { window_bits, level, threshold_bytes },
        context: if context_takeover { Context::TakenOver } else { Context::Fresh },
    }
}

fn policy(config: &Config) -> Policy {
    let tried = [
        (Trial::Messages, Bound::Commands),
        (Trial::Rate, Bound::Publications),
        (Trial::Channels, Bound::Channels),
        (Trial::Batch, Bound::Batch),
        (Trial::JsonDepth, Bound::Depth),
    ];
    let limits = limits::Limits {
        message_bytes: config.limits.message_bytes.get(),
        channels: config.limits.channels.get(),
        batch: config.limits.batch.get(),
        depth: config.limits.json_depth,
        errors: config.limits.max_errors.get(),
        messages_per_second: config.limits.messages_per_second.map_or(0, |most| most.get()),
        queue_bytes: config.limits.queue_bytes.get(),
        auth_timeout: config.auth.timeout,
        close_timeout: config.limits.close_timeout,
        trial: tried
            .into_iter()
            .filter(|(trial, _)| config.limits.dry_run.covers(*trial))
            .map(|(_, it)| it)
            .collect(),
        ..limits::Limits::default()
    };
    let heartbeat =
        limits::Heartbeat { interval: config.heartbeat.interval, timeout: config.heartbeat.timeout };
    let namespaces =
        config.namespaces.iter().map(|(name, namespace)| (name.as_str().into(), rule(namespace)));
    let rules = Rules::of(namespaces).with_names(http::names(config));
    let rules = http::realms(config).fold(rules, |all, (realm, its)| all.with_realm(&realm.namespace, its));
    let (node, takes_calls) = (config.node.name.as_str().into(), config.hooks.call.is_some());
    Policy { node, limits, heartbeat, rules, takes_calls, realm: None }
}

fn realms(config: &Config) -> HashMap<Box<str>, Arc<Policy>> {
    let of_realm = |realm| Arc::new(Policy { realm: Some(realm), ..policy(config) });
    http::realms(config).map(|(realm, _)| (realm.namespace.clone(), of_realm(realm))).collect()
}

fn rule(namespace: &Namespace) -> Rule {
    let consent = |hook: &Option<String>| if hook.is_some() { Consent::Needed } else { Consent::Given };
    Rule {
        publish: match namespace.publish {
            PublishBy::None => MayPublish::Nobody,
            PublishBy::Subscribers => MayPublish::Subscribers,
            PublishBy::Anyone => MayPublish::Anyone,
        },
        subscribe: match namespace.subscribe {
            SubscribeBy::Token => MaySubscribe::Token,
            SubscribeBy::Authenticated => MaySubscribe::Authenticated,
            SubscribeBy::Anyone => MaySubscribe::Anyone,
        },
        payload_bytes: namespace.max_bytes.map(usize::from),
        rate: namespace.rate,
        history: namespace.history.as_ref().map(|history| Retention {
            size: history.size,
            ttl: history.ttl,
            idempotency_ttl: history.idempotency_ttl,
        }),
        presence: namespace.presence,
        roll: match namespace.events {
            Told::Backend => Roll::ForBackend,
            Told::Nobody => Roll::ForClients,
        },
        count: Count::Untold,
        consent_to_subscribe: consent(&namespace.subscribe_hook),
        consent_to_publish: consent(&namespace.publish_hook),
        overflow: match namespace.overflow {
            SlowSubscriber::Disconnect => Overflow::Disconnect,
            SlowSubscriber::DropOldest => Overflow::DropOldest,
            SlowSubscriber::Conflate => Overflow::Conflate,
        },
    }
}
