//! Who clients are.

use super::{Section, key, unset, whole};
use crate::config::check::Kind;

pub(super) const AUTH: Section = Section {
    name: "auth",
    help: "Who may connect.",
    keys: &[
        unset(
            "auth.anonymous",
            Kind::Switch,
            "`true` while `listen.public` is a loopback address, and there is neither `auth.jwt` nor `hooks.connect`; elsewhere it has to be written down",
            "true",
            "Whether clients without a token may connect; and with `hooks.connect`, whether those may of whom it names no user.",
        )
        .reloadable(),
        key(
            "auth.timeout_seconds",
            whole(1, 60),
            "10",
            "Time for a client that has to present a token, else the connection is closed with 4401.",
        )
        .reloadable(),
        unset(
            "auth.cookie",
            Kind::Text { max: 64, also: "._-" },
            "no cookie is looked at",
            "\"session\"",
            "The name of a cookie that may hold a token. Requests with it need an allowed Origin, or the word of the browser \
             that they come from the gateway's own page.",
        )
        .reloadable(),
        key(
            "auth.token_in_url",
            Kind::Switch,
            "false",
            "Whether a token may come as `?token=`. Proxies and browsers keep URLs, and so would keep the token.",
        )
        .reloadable(),
        unset(
            "auth.jwt.hmac_secret",
            Kind::Secret,
            "no token is signed with a secret",
            "\"(32 bytes or more)\"",
            "The secret of HS256, HS384 and HS512: whoever has it can make tokens. At least 32 bytes beyond loopback.",
        )
        .reloadable(),
        unset(
            "auth.jwt.previous_hmac_secret",
            Kind::Secret,
            "there is none",
            "\"(the old one)\"",
            "The secret before, whose tokens are still good.",
        )
        .reloadable(),
        unset(
            "auth.jwt.public_key",
            Kind::PublicKey,
            "no token is signed with a private key",
            "\"/etc/fanfare/tokens.pem\"",
            "The public key of RSA (RS and PS 256 to 512), P-256 (ES256), P-384 (ES384), P-521 (ES512) or Ed25519 (EdDSA).",
        )
        .reloadable(),
        unset(
            "auth.jwt.previous_public_key",
            Kind::PublicKey,
            "there is none",
            "\"/etc/fanfare/tokens-old.pem\"",
            "The key before, whose tokens are still good.",
        )
        .reloadable(),
        unset(
            "auth.jwt.jwks_url",
            Kind::Url,
            "no keys are fetched",
            "\"https://login.example.com/.well-known/jwks.json\"",
            "Where the issuer publishes its public keys, a JSON Web Key Set. A token names one of them by `kid`. They are fetched again before \
             they are old, and when a token names one that is not among them; while that fails, those at hand stay in force.",
        )
        .reloadable(),
        key(
            "auth.jwt.jwks_max_age_seconds",
            whole(1, 86_400),
            "600",
            "How old fetched keys may grow. Their server may ask for less by `Cache-Control: max-age`, down to 30 seconds.",
        )
        .reloadable(),
        key(
            "auth.jwt.jwks_cooldown_seconds",
            whole(1, 3600),
            "30",
            "The least time between two fetches from one server that tokens are the reason of, whatever keys they name.",
        )
        .reloadable(),
        key(
            "auth.jwt.jwks_in_clear",
            Kind::Switch,
            "false",
            "Whether keys may come over `http://` from other machines: whoever is on the way could exchange them.",
        )
        .reloadable(),
        unset(
            "auth.jwt.issuer",
            Kind::Words,
            "`iss` is not looked at",
            "\"https://login.example.com\"",
            "What `iss` has to be.",
        )
        .reloadable(),
        unset(
            "auth.jwt.audience",
            Kind::Words,
            "`aud` is not looked at",
            "\"fanfare\"",
            "What `aud` has to be, or to hold.",
        )
        .reloadable(),
        key(
            "auth.jwt.leeway_seconds",
            whole(0, 300),
            "30",
            "How far the clock of whoever makes tokens may be off, for `exp` and `nbf`.",
        )
        .reloadable(),
    ],
};

pub(super) const AUTH_ISSUERS: Section = Section {
    name: "auth.issuers",
    help: "Further issuers, by names of your choice. A token whose `iss` is an issuer's is held against its keys and no others; any other \
           token against those of `auth.jwt`, if these are for any `iss` or for this. Users of all issuers share one space of names.",
    keys: &[
        unset(
            "auth.issuers.*.issuer",
            Kind::Words,
            "an issuer takes one",
            "\"https://partner.example.com\"",
            "What `iss` is in its tokens.",
        )
        .reloadable(),
        unset(
            "auth.issuers.*.audience",
            Kind::Words,
            "`aud` is not looked at",
            "\"fanfare\"",
            "What `aud` has to be in its tokens, or to hold.",
        )
        .reloadable(),
        unset(
            "auth.issuers.*.jwks_url",
            Kind::Url,
            "no keys are fetched",
            "\"https://partner.example.com/keys\"",
            "As `auth.jwt.jwks_url`.",
        )
        .reloadable(),
        unset(
            "auth.issuers.*.public_key",
            Kind::PublicKey,
            "no token is signed with a private key",
            "\"/etc/fanfare/partner.pem\"",
            "As `auth.jwt.public_key`.",
        )
        .reloadable(),
        unset(
            "auth.issuers.*.previous_public_key",
            Kind::PublicKey,
            "there is none",
            "\"/etc/fanfare/partner-old.pem\"",
            "The key before, whose tokens are still good.",
        )
        .reloadable(),
        unset(
            "auth.issuers.*.hmac_secret",
            Kind::Secret,
            "no token is signed with a secret",
            "\"(32 bytes or more)\"",
            "As `auth.jwt.hmac_secret`.",
        )
        .reloadable(),
        unset(
            "auth.issuers.*.previous_hmac_secret",
            Kind::Secret,
            "there is none",
            "\"(the old one)\"",
            "The secret before, whose tokens are still good.",
        )
        .reloadable(),
    ],
};
