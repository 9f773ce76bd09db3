//! The server API on the internal listener: flavour → [`ApiCall`] → hub → flavour.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use fanfare_metrics::ApiMethod;
use fanfare_protocol::command::Rejection;
use fanfare_protocol::depth;
use fanfare_protocol::dialect::native;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::history::Excerpt;
use fanfare_protocol::limits::Bound;
use fanfare_protocol::publication::Draft;
use fanfare_protocol::server_api::{ApiCall, ApiReply};
use fanfare_protocol::session::Policy;
use fanfare_protocol::trace::TraceContext;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;
use tracing::debug;

use crate::connection::{broker_failure, count, exceeded};
use crate::hooks::About;
use crate::http::{self, Answer};
use crate::node::Services;
use crate::spans::{Kind, Value as Fact};
use crate::trace::{self, By};
use crate::{census, orders};

/// What the JSON around the data may add to `limits.message_bytes`.
const ENVELOPE_BYTES: usize = 4096;

/// The most calls of one request that are performed at the same time.
const AT_ONCE: usize = 64;

mod ingest;
mod keyed;
mod log;
mod openapi;
mod rights;

pub(crate) use rights::{Keys, Rights};

/// Answers one call.
pub(crate) async fn answer(peer: IpAddr, request: Request<Incoming>, services: &Arc<Services>) -> Answer {
    if let Err(why) = services.settings().api_keys.examine(&request) {
        return http::failure(&why);
    }
    if services.settings().offer.is_some() && keyed::presents_key(&request) {
        return keyed::answer(peer, request, services).await;
    }
    let method = request.uri().path().trim_start_matches("/api/").to_owned();
    if method == "openapi.json" {
        return http::only_get(request.method(), || http::json(StatusCode::OK, openapi::served()));
    }
    if method == "rights" {
        return http::only_get(request.method(), || rights_of(peer, request.headers(), services));
    }
    let label = label(&method);
    if method == "trace" {
        let answer = trace::answer(peer, &request, services);
        services.metrics.api_request(label, answer.status().as_u16());
        return answer;
    }
    let from = traceparent(request.headers());
    let begun = services.spans.begin(from.as_ref(), services.clock.unix());
    // Whether it is recorded is decided once.
    let unrecorded = || services.spans.is_on().then(|| trace::new_trace(false));
    let within = begun.map(|begun| begun.context).or(from).or_else(unrecorded);
    let answer = if request.method() != Method::POST {
        http::use_instead("POST")
    } else if method == "ingest" {
        ingest::answer(peer, request, within, services).await
    } else {
        match call(peer, &method, request, within, services).await {
            Ok(reply) => http::json(StatusCode::OK, reply),
            Err(failure) => http::failure(&failure),
        }
    };
    let status = answer.status().as_u16();
    services.metrics.api_request(label, status);
    if let Some(within) = within {
        debug!(method = label.as_str(), status, trace = %within.trace, "a call was answered");
    }
    if let Some(begun) = begun {
        let facts = vec![
            ("http.request.method", Fact::text("POST")),
            ("url.path", Fact::text(&format_args!("/api/{}", label.as_str()))),
            ("http.response.status_code", Fact::number(status)),
        ];
        let failed = (status >= 500).then(|| Failure::new(ErrorCode::Unavailable, "the call failed"));
        let ended = services.clock.unix();
        services.spans.end(begun, (Kind::Server, label.as_str()), ended, facts, failed.as_ref());
    }
    answer
}

/// The trace that a request belongs to, where its caller says so.
fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get("traceparent")?.to_str().ok()?)
}

/// What the caller may do.
fn rights_of(peer: IpAddr, headers: &HeaderMap, services: &Services) -> Answer {
    match services.settings().api_keys.authorise(peer, bearer(headers)) {
        Ok(rights) => http::json(StatusCode::OK, rights.told()),
        Err(failure) => http::failure(&failure),
    }
}

fn label(method: &str) -> ApiMethod {
    match method {
        "publish" | "broadcast" => ApiMethod::Publish,
        "presence" | "presence_stats" => ApiMethod::Presence,
        "history" => ApiMethod::History,
        "channels" => ApiMethod::Channels,
        "history/remove" | "history_remove" => ApiMethod::RemoveHistory,
        "disconnect" => ApiMethod::Disconnect,
        "revoke" => ApiMethod::Revoke,
        "refresh" => ApiMethod::Refresh,
        "subscribe" => ApiMethod::Subscribe,
        "unsubscribe" => ApiMethod::Unsubscribe,
        "connections" => ApiMethod::Connections,
        "nodes" | "info" => ApiMethod::Nodes,
        "rpc" => ApiMethod::Call,
        "batch" => ApiMethod::Batch,
        "ingest" => ApiMethod::Ingest,
        "log" => ApiMethod::Log,
        "trace" => ApiMethod::Trace,
        _ => ApiMethod::Other,
    }
}

async fn call(
    peer: IpAddr,
    method: &str,
    request: Request<Incoming>,
    within: Option<TraceContext>,
    services: &Services,
) -> Result<Vec<u8>, Failure> {
    let settings = services.settings();
    let rights = settings.api_keys.authorise(peer, bearer(request.headers()))?;
    let body = body(request, services).await?;
    if method == "log" {
        rights.check_node()?;
        return log::answer(&body);
    }
    let (calls, shape) = native::api::decode_all(method, &body)?;
    let answers = perform_all(calls, shape.is_ordered(), &rights, (&settings.policy, within), services).await;
    native::api::encode_all(shape, answers)
}

/// Performs the calls of one request, one after the other where a call may depend on those before it.
async fn perform_all(
    calls: Vec<Result<ApiCall, Failure>>,
    is_ordered: bool,
    rights: &Rights,
    (policy, within): (&Policy, Option<TraceContext>),
    services: &Services,
) -> Vec<Result<ApiReply, Failure>> {
    stream::iter(calls)
        .map(|call| async {
            let call = call?;
            rights.check(&call)?;
            perform_within(within, call, policy, services).await.map(|mut reply| {
                rights.redact(&mut reply);
                reply
            })
        })
        .buffered(if is_ordered { 1 } else { AT_ONCE })
        .collect()
        .await
}

/// The body of a call, which is no larger and no deeper than it may be.
async fn body(request: Request<Incoming>, services: &Services) -> Result<Bytes, Failure> {
    let settings = services.settings();
    let most = settings.policy.limits.message_bytes + ENVELOPE_BYTES;
    let body = read(request.into_body(), most, settings.header_timeout).await?;
    let limits = &settings.policy.limits;
    if depth::json_exceeds(&body, limits.depth) {
        exceeded(&services.metrics, limits, Bound::Depth);
        if !limits.trial.covers(Bound::Depth) {
            return Err(Rejection::too_deep(limits.depth).failure);
        }
    }
    Ok(body)
}

/// The key of `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let presented = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = presented.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Does what a backend asks.
pub(crate) async fn perform(
    call: ApiCall,
    policy: &Policy,
    services: &Services,
) -> Result<ApiReply, Failure> {
    perform_within(None, call, policy, services).await
}

/// The same, as part of a trace.
async fn perform_within(
    within: Option<TraceContext>,
    call: ApiCall,
    policy: &Policy,
    services: &Services,
) -> Result<ApiReply, Failure> {
    match call {
        ApiCall::Publish { channel, payload, key, exclude } => {
            let retention = policy.rules.rule(&channel)?.check(&payload, key.as_ref())?;
            let draft = Draft {
                channel: channel.clone(),
                payload,
                sender: None,
                exclude,
                received: services.clock.unix(),
                retention,
                key,
                trace: within.map(Box::new),
            };
            policy.limits.check(&draft)?;
            let position = trace::publish(services, draft, By::Api).await?;
            Ok(ApiReply::Published { channel, position })
        }
        ApiCall::History { channel, since, limit, reverse } => {
            policy.rules.rule(&channel)?.keeps_history()?;
            let excerpt = Excerpt { since, limit, reverse };
            let page = services
                .hub
                .history(&channel, excerpt.query())
                .await
                .map_err(|error| broker_failure(&error))?;
            Ok(ApiReply::Past { channel, page: excerpt.of(page)? })
        }
        ApiCall::Presence { channel, members } => {
            policy.rules.rule(&channel)?.knows_presence()?;
            let crowd = count(&services.desk, &channel, members, usize::MAX).await?;
            Ok(ApiReply::Present { channel, crowd })
        }
        ApiCall::Channels { within } => {
            let channels = services.desk.channels(&within).await.map_err(|error| broker_failure(&error))?;
            Ok(ApiReply::Channels { channels })
        }
        ApiCall::Call { method, payload } => {
            if !policy.takes_calls {
                let text = "there is no backend that could be called here: see hooks.call";
                return Err(Failure::new(ErrorCode::NotOffered, text));
            }
            let about = About { session: None, caller: None, grant: None };
            let payload = services.settings().hooks.call(about, &method, &payload, services).await?;
            Ok(ApiReply::Returned { payload })
        }
        ApiCall::RemoveHistory { channel } => {
            policy.rules.rule(&channel)?.keeps_history()?;
            services.hub.remove_history(&channel).await.map_err(|error| broker_failure(&error))?;
            Ok(ApiReply::Done)
        }
        everywhere => perform_everywhere(everywhere, policy, services).await,
    }
}

/// Does what takes the other nodes.
async fn perform_everywhere(
    call: ApiCall,
    policy: &Policy,
    services: &Services,
) -> Result<ApiReply, Failure> {
    match call {
        ApiCall::Disconnect { whom, reason } => {
            orders::disconnect(services, &whom, reason).await.map_err(|error| broker_failure(&error))?;
            Ok(ApiReply::Done)
        }
        ApiCall::Revoke { whom, ttl } => {
            orders::revoke(services, &whom, ttl).await.map_err(|error| broker_failure(&error))?;
            Ok(ApiReply::Done)
        }
        ApiCall::Refresh { whom, amendment } => {
            let ordered = orders::refresh(services, &whom, &amendment).await;
            ordered.map(|()| ApiReply::Done).map_err(|error| broker_failure(&error))
        }
        ApiCall::Subscribe { whom, channel, start, pass } => {
            policy.rules.rule(&channel)?;
            let ordered = orders::subscribe(services, &whom, &channel, start, &pass).await;
            ordered.map(|()| ApiReply::Done).map_err(|error| broker_failure(&error))
        }
        ApiCall::Unsubscribe { whom, channel } => {
            let ordered = orders::unsubscribe(services, &whom, &channel).await;
            ordered.map(|()| ApiReply::Done).map_err(|error| broker_failure(&error))
        }
        ApiCall::Connections { filter, after, limit } => {
            let roll = census::connections(services, &filter, after.as_deref(), limit).await?;
            Ok(ApiReply::Connections(roll))
        }
        ApiCall::Nodes => Ok(ApiReply::Nodes(census::nodes(services))),
        _ => unreachable!("what one node can do it does itself"),
    }
}

/// The whole body, bounded in size before it is read and in the time it may take.
///
/// It is copied as it comes. A piece of it, be it of one byte, holds the buffer that it was read into: collected as they are, the
/// pieces of a short body can hold thousands of times its length.
pub(crate) async fn read(mut body: Incoming, most: usize, patience: Duration) -> Result<Bytes, Failure> {
    let too_large = || {
        let text = format!("the body is over {most} bytes: data may have limits.message_bytes");
        Failure::new(ErrorCode::TooLarge, text)
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large()); // Its length was announced: nothing of it need come.
    }
    let reading = async {
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Failure::new(ErrorCode::BadRequest, "the body ended early"))?;
            let Ok(piece) = frame.into_data() else { continue };
            if whole.len() + piece.len() > most {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    };
    let late = || Failure::new(ErrorCode::BadRequest, "the body did not arrive in time");
    timeout(patience, reading).await.unwrap_or_else(|_| Err(late()))
}
