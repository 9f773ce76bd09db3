//! What holds on channels.

use super::{Section, key, unset, whole};
use crate::config::check::Kind;
use crate::config::choice::{PublishBy, SlowSubscriber, SubscribeBy};

pub(super) const NAMESPACES: Section = Section {
    name: "namespaces",
    help: "What holds for the channels of a namespace: those whose name begins with `<name>:`, or has no `:` for the \
           namespace `default`. Once one namespace is written down, channels of the others are refused; with none, \
           every channel is open.",
    keys: &[
        key(
            "namespaces.*.publish",
            Kind::Choice(PublishBy::WORDS),
            "\"subscribers\"",
            "Who may publish: `none` of the clients, `subscribers` of the channel, or `anyone`.",
        )
        .reloadable(),
        key(
            "namespaces.*.subscribe",
            Kind::Choice(SubscribeBy::WORDS),
            "\"anyone\"",
            "Who may subscribe: clients whose `token` names the channel, the `authenticated`, or `anyone`.",
        )
        .reloadable(),
        unset(
            "namespaces.*.max_bytes",
            whole(1, 1 << 30),
            "`limits.message_bytes` alone bounds it",
            "4096",
            "Bytes of the `data` of one publication; more is refused with 4413.",
        )
        .reloadable(),
        unset(
            "namespaces.*.rate",
            whole(1, 1_000_000),
            "`limits.messages_per_second` alone bounds it",
            "10",
            "Publications of one connection in a second, to all channels of the namespace together; as many may come at once. \
             More are refused with 4429. Posted ones are counted by user, or by address.",
        )
        .reloadable(),
        key("namespaces.*.presence", Kind::Switch, "false", "Whether clients may ask and be told who is subscribed.")
            .reloadable(),
        key(
            "namespaces.*.events",
            Kind::Switch,
            "false",
            "Whether the backend at `events.url` is told when a channel is `occupied` and `vacated`. Each subscription is then written \
             down in the broker, as with `presence`.",
        )
        .reloadable(),
        unset(
            "namespaces.*.hooks.subscribe",
            Kind::Url,
            "the backend is not asked",
            "\"https://app.example.com/fanfare/subscribe\"",
            "May this client subscribe? Asked of what `subscribe` allows, unless the client's token, or the answer to `connect`, \
             names the channel.",
        )
        .reloadable(),
        unset(
            "namespaces.*.hooks.publish",
            Kind::Url,
            "the backend is not asked",
            "\"https://app.example.com/fanfare/publish\"",
            "May this client publish that? Asked of what `publish` allows, one publication of a connection after the other.",
        )
        .reloadable(),
        key(
            "namespaces.*.overflow",
            Kind::Choice(SlowSubscriber::WORDS),
            "\"disconnect\"",
            "What becomes of a subscriber for whom `limits.queue_bytes` wait: `disconnect` it with 4508, or `drop_oldest`, the \
             oldest waiting publications of such channels. With `conflate` only the newest of a channel waits, however \
             little that is.",
        )
        .reloadable(),
        unset(
            "namespaces.*.history.size",
            whole(1, 100_000),
            "no history is kept",
            "100",
            "The newest publications of a channel that are kept, for clients that come back.",
        )
        .reloadable(),
        key(
            "namespaces.*.history.ttl_seconds",
            whole(1, 31_536_000),
            "300",
            "How long after its last publication a channel's history is kept. Takes `history.size`.",
        )
        .reloadable(),
        key(
            "namespaces.*.history.idempotency_ttl_seconds",
            whole(1, 31_536_000),
            "300",
            "How long a publication's `key` is remembered: the same key again is not published again. Takes \
             `history.size`.",
        )
        .reloadable(),
    ],
};
