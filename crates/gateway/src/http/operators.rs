//! What is operators' of the internal listener: a conversation with the rights of a key of the API, for their console, and the way
//! to it from the public listener of a machine of one's own.
//!
//! A page cannot give a WebSocket a header, so its key may come as a subprotocol, `bearer.` and the key in base64url.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use data_encoding::BASE64URL_NOPAD;
use fanfare_protocol::dialect::Offer;
use fanfare_protocol::error::Failure;
use fanfare_protocol::grant::Grant;
use fanfare_protocol::time::UnixMicros;
use hyper::body::Incoming;

use super::handshake::{self, Purpose};
use super::{Answer, Door, Peer, failure, host, not_found, text};
use crate::api;
use crate::connection::Membership;
use crate::node::Services;

/// For how long a conversation goes on without its key being looked at again.
const TERM: Duration = Duration::from_secs(3600);

/// What an offered subprotocol begins with that is a key.
const SUBPROTOCOL: &str = "bearer.";

/// Opens a conversation, for whoever may read.
pub(super) fn upgrade(peer: &Peer, request: Request<Incoming>, services: &Arc<Services>) -> Answer {
    match admitted(peer, &request, services) {
        Ok(grant) => {
            let membership = Membership::Operating(Arc::new(grant));
            handshake::upgrade(peer, request, Purpose::Session(&Offer::NATIVE), membership, services)
        }
        Err(why) => failure(&why),
    }
}

fn admitted<B>(peer: &Peer, request: &Request<B>, services: &Services) -> Result<Grant, Failure> {
    let settings = services.settings();
    settings.api_keys.examine(request)?;
    let rights = settings.api_keys.authorise(peer.address, key(request.headers()).as_deref())?;
    let term = u64::try_from(TERM.as_micros()).expect("an hour is a number");
    rights.grant(UnixMicros(services.clock.unix().0 + term))
}

fn key(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    api::bearer(headers).map(Cow::Borrowed).or_else(|| {
        let mut offered = handshake::tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL);
        let spelt = offered.find_map(|name| name.strip_prefix(SUBPROTOCOL))?;
        let key = BASE64URL_NOPAD.decode(spelt.as_bytes()).ok()?;
        String::from_utf8(key).ok().map(Cow::Owned)
    })
}

/// Where the console is, for a browser on the machine that both listeners are on alone.
pub(crate) fn place<B>(request: &Request<B>, services: &Services) -> Option<String> {
    let settings = services.settings();
    let is_served = settings.console.enabled && settings.console.internal;
    let address = services.internal.get().filter(|it| it.ip().is_loopback() && is_served)?;
    let scheme = if settings.tls(Door::Internal).is_some() { "https" } else { "http" };
    host::is_this_machine(request).then(|| format!("{scheme}://{address}/"))
}

/// Leads there.
pub(super) fn lead<B>(request: &Request<B>, services: &Services) -> Answer {
    let Some(place) = place(request, services) else { return not_found("/console") };
    let mut answer = text(StatusCode::TEMPORARY_REDIRECT, "the console is on the internal listener\n");
    let place = HeaderValue::try_from(place).expect("an address is a header value");
    answer.headers_mut().insert(header::LOCATION, place);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_header_or_in_a_subprotocol() {
        for (name, value, expected) in [
            ("authorization", "Bearer a+b/c=d", Some("a+b/c=d")),
            ("sec-websocket-protocol", "fanfare.v1.json, bearer.YStiL2M9ZA", Some("a+b/c=d")),
            ("sec-websocket-protocol", "fanfare.v1.json", None),
            ("sec-websocket-protocol", "bearer.", Some("")),
            ("sec-websocket-protocol", "bearer.a+b", None),
            ("sec-websocket-protocol", "bearer._w", None),
        ] {
            let headers = [(name, value)].map(|(name, value)| {
                (name.parse::<::http::HeaderName>().unwrap(), HeaderValue::from_static(value))
            });
            let headers: HeaderMap = headers.into_iter().collect();
            assert_eq!(key(&headers).as_deref(), expected, "{name}: {value}");
        }
    }
}
