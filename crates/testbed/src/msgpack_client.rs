//! A client that speaks `fanfare.v1.msgpack`, with `rmpv` for its eyes and mouth.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use rmpv::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::eventually::PATIENCE;

/// A connected client.
#[derive(Debug)]
pub struct MsgpackClient {
    socket: WebSocketStream<TcpStream>,
}

impl MsgpackClient {
    /// Connects, and waits for `welcome`.
    ///
    /// # Panics
    /// When it is not let in, or another subprotocol is chosen.
    pub async fn connect(address: SocketAddr) -> Self {
        const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("fanfare.v1.msgpack");
        let mut request = format!("ws://{address}/ws").into_client_request().expect("an address makes a URL");
        request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL);
        let socket = TcpStream::connect(address).await.expect("the gateway listens");
        let handshake = tokio_tungstenite::client_async(request, socket);
        let (socket, response) =
            timeout(PATIENCE, handshake).await.expect("the handshake is answered").expect("it is let in");
        assert_eq!(response.headers().get("Sec-WebSocket-Protocol"), Some(&SUBPROTOCOL));
        let mut client = Self { socket };
        assert_eq!(client.event().await["type"].as_str(), Some("welcome"));
        client
    }

    /// Sends a command, or a batch of them.
    ///
    /// # Panics
    /// When the connection has ended.
    pub async fn send(&mut self, command: &Value) {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, command).expect("memory takes every write");
        self.send_frame(Message::binary(bytes)).await;
    }

    /// Sends any message.
    ///
    /// # Panics
    /// When the connection has ended.
    pub async fn send_frame(&mut self, message: Message) {
        timeout(PATIENCE, self.socket.send(message))
            .await
            .expect("the gateway reads")
            .expect("the connection is open");
    }

    /// The next event.
    ///
    /// # Panics
    /// When none comes, or it is no single value of MessagePack in a binary message.
    pub async fn event(&mut self) -> Value {
        loop {
            match self.frame().await {
                Message::Binary(bytes) => {
                    let mut rest = &bytes[..];
                    let event = rmpv::decode::read_value(&mut rest).expect("an event is MessagePack");
                    assert!(rest.is_empty(), "an event is one value");
                    return event;
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("waited for an event and heard {other:?}"),
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// When none comes.
    pub async fn frame(&mut self) -> Message {
        let next = timeout(PATIENCE, self.socket.next()).await.expect("the gateway has something to say");
        next.expect("the connection is open").expect("it says it well")
    }

    /// Sends a command, and takes the next event for the answer.
    ///
    /// # Panics
    /// When it is not of this type.
    pub async fn ask(&mut self, command: &Value, answer: &str) -> Value {
        self.send(command).await;
        let event = self.event().await;
        assert_eq!(event["type"].as_str(), Some(answer), "{event}");
        event
    }
}
