//! How the backend at `events.url` is told: a JSON object, signed together with the time at which it is sent.

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use fanfare_protocol::Channel;
use fanfare_protocol::dialect::native;
use fanfare_protocol::happening::Kinds;
use ring::hmac;

use super::{Destination, kinds};
use crate::config::Config;

/// When a report was sent, in Unix seconds; a part of what is signed.
const TIMESTAMP: HeaderName = HeaderName::from_static("fanfare-timestamp");

/// One signature for each key, with commas between them.
const SIGNATURE: HeaderName = HeaderName::from_static("fanfare-signature");

pub(super) fn destination(config: &Config) -> Option<Destination> {
    let key = |secret: &crate::config::Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let keys: Vec<_> = config.events.secrets.iter().map(key).collect();
    Some(Destination {
        url: config.events.url.clone()?,
        kinds: kinds(&config.events.kinds),
        kinds_of: Box::new(kinds_of),
        spell: Box::new(move |report, now| {
            let body = native::report::encode(report, now);
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let seconds = (now.0 / 1_000_000).to_string();
            let signatures: Vec<_> = keys.iter().map(|key| signature(key, &seconds, &body)).collect();
            if !signatures.is_empty() {
                headers.insert(SIGNATURE, value(&signatures.join(",")));
                headers.insert(TIMESTAMP, value(&seconds));
            }
            (headers, Bytes::from(body))
        }),
    })
}

fn kinds_of(_channel: &Channel) -> Kinds {
    Kinds::OCCUPIED.and(Kinds::VACATED)
}

/// That of the time, a dot, and the body.
fn signature(key: &hmac::Key, seconds: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(seconds.as_bytes());
    context.update(b".");
    context.update(body);
    format!("sha256={}", data_encoding::HEXLOWER.encode(context.sign().as_ref()))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits and letters are a header value")
}
