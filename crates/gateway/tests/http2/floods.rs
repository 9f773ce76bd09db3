//! What a hostile peer of HTTP/2 sends, frame by frame, and where it ends.

use std::time::Duration;

use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, Http2, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::nodes::{configured, counted, node, start};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `GET http://a/health`, from the static table as far as it goes.
const GET: &[u8] = b"\x82\x86\x04\x07/health\x41\x01a";

/// `CONNECT`, `:protocol websocket`, `http://a/ws`, `sec-websocket-version: 13`.
const CONNECT: &[u8] =
    b"\x02\x07CONNECT\x86\x04\x03/ws\x41\x01a\x00\x09:protocol\x09websocket\x00\x15sec-websocket-version\x0213";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A frame of the gateway's: kind, flags, stream, payload. None at the end of the socket.
async fn read(socket: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    timeout(PATIENCE, socket.read_exact(&mut head)).await.expect("the gateway goes on").ok()?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    timeout(PATIENCE, socket.read_exact(&mut payload)).await.expect("the gateway goes on").ok()?;
    Some((kind, flags, u32::from_be_bytes(stream), payload))
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.last_chunk().unwrap())
}

/// The error of the first GOAWAY; none if the socket just ends.
async fn goaway(socket: &mut TcpStream) -> Option<u32> {
    while let Some((kind, _, _, payload)) = read(socket).await {
        if kind == GOAWAY {
            return payload.get(4..8).map(code);
        }
    }
    None
}

async fn hello(node: &Node) -> TcpStream {
    let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await.unwrap();
    socket
}

/// CVE-2023-44487: streams that are opened and reset faster than they are served.
#[tokio::test]
async fn rapid_resets_end_in_goaway_and_cost_nobody_else() {
    let node = node("").await;
    let mut client = Client::connect(node.public_addr()).await;
    let mut socket = hello(&node).await;
    let mut flood = Vec::new();
    for stream in (1..2_000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let (mut reading, mut writing) = socket.split();
    let mut heard = Vec::new();
    let _ = tokio::join!(writing.write_all(&flood), timeout(PATIENCE, reading.read_to_end(&mut heard)));
    let calm = [&[GOAWAY, 0, 0, 0, 0, 0][..]].concat();
    let at = heard.windows(6).position(|it| it == calm).expect("GOAWAY comes");
    assert_eq!(code(&heard[at + 10..at + 14]), ENHANCE_YOUR_CALM);
    client.assert_silence().await;
}

/// Headers in CONTINUATION frames without end: the bound is that of all headers, wherever they are cut.
#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let node = node("").await;
    let mut socket = hello(&node).await;
    // A literal header that is never indexed, again and again.
    let lines = b"\x10\x01x\x7e"
        .iter()
        .copied()
        .chain(std::iter::repeat_n(b'y', 126))
        .collect::<Vec<_>>()
        .repeat(100);
    socket.write_all(&frame(HEADERS, END_STREAM, 1, GET)).await.unwrap();
    let (mut reading, mut writing) = socket.split();
    let endless = async {
        let mut sent = 0;
        while writing.write_all(&frame(CONTINUATION, 0, 1, &lines)).await.is_ok() {
            sent += lines.len();
            assert!(sent < 64 << 20, "{sent} bytes of headers are taken");
        }
    };
    let mut heard = Vec::new();
    let end = timeout(PATIENCE, async { tokio::join!(endless, reading.read_to_end(&mut heard)) }).await;
    assert!(end.is_ok(), "the socket ends");
    Client::connect(node.public_addr()).await.assert_silence().await;
}

#[tokio::test]
async fn a_request_with_too_many_headers_is_refused_alone() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let url = format!("http://{}/health", node.public_addr());
    let request = http::Request::get(url).header("cookie", "c".repeat(20_000)).body(()).unwrap();
    assert_eq!(http2.request(request).await.status(), 431);
    assert_eq!(http2.get("/health").await.status(), 200);
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_one_by_one() {
    let node = node("[limits]\nstreams = 2").await;
    let mut socket = hello(&node).await;
    for stream in [1, 3, 5] {
        socket.write_all(&frame(HEADERS, END_HEADERS, stream, CONNECT)).await.unwrap();
    }
    let refused = loop {
        match read(&mut socket).await.expect("the socket lives") {
            (RST_STREAM, _, stream, payload) => break (stream, code(&payload)),
            (SETTINGS, 0, _, payload) => {
                let settings: Vec<_> = payload.chunks(6).map(|it| (it[1], code(it))).collect();
                // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL.
                for told in [(3, 2), (4, 65_536), (6, 16_384), (8, 1)] {
                    assert!(settings.contains(&told), "{told:?} is not in {settings:?}");
                }
            }
            _ => {}
        }
    };
    assert_eq!(refused, (5, REFUSED_STREAM));
    counted(&node, "fanfare_connections", 2.0).await;
}

/// Every PING has its answer, none is lost or doubled, and the others are served meanwhile.
#[tokio::test]
async fn a_flood_of_pings_and_settings_is_answered_and_holds_up_nobody() {
    let node = node("").await;
    let mut client = Client::connect(node.public_addr()).await;
    let mut socket = hello(&node).await;
    let (mut reading, mut writing) = socket.split();
    let flood = async {
        for number in 0..20_000_u64 {
            let ping = frame(PING, 0, 0, &number.to_be_bytes());
            writing.write_all(&[ping, frame(SETTINGS, 0, 0, b"")].concat()).await.unwrap();
        }
        writing
    };
    let answers = async {
        let (mut pongs, mut acknowledged) = (0, 0);
        let mut unread = Vec::new();
        while pongs < 20_000 || acknowledged < 20_001 {
            assert_ne!(
                timeout(PATIENCE, reading.read_buf(&mut unread)).await.unwrap().unwrap(),
                0,
                "it ends"
            );
            while let Some(&[a, b, c, kind, flags, ..]) = unread.first_chunk::<9>() {
                let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                let Some(payload) = unread.get(9..length) else { break };
                match (kind, flags) {
                    (PING, 1) => {
                        assert_eq!(payload, u64::to_be_bytes(pongs));
                        pongs += 1;
                    }
                    (SETTINGS, 1) => acknowledged += 1,
                    _ => {}
                }
                unread.drain(..length);
            }
        }
    };
    let (_writing, (), ()) = tokio::join!(flood, answers, client.assert_silence());
}

/// A peer that begins and asks for nothing goes, whatever it has begun with.
#[tokio::test]
async fn whoever_opens_no_stream_is_let_go_in_time() {
    let mut config = configured("");
    config.limits.header_timeout = Duration::from_millis(300);
    let node = start(&config).await;
    let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
    socket.write_all(&PREFACE[..20]).await.unwrap();
    assert_eq!(read(&mut socket).await, None, "half a preface");
    counted(&node, "fanfare_handshakes_refused_total{reason=\"header_timeout\"}", 1.0).await;

    let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    while read(&mut socket).await.is_some() {} // No SETTINGS after it.

    let mut socket = hello(&node).await;
    assert_eq!(goaway(&mut socket).await, Some(0), "no stream");

    // Headers that never end are no stream.
    let mut socket = hello(&node).await;
    socket.write_all(&frame(HEADERS, END_STREAM, 1, GET)).await.unwrap();
    assert_eq!(goaway(&mut socket).await, Some(0), "half a stream");

    // One with a WebSocket stays, silent as it is.
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut client = http2.websocket().await;
    let mut idle = hello(&node).await;
    assert_eq!(goaway(&mut idle).await, Some(0), "and so much time has passed");
    let mut idle = hello(&node).await;
    assert_eq!(goaway(&mut idle).await, Some(0), "twice");
    client.assert_silence().await;
}
