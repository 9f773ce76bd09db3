//! What a peer may do, and how much of it.

use super::{Section, key, whole};
use crate::config::check::Kind;
use crate::config::choice::Trial;

pub(super) const LIMITS: Section = Section {
    name: "limits",
    help: "Bounds, each of one connection unless it says otherwise.",
    keys: &[
        key("limits.connections", whole(1, 10_000_000), "100000", "Connections of the whole node.").reloadable(),
        key(
            "limits.connections_per_ip",
            whole(0, 10_000_000),
            "0",
            "Connections from one address, or from one IPv6 network of `limits.ipv6_prefix` bits; more are refused with 429. \
             0 is any number. Behind proxies see `proxy.trusted`.",
        )
        .reloadable(),
        key(
            "limits.connections_per_user",
            whole(0, 10_000_000),
            "0",
            "Connections of one user on all nodes together; more are refused with 429, or closed with 4422 where the token comes \
             later. 0 is any number. Nodes tell each other a few times a second, and one that has died is counted for two of \
             `presence.heartbeat_seconds`.",
        )
        .reloadable(),
        key(
            "limits.ipv6_prefix",
            whole(16, 128),
            "64",
            "How many bits of an IPv6 address tell one client from another: providers give each customer a whole network.",
        )
        .reloadable(),
        key(
            "limits.handshakes_per_second",
            whole(0, 1_000_000),
            "0",
            "Sockets, and further connections on them, that the public listener takes in a second; beyond it clients are \
             refused with 503, and hung up on beyond twice that. 0 is any number.",
        )
        .reloadable(),
        key(
            "limits.handshakes_burst",
            whole(0, 10_000_000),
            "0",
            "How many of them may come at once; 0 is a second's worth.",
        )
        .reloadable(),
        key(
            "limits.handshakes_per_second_per_ip",
            whole(0, 1_000_000),
            "0",
            "The same for one address, or one IPv6 network of `limits.ipv6_prefix` bits, refused with 429.",
        )
        .reloadable(),
        key(
            "limits.handshakes_burst_per_ip",
            whole(0, 10_000_000),
            "0",
            "How many of them may come at once; 0 is a second's worth.",
        )
        .reloadable(),
        key(
            "limits.streams",
            whole(1, 10_000),
            "100",
            "Streams of one HTTP/2 socket at a time, each a request or a WebSocket.",
        )
        .reloadable(),
        key(
            "limits.message_bytes",
            whole(128, 1 << 30),
            "65536",
            "Bytes of one message from a client; more closes the connection with 1009. A connection keeps the \
             bound that it was told in `welcome`.",
        )
        .reloadable(),
        key("limits.channels", whole(1, 1_000_000), "128", "Channels subscribed to at once.").reloadable(),
        key("limits.batch", whole(1, 100_000), "128", "Commands in one message.").reloadable(),
        key(
            "limits.json_depth",
            whole(2, 512),
            "128",
            "Arrays and objects within each other in one command, its own braces among them, in JSON or MessagePack; deeper is \
             refused with 4400 before it is parsed.",
        )
        .reloadable(),
        key(
            "limits.max_errors",
            whole(1, 1_000_000),
            "32",
            "Malformed commands until the connection is closed with 4400.",
        )
        .reloadable(),
        key(
            "limits.messages_per_second",
            whole(0, 1_000_000),
            "100",
            "Messages in a second that `welcome` tells clients to keep to; 0 is any number.",
        )
        .reloadable(),
        key(
            "limits.queue_bytes",
            whole(1_024, 1 << 32),
            "1048576",
            "Bytes waiting for a client that reads too slowly; more closes the connection with 4508, unless the \
             `overflow` of its channels makes room. At least `limits.message_bytes`; a publication that may come to more, since it grows from one format to the \
             other, is refused with 4413. A connection \
             keeps the bound that it began with.",
        )
        .reloadable(),
        key(
            "limits.header_seconds",
            whole(1, 600),
            "10",
            "Time to send the head of a request, from the moment the socket is open.",
        )
        .reloadable(),
        key(
            "limits.close_seconds",
            whole(1, 60),
            "5",
            "Time for a client to answer a Close, and to take in what was sent before it; then it is hung up on.",
        )
        .reloadable(),
        key(
            "limits.dry_run",
            Kind::Choices(Trial::WORDS),
            "[]",
            "Limits that are not enforced but only counted, by `fanfare_limit_exceeded_total{mode=\"would_refuse\"}`, to see \
             whom they would hit. What bounds memory is always enforced.",
        )
        .reloadable(),
    ],
};
