//! A conversation over a WebSocket.

use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::line::{Bytes, EVENT_BYTES_MAX, Gone, Next, PATIENCE, connect};
use crate::options::{Options, Target};

/// The most commands in a batch; the server's bound is 128 unless configured.
const BATCH_MAX: usize = 64;

/// An open WebSocket.
pub(crate) struct Socket {
    stream: WebSocketStream<Box<dyn Bytes>>,
    /// The longest message that the server takes.
    pub(crate) message_bytes: usize,
}

impl Socket {
    pub(crate) async fn open(
        options: &Options,
        target: &Target,
        token: Option<String>,
    ) -> Result<Self, Gone> {
        let stream = connect(target).await?;
        let upgraded = timeout(PATIENCE, upgrade(options, stream, token)).await;
        let stream =
            upgraded.unwrap_or_else(|_| Err(Gone::because("the server does not answer").blocked()))?;
        Ok(Self { stream, message_bytes: usize::MAX })
    }

    /// Sends commands in their order, as few batches as their bytes allow.
    pub(crate) async fn say(&mut self, commands: &mut Vec<String>) -> Result<(), Gone> {
        let mut commands = commands.drain(..).peekable();
        while let Some(first) = commands.next() {
            let mut batch = first;
            let mut count = 1;
            let fits = |batch: &str, next: &String| batch.len() + next.len() + 3 <= self.message_bytes;
            while count < BATCH_MAX
                && let Some(next) = commands.next_if(|next| fits(&batch, next))
            {
                if count == 1 {
                    batch.insert(0, '[');
                }
                batch.push(',');
                batch.push_str(&next);
                count += 1;
            }
            if count > 1 {
                batch.push(']');
            }
            match timeout(PATIENCE, self.stream.send(Message::text(batch))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Gone::because(error.to_string())),
                Err(_) => return Err(Gone::because("the server takes nothing")),
            }
        }
        Ok(())
    }

    /// The next event, or none for another sign of life.
    pub(crate) async fn next(&mut self) -> Result<Option<Utf8Bytes>, Gone> {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => Ok(Some(text)),
            Some(Ok(Message::Close(Some(frame)))) => {
                Err(Gone::closed(frame.code.into(), frame.reason.as_str().to_owned()))
            }
            Some(Ok(Message::Close(None))) | None => Err(Gone::because("the server closed the connection")),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(Gone::because(error.to_string())),
        }
    }

    /// Says goodbye, and waits until the server has too.
    pub(crate) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("normal") };
        let _ = self.stream.send(Message::Close(Some(frame))).await;
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

async fn upgrade(
    options: &Options,
    stream: Box<dyn Bytes>,
    token: Option<String>,
) -> Result<WebSocketStream<Box<dyn Bytes>>, Gone> {
    let request = options.url.as_str().into_client_request();
    let mut request = request.map_err(|error| Gone::because(error.to_string()))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("fanfare.v1.json"));
    if let Some(token) = token {
        request.headers_mut().insert("Authorization", credentials("Bearer", &token)?);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(EVENT_BYTES_MAX))
        .max_frame_size(Some(EVENT_BYTES_MAX));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let seconds = answer.headers().get("Retry-After").and_then(|it| it.to_str().ok()?.parse().ok());
            Err(Gone::refused(answer.status().as_u16(), seconds.map(std::time::Duration::from_secs)))
        }
        Err(error) => Err(Gone::because(error.to_string()).blocked()),
    }
}

/// The value of `Authorization`.
pub(crate) fn credentials(scheme: &str, secret: &str) -> Result<HeaderValue, Gone> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {secret}")).map_err(|_| Gone {
        next: Next::WithAnotherToken,
        ..Gone::because("the token has characters that a header cannot have")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
