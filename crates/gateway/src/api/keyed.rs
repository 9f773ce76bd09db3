//! The flavour of the server API whose callers present an API key by that name: `X-API-Key`, `Authorization: apikey`, `?api_key=`.
//!
//! It shares its paths with the native flavour, so the way in which the key is presented says which one is spoken. Where there
//! are no keys, any will do, from this machine.

use std::net::IpAddr;
use std::sync::Arc;

use ::http::{Method, Request, StatusCode, header};
use fanfare_protocol::dialect::centrifugo::api;
use fanfare_protocol::error::{ErrorCode, Failure};
use hyper::body::Incoming;

use super::{body, label, perform_all, traceparent};
use crate::http::{self, Answer};
use crate::node::Services;

/// Asks for errors by the status of the answer, and not by its body alone.
const ERROR_MODE: &str = "x-centrifugo-error-mode";

/// Whether the caller speaks this flavour.
pub(super) fn presents_key<B>(request: &Request<B>) -> bool {
    key(request).is_some()
}

fn key<B>(request: &Request<B>) -> Option<&str> {
    let headers = request.headers();
    let named = headers.get("x-api-key").and_then(|key| key.to_str().ok());
    let scheme = || {
        let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("apikey").then(|| key.trim())
    };
    let query = || request.uri().query()?.split('&').find_map(|pair| pair.strip_prefix("api_key="));
    named.or_else(scheme).or_else(query)
}

/// Answers one request, which may be several calls.
pub(super) async fn answer(peer: IpAddr, request: Request<Incoming>, services: &Arc<Services>) -> Answer {
    let method = request.uri().path().trim_start_matches("/api/").to_owned();
    let label = label(&method);
    let by_status = request.headers().get(ERROR_MODE).is_some_and(|mode| mode == "transport");
    let answer = if request.method() == Method::POST {
        match calls(peer, &method, request, services).await {
            Ok((text, status)) => {
                let status = if by_status { status } else { 200 };
                http::json(StatusCode::from_u16(status).expect("the table holds HTTP statuses"), text)
            }
            Err(failure) => refusal(&failure),
        }
    } else {
        http::use_instead("POST")
    };
    services.metrics.api_request(label, answer.status().as_u16());
    answer
}

/// Performs the calls, one after the other where that matters.
async fn calls(
    peer: IpAddr,
    method: &str,
    request: Request<Incoming>,
    services: &Services,
) -> Result<(Vec<u8>, u16), Failure> {
    let settings = services.settings();
    let rights = settings.api_keys.authorise(peer, key(&request)).map_err(|failure| match failure.code {
        ErrorCode::Unauthorized => Failure::new(failure.code, "send X-API-Key with one of api.keys"),
        _ => failure,
    })?;
    let within = traceparent(request.headers());
    let body = body(request, services).await?;
    let (calls, shape) = api::decode(method, &body);
    let answers = perform_all(calls, shape.is_ordered(), &rights, (&settings.policy, within), services).await;
    Ok(api::encode(&shape, &answers))
}

/// What is wrong with a request as such is told by its status too.
fn refusal(failure: &Failure) -> Answer {
    let status = StatusCode::from_u16(failure.code.http_status()).expect("the table holds HTTP statuses");
    http::json(status, api::encode_failure(failure))
}
