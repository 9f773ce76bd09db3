//! The protocols that other people's clients speak.

use super::{NAME, Section, key, unset, whole};
use crate::config::check::Kind;
use crate::config::choice::AppEvent;

pub(super) const PUSHER_APPS: Section = Section {
    name: "pusher.apps",
    help: "Applications whose clients speak the Pusher protocol at `/app/<key>`. `<name>` is the id of the application, and the \
           namespace of its channels: what its clients call `news` is `<name>:news` to others. See docs/protocol/pusher.md.",
    keys: &[
        unset("pusher.apps.*.key", NAME, "an application takes one", "\"app-key\"", "Names the application to its clients.")
            .reloadable(),
        unset(
            "pusher.apps.*.secret",
            Kind::Secret,
            "an application takes one",
            "\"…\"",
            "What the application's backends sign with: what clients may hear, and requests of the HTTP API.",
        )
        .reloadable(),
        key(
            "pusher.apps.*.event_bytes",
            whole(1, 1 << 30),
            "10240",
            "Bytes of the data of one event; more is refused with 413.",
        )
        .reloadable(),
        key(
            "pusher.apps.*.client_events_per_second",
            whole(0, 1_000_000),
            "10",
            "Events that one client may publish in a second, on private and presence channels; more are refused with 4301. 0: \
             clients may not publish.",
        )
        .reloadable(),
        key(
            "pusher.apps.*.counts",
            Kind::Switch,
            "true",
            "Whether it is known how many hear a channel that is not a presence channel: for `occupied` and \
             `subscription_count` of the HTTP API, and for watchlists, which ask whether a user hears its own. Each subscription is \
             then written down in the broker, as those to presence channels are anyway.",
        )
        .reloadable(),
        key(
            "pusher.apps.*.subscription_counts",
            Kind::Switch,
            "false",
            "Whether who hears a channel that is not a presence channel is told how many do, by \
             `pusher_internal:subscription_count`. Takes `counts`, and nodes of a version that knows of it.",
        )
        .reloadable(),
        unset(
            "pusher.apps.*.webhooks.url",
            Kind::Url,
            "the application is told nothing",
            "\"https://app.example.com/pusher/webhooks\"",
            "Where the application is told what happens on its channels. How it is told the keys under `events` say.",
        )
        .reloadable(),
        key(
            "pusher.apps.*.webhooks.events",
            Kind::Choices(AppEvent::WORDS),
            "[\"channel_existence\", \"presence\"]",
            "What it is told. `channel_existence` and `subscription_count` take `counts`.",
        )
        .reloadable(),
        key(
            "pusher.apps.*.webhooks.channels",
            Kind::Patterns,
            "[\"*\"]",
            "Of which channels, by the names that its clients know; `*` stands for any characters: `\"private-*\"`, `\"*-orders\"`.",
        )
        .reloadable(),
    ],
};

pub(super) const PUSHER_WEBHOOKS: Section = Section {
    name: "pusher.webhooks",
    help: "More places where an application is told what happens on its channels. None of them waits for another. A new name is a \
           place that has been told nothing yet.",
    keys: &[
        unset("pusher.webhooks.*.app", NAME, "it takes one", "\"shop\"", "The id of the application.").reloadable(),
        unset(
            "pusher.webhooks.*.url",
            Kind::Url,
            "it takes one",
            "\"https://audit.example.com/pusher\"",
            "Where it is told. How it is told the keys under `events` say.",
        )
        .reloadable(),
        key(
            "pusher.webhooks.*.events",
            Kind::Choices(AppEvent::WORDS),
            "[\"channel_existence\", \"presence\"]",
            "What is told there. `channel_existence` and `subscription_count` take `counts` of the application.",
        )
        .reloadable(),
        key("pusher.webhooks.*.channels", Kind::Patterns, "[\"*\"]", "Of which channels, as with `webhooks.channels` above.")
            .reloadable(),
    ],
};

pub(super) const CENTRIFUGO: Section = Section {
    name: "centrifugo",
    help: "Clients of Centrifugo, by its protocol at `/connection/websocket`.",
    keys: &[key(
        "centrifugo.enabled",
        Kind::Switch,
        "true",
        "Whether they are served. Then its channel rules hold for every client: a name that begins with `$` takes a token \
         that names it, and what stands behind `#` are the users who may subscribe, with commas between.",
    )
    .reloadable()],
};
