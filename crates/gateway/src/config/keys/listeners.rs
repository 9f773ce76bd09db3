//! Where clients come in, and what is spoken there.

use super::{Section, key, unset, whole};
use crate::config::check::Kind;
use crate::config::choice::{ClientCertificates, ForwardedBy, TlsVersion};

pub(super) const LISTEN: Section = Section {
    name: "listen",
    help: "Where the node listens. Port 0 takes a free one.",
    keys: &[
        key(
            "listen.public",
            Kind::Address,
            "\"127.0.0.1:8000\"",
            "Clients, health checks, and the console page.",
        ),
        key(
            "listen.internal",
            Kind::Address,
            "\"127.0.0.1:8001\"",
            "Metrics and the server API. Beyond loopback it needs `api.keys`.",
        ),
    ],
};

pub(super) const TLS: Section = Section {
    name: "tls",
    help: "TLS on the public listener, and by the keys under `internal` on the internal one; a listener without a certificate \
           serves in clear. The files are PEM, their paths absolute or from the directory that the node is started in.",
    keys: &[
        unset(
            "tls.cert",
            Kind::File,
            "clients are served in clear",
            "\"cert.pem\"",
            "The certificate, and those that lead from it to an authority that clients know.",
        )
        .reloadable(),
        unset("tls.key", Kind::File, "there is no certificate", "\"key.pem\"", "The private key of `tls.cert`.")
            .reloadable(),
        unset(
            "tls.client_ca",
            Kind::File,
            "clients are not asked for certificates",
            "\"clients.pem\"",
            "The authorities whose certificates clients present.",
        )
        .reloadable(),
        key(
            "tls.client_certificates",
            Kind::Choice(ClientCertificates::WORDS),
            "\"required\"",
            "With `tls.client_ca`: whether a client has to present a certificate. A wrong one is always refused.",
        )
        .reloadable(),
        unset("tls.internal.cert", Kind::File, "the internal listener serves in clear", "\"cert.pem\"", "As `tls.cert`.")
            .reloadable(),
        unset("tls.internal.key", Kind::File, "there is no certificate", "\"key.pem\"", "As `tls.key`.").reloadable(),
        unset(
            "tls.internal.client_ca",
            Kind::File,
            "callers are not asked for certificates",
            "\"backends.pem\"",
            "As `tls.client_ca`.",
        )
        .reloadable(),
        key(
            "tls.internal.client_certificates",
            Kind::Choice(ClientCertificates::WORDS),
            "\"required\"",
            "As `tls.client_certificates`.",
        )
        .reloadable(),
        key(
            "tls.min_version",
            Kind::Choice(TlsVersion::WORDS),
            "\"1.2\"",
            "The oldest version spoken, on both listeners; the newest is 1.3.",
        )
        .reloadable(),
        key(
            "tls.handshake_seconds",
            whole(1, 600),
            "10",
            "Time for a handshake, from the moment the socket is open; then it is hung up on.",
        )
        .reloadable(),
        key(
            "tls.watch_seconds",
            whole(0, 86_400),
            "60",
            "How often the files are read again, to take new ones without a signal; 0 is only at SIGHUP.",
        )
        .reloadable(),
    ],
};

pub(super) const PROXY: Section = Section {
    name: "proxy",
    help: "Who stands between the clients and the public listener: limits per address are for what stands behind.",
    keys: &[
        key(
            "proxy.trusted",
            Kind::Networks,
            "[]",
            "The networks of the proxies that are believed when they say for whom they speak. Of the addresses that a \
             request has passed, the client's is the last one that is in none of them. Empty: nobody is believed.",
        )
        .reloadable(),
        key(
            "proxy.header",
            Kind::Choice(ForwardedBy::WORDS),
            "\"x-forwarded-for\"",
            "The header that the proxies set. The other one is not looked at: they may hand on what a client put there.",
        )
        .reloadable(),
        key(
            "proxy.protocol",
            Kind::Switch,
            "false",
            "Whether sockets from `proxy.trusted` begin with a header of the PROXY protocol, version 1 or 2. Those that do \
             not within `limits.header_seconds` are hung up on; sockets from elsewhere are taken as they are.",
        )
        .reloadable(),
    ],
};

pub(super) const ORIGIN: Section = Section {
    name: "origin",
    help: "Which pages may connect. Clients that are no browser send no Origin and are not concerned.",
    keys: &[key(
        "origin.allow",
        Kind::Origins,
        "[]",
        "Origins such as `https://app.example.com`; `https://*.example.com` is all subdomains, `*` every origin. Empty: pages \
         from the host that they connect to, whatever the port.",
    )
    .reloadable()],
};

pub(super) const WEBSOCKET: Section = Section {
    name: "websocket",
    help: "The opening handshake.",
    keys: &[key(
        "websocket.strict_subprotocol",
        Kind::Switch,
        "false",
        "Whether a client that offers subprotocols of which none is known is refused with 400. Otherwise it comes in, the \
         answer names none of them, and `fanfare.v1.json` is spoken.",
    )
    .reloadable()],
};

pub(super) const COMPRESSION: Section = Section {
    name: "compression",
    help: "permessage-deflate (RFC 7692), for clients that offer it. A connection keeps what it agreed on.",
    keys: &[
        key("compression.enabled", Kind::Switch, "true", "Whether it is agreed to.").reloadable(),
        key(
            "compression.threshold_bytes",
            whole(0, 1 << 30),
            "512",
            "Messages of fewer bytes are not compressed: there is little to save.",
        )
        .reloadable(),
        key(
            "compression.level",
            whole(1, 9),
            "1",
            "The effort: 1 is the fastest, 6 common elsewhere, 9 the best. A publication is compressed once, whatever the \
             number of its subscribers.",
        )
        .reloadable(),
        key(
            "compression.context_takeover",
            Kind::Switch,
            "false",
            "Whether messages may refer to those before them. They get shorter, small ones above all; but each \
             subscriber's are then its own, compressed for it alone, and a connection remembers up to two windows.",
        )
        .reloadable(),
        key(
            "compression.window_bits",
            whole(9, 15),
            "15",
            "How far back a message may refer, as an exponent of 2: 15 is 32 KiB. Clients may ask for less.",
        )
        .reloadable(),
    ],
};
