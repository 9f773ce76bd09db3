//! One request on a connection of its own, and its answer.

use std::time::Duration;

use data_encoding::HEXUPPER;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::line::{Bytes as Stream, EVENT_BYTES_MAX, Gone, PATIENCE, connect};
use crate::options::Target;

/// What is asked.
pub(super) struct Request<'a> {
    target: &'a Target,
    request: hyper::Request<Full<Bytes>>,
}

/// What was answered, the whole of it.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl<'a> Request<'a> {
    pub(super) fn get(
        target: &'a Target,
        path: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<Self, Gone> {
        Self::of(target, Method::GET, path, authorization, Bytes::new())
    }

    pub(super) fn post(
        target: &'a Target,
        path: &str,
        authorization: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Self, Gone> {
        let mut request = Self::of(target, Method::POST, path, authorization, body)?;
        request.request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(request)
    }

    fn of(
        target: &'a Target,
        method: Method,
        path: &str,
        authorization: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Self, Gone> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", target.base))
            .header(HOST, &target.authority)
            .header(CACHE_CONTROL, "no-store")
            .body(Full::new(body));
        let mut request = request.map_err(|error| Gone::because(error.to_string()))?;
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(Self { target, request })
    }

    /// The answer, within a time that no honest server needs.
    pub(super) async fn answer(self) -> Result<Answer, Gone> {
        self.answer_within(PATIENCE).await
    }

    /// The same of a server that may hold it for a while.
    pub(super) async fn answer_within(self, patience: Duration) -> Result<Answer, Gone> {
        let stream = connect(self.target).await?;
        let request = self.request;
        let answer =
            timeout(patience, on_a_connection(stream, async |mut sender| send(&mut sender, request).await));
        answer.await.unwrap_or_else(|_| Err(Gone::because("the server does not answer").blocked()))
    }

    /// Hands the answer to somebody who reads its body while it comes.
    pub(super) async fn streamed<T>(
        self,
        read: impl AsyncFnOnce(hyper::Response<Incoming>) -> Result<T, Gone>,
    ) -> Result<T, Gone> {
        let stream = connect(self.target).await?;
        let request = self.request;
        on_a_connection(stream, async |mut sender| {
            let response = timeout(PATIENCE, sender.send_request(request)).await;
            let response = response.map_err(|_| Gone::because("the server does not answer").blocked())?;
            read(response?).await
        })
        .await
    }

    pub(super) fn into_parts(self) -> hyper::Request<Full<Bytes>> {
        self.request
    }
}

impl Answer {
    pub(super) fn succeeded(&self) -> Result<(), Gone> {
        if self.status.is_success() { Ok(()) } else { Err(refusal(self.status, &self.headers)) }
    }
}

/// Speaks on a connection, which is driven meanwhile.
pub(super) async fn on_a_connection<T>(
    stream: Box<dyn Stream>,
    speak: impl AsyncFnOnce(SendRequest<Full<Bytes>>) -> Result<T, Gone>,
) -> Result<T, Gone> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let speaking = speak(sender);
    tokio::pin!(speaking, connection);
    let mut is_open = true;
    loop {
        tokio::select! {
            outcome = &mut speaking => return outcome,
            // What has come may not have been read yet.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

/// Sends a request and reads all of the answer.
pub(super) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: hyper::Request<Full<Bytes>>,
) -> Result<Answer, Gone> {
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = http_body_util::Limited::new(body, EVENT_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Gone::because(error.to_string()))?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// As a refusal says it. `Retry-After` is the same for all who were refused, unlike the wait that `closing` names: so it is spread.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap) -> Gone {
    Gone::refused(status.as_u16(), retry_after(headers).map(|wait| wait.mul_f64(1.0 + fastrand::f64())))
}

pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The connection is broken, or what comes over it is not HTTP.
impl From<hyper::Error> for Gone {
    fn from(error: hyper::Error) -> Self {
        Self::because(error.to_string())
    }
}

/// Percent-encoded as a value of a query.
pub(super) fn encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&HEXUPPER.encode(&[byte]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_stands_in_a_query_without_becoming_part_of_it() {
        assert_eq!(encoded("room:a-b_c.d~1"), "room:a-b_c.d~1");
        assert_eq!(encoded("a&b=c d#+%/?"), "a%26b%3Dc%20d%23%2B%25%2F%3F");
        assert_eq!(encoded("ü"), "%C3%BC");
    }
}
