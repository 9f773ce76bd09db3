//! The task that speaks: `POST /publish`, one after the other, on a connection that is kept while the server keeps it.

use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::request::{Answer, Request, on_a_connection, retry_after, send};
use super::{Came, Speaker, Ticket};
use crate::line::{Gone, PATIENCE, connect};
use crate::options::Target;
use crate::socket::credentials;

/// A command, with its id.
type Post = (Option<u64>, String);

/// Posts until there is nobody who would want it, or it fails.
pub(super) async fn post_all(
    target: Target,
    mut posts: mpsc::Receiver<Post>,
    mut speaker: watch::Receiver<Speaker>,
    near: mpsc::Sender<Came>,
) {
    let mut next = posts.recv().await;
    while let Some(first) = next {
        let stream = connect(&target).await;
        let on_it = async |mut sender: SendRequest<Full<Bytes>>| {
            let mut post = Some(first);
            while let Some((id, text)) = post {
                let answer = say(&target, &mut sender, &mut speaker, &text).await?;
                let _ = near.send(Came::Answer(answered(id, &answer)?)).await; // Whoever has gone does not want to know.
                post = posts.recv().await;
                // Nobody keeps a connection for ever. What comes later goes on another.
                if post.is_some() && sender.ready().await.is_err() {
                    return Ok(post);
                }
            }
            Ok(None)
        };
        let outcome = match stream {
            Ok(stream) => on_a_connection(stream, on_it).await,
            Err(gone) => Err(gone),
        };
        next = match outcome {
            Ok(next) => next,
            Err(gone) => {
                // It may have arrived. What is under way is judged as after any other loss.
                let _ = near.send(Came::Mute(gone)).await; // As above.
                return;
            }
        };
    }
}

async fn say(
    target: &Target,
    sender: &mut SendRequest<Full<Bytes>>,
    speaker: &mut watch::Receiver<Speaker>,
    text: &str,
) -> Result<Answer, Gone> {
    loop {
        let ready = speaker.wait_for(|it| it.ticket != Ticket::Pending).await;
        let Speaker { token, ticket } = ready.map_err(|_| Gone::because("nobody listens"))?.clone();
        let bearer = token.map(|token| credentials("Bearer", &token)).transpose()?;
        let Ticket::Of(ticket) = ticket else { return post(target, sender, bearer, text).await };
        let answer = post(target, sender, Some(credentials("Ticket", &ticket)?), text).await?;
        if answer.status.is_success() || answer.status.is_server_error() {
            return Ok(answer);
        }
        // A ticket that has been replaced meanwhile proves nothing.
        if speaker.borrow().ticket == Ticket::Of(ticket) {
            // The node that had it may be gone: the token has to do, or nobody's name.
            return if answer.status == StatusCode::NOT_FOUND {
                post(target, sender, bearer, text).await
            } else {
                Ok(answer)
            };
        }
    }
}

async fn post(
    target: &Target,
    sender: &mut SendRequest<Full<Bytes>>,
    authorization: Option<HeaderValue>,
    text: &str,
) -> Result<Answer, Gone> {
    sender.ready().await?;
    let request = Request::post(target, "/publish", authorization, Bytes::copy_from_slice(text.as_bytes()))?
        .into_parts();
    let answer = timeout(PATIENCE, send(sender, request)).await;
    answer.unwrap_or_else(|_| Err(Gone::because("the server does not answer")))
}

/// As a WebSocket would have said it. A proxy answers in words of its own where it reaches no node.
fn answered(id: Option<u64>, answer: &Answer) -> Result<String, Gone> {
    let status = answer.status.as_u16();
    if answer.status == StatusCode::UNAUTHORIZED {
        return answer.succeeded().map(|()| String::new());
    }
    let said = serde_json::from_slice::<Map<String, Value>>(&answer.body).unwrap_or_default();
    let mut event = Map::new();
    if !answer.status.is_success() {
        let code = if answer.status.is_server_error() { 4503 } else { 4000 + status };
        let retry_after =
            retry_after(&answer.headers).map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        let reason = format!("status {status}");
        let error = json!({"type": "error", "code": code, "reason": reason, "retry_after": retry_after});
        event.extend(error.as_object().cloned().unwrap_or_default());
    }
    event.extend(said);
    event.insert("id".into(), json!(id));
    Ok(Value::Object(event).to_string())
}
