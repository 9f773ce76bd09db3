//! `/echo`, which conformance suites talk to: there when asked for, and as well-mannered as `/ws`.

use std::time::Duration;

use fanfare_gateway::node::Node;
use fanfare_testbed::http;
use fanfare_testbed::raw_peer::HANDSHAKE;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{configured, node, start};

async fn echoing(text: &str) -> Node {
    let mut config = configured(text);
    config.echo = true;
    start(&config).await
}

async fn connect(node: &Node, socket: TcpStream) -> WebSocketStream<TcpStream> {
    client_async(format!("ws://{}/echo", node.public_addr()), socket).await.expect("it is let in").0
}

#[tokio::test]
async fn nothing_echoes_unless_asked_for() {
    let node = node("").await;
    let request = HANDSHAKE.replace("/ws", "/echo");
    assert_eq!(http::exchange(node.public_addr(), request.as_bytes()).await.unwrap().status, 404);
}

#[tokio::test]
async fn messages_come_back_in_order_and_a_close_with_its_code() {
    let node = echoing("[limits]\nmessage_bytes = 100000").await;
    let mut socket = connect(&node, TcpStream::connect(node.public_addr()).await.unwrap()).await;
    let said = [Message::text("a"), Message::binary(vec![7; 100_000]), Message::text("")];
    for message in &said {
        socket.feed(message.clone()).await.unwrap();
    }
    socket.flush().await.unwrap();
    for message in said {
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::binary(vec![7; 100_001])).await.unwrap();
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("it is too big") };
    assert_eq!(u16::from(close.code), 1009);
}

/// Who does not read is not read either: what the node holds is bounded by that, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_not_read() {
    const EACH: usize = 50_000;
    let node = echoing("").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    let socket = socket.connect(node.public_addr()).await.unwrap();
    let (mut writer, mut reader) = connect(&node, socket).await.split();
    let mut sent = 0;
    // The kernel's buffers hold some megabytes; then no more is taken.
    while let Ok(taken) =
        tokio::time::timeout(Duration::from_millis(500), writer.send(Message::binary(vec![1; EACH]))).await
    {
        taken.unwrap();
        sent += 1;
        assert!(sent < 10_000, "500 MB are somewhere");
    }
    for _ in 0..sent {
        assert_eq!(reader.next().await.unwrap().unwrap().len(), EACH);
    }
}

/// A drain tells an echo to go like everybody else.
#[tokio::test]
async fn a_drain_ends_it() {
    let node = echoing("[node]\ndrain_seconds = 0").await;
    let mut socket = connect(&node, TcpStream::connect(node.public_addr()).await.unwrap()).await;
    let heard = async {
        let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("it is told to go") };
        assert_eq!(u16::from(close.code), 1001);
        assert!(socket.next().await.is_none_or(|it| it.is_err()));
    };
    tokio::join!(node.drain(), heard);
}
