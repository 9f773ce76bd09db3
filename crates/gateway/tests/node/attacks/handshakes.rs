//! Attacks before there is a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fanfare_testbed::authority::GOOD;
use fanfare_testbed::raw_peer::HANDSHAKE;
use fanfare_testbed::{Authority, Client, PATIENCE, http};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::iter;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval, timeout};

use super::scene::{Scene, Stream, gateway};
use crate::auth::token;
use crate::support::socket_from;
use crate::tls;

/// Sends a byte again and again until it is hung up on; what was answered.
async fn drip(address: SocketAddr, beginning: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
    socket.write_all(beginning.as_bytes()).await.expect("it reads");
    let (mut reading, mut writing) = socket.split();
    let dripping = async {
        let mut pace = interval(Duration::from_millis(50));
        while writing.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    };
    let mut heard = Vec::new();
    let reading = timeout(PATIENCE, reading.read_to_end(&mut heard));
    tokio::select! {
        ended = reading => drop(ended.expect("the gateway hangs up")),
        () = dripping => {}
    }
    String::from_utf8_lossy(&heard).into_owned()
}

/// Slowloris: heads that never end.
pub(super) async fn slow_heads(address: SocketAddr, count: usize) {
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nX-Slow: ";
    join_all((0..count).map(|_| drip(address, head))).await;
}

/// The same with bodies.
pub(super) async fn slow_bodies(address: SocketAddr, count: usize) {
    let head = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
    for answer in join_all((0..count).map(|_| drip(address, head))).await {
        // What is behind a reset is lost, be it all of the answer.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}

/// Bodies in pieces of one byte, of which the last never comes.
pub(super) async fn piecemeal(address: SocketAddr, count: usize) {
    let bodies = (0..count).map(async |_| {
        let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
        socket.set_nodelay(true).expect("a socket option");
        let head = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
        socket.write_all(head.as_bytes()).await.expect("it reads");
        for _ in 0..3_000 {
            // Its time may be over.
            if socket.write_all(b" ").await.is_err() {
                return;
            }
            // The gateway takes a piece before the next one comes.
            tokio::task::yield_now().await;
        }
    });
    join_all(bodies).await;
}

/// Posts in the name of conversations that were never held, on nodes that are not there.
pub(super) async fn made_up_tickets(address: SocketAddr, count: usize) {
    let posts = (0..count).map(async |number: usize| {
        let ticket = format!("Authorization: Ticket node-{number}.{number:032x}");
        let answer = http::post(address, "/publish", &[&ticket], r#"{"channel":"a","data":1}"#).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
    });
    join_all(posts).await;
}

/// Tokens that are none, and tokens of somebody else.
pub(super) async fn bad_tokens(address: SocketAddr, count: usize) {
    let forged = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmVkIGJ5IG5vYm9keSBhdCBhbGwsIGluIHZhaW4";
    for number in 0..count {
        let token = if number % 2 == 0 { forged } else { "a.b.c" };
        let socket = socket_from("127.0.0.31", address).await;
        assert_eq!(Client::on_with_token(socket, address, token).await.err(), Some(Some(401)));
    }
}

/// Heads that are longer than any may be, and heads without end.
pub(super) async fn long_heads(address: SocketAddr, count: usize) {
    let endless = async |_| {
        let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
        let mut sent = 0;
        let line = format!("X-Filling: {}\r\n", "y".repeat(1000));
        let _ = socket.write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\n").await;
        while socket.write_all(line.as_bytes()).await.is_ok() {
            sent += line.len();
            assert!(sent < 32 << 20, "{sent} bytes of a head are taken");
        }
    };
    join_all((0..count).map(endless)).await;
}

/// A socket from this address, if it is let in so far.
async fn connect_from(source: &str, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source.parse::<IpAddr>().expect("an address"), 0).into())?;
    socket.connect(address).await
}

/// How many handshakes from one address were answered by 101, by 429, or not at all.
pub(super) async fn flood(source: &str, address: SocketAddr, count: usize) -> [usize; 3] {
    let attempts = iter(0..count).map(|_| async {
        let Ok(mut socket) = connect_from(source, address).await else { return 2 };
        let _ = socket.write_all(HANDSHAKE.as_bytes()).await;
        match http::read_head(&mut socket, &mut Vec::new()).await {
            Ok(answer) if answer.status == 101 => 0,
            Ok(answer) => {
                assert_eq!(answer.status, 429, "{}", answer.head);
                1
            }
            Err(_) => 2,
        }
    });
    let mut outcomes = [0; 3];
    attempts
        .buffer_unordered(50)
        .for_each(|outcome| {
            outcomes[outcome] += 1;
            async {}
        })
        .await;
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_are_hung_up_on() {
    let mut scene = Scene::start(&["limits.header_seconds=1"]).await;
    scene.withstands(async |address| slow_heads(address, 300).await).await;
    let refused = scene.samples().await.value("fanfare_handshakes_refused_total{reason=\"header_timeout\"}");
    assert!(refused >= 300.0, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_are_hung_up_on() {
    let mut scene = Scene::start(&["limits.header_seconds=1"]).await;
    scene.withstands(async |address| slow_bodies(address, 300).await).await;
}

/// A piece of one byte is read into a buffer of thousands: none is kept for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_pieces_of_one_byte_weighs_what_it_says() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| piecemeal(address, 20).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_heads_are_refused_at_their_bound() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| long_heads(address, 100).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_handshakes_from_one_address_come_to_its_share() {
    let mut scene = Scene::start(&["limits.handshakes_per_second_per_ip=50"]).await;
    let began = Instant::now();
    let mut outcomes = [0; 3];
    scene.withstands(async |address| outcomes = flood("127.0.0.40", address, 10_000).await).await;
    let share = 50 * (usize::try_from(began.elapsed().as_secs()).expect("a moment") + 2);
    let [welcome, told, untold] = outcomes;
    assert!(welcome <= share && told <= share, "{outcomes:?} of a share of {share}");
    assert_eq!(welcome + told + untold, 10_000);
}

/// Many addresses: nothing of them is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_from_thousands_of_addresses_leave_nothing_behind() {
    let settings = [
        "limits.handshakes_per_second_per_ip=1",
        "limits.handshakes_burst_per_ip=50",
        "limits.connections_per_ip=50",
    ];
    let mut scene = Scene::start(&settings).await;
    scene
        .withstands(async |address| {
            let attempts = iter(0..5_000_u32).map(|it| async move {
                let source = format!("127.{}.{}.{}", 3 + it / 62_500, it / 250 % 250, it % 250 + 1);
                let mut socket = socket_from(&source, address).await;
                let _ = socket.write_all(HANDSHAKE.as_bytes()).await;
                let answer = http::read_head(&mut socket, &mut Vec::new()).await.expect("it is answered");
                assert_eq!(answer.status, 101, "{source}: {}", answer.head);
            });
            attempts.buffer_unordered(50).for_each(|()| async {}).await;
        })
        .await;
}

/// Sockets that say nothing, half of a hello, or other things, where TLS is spoken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_tls_handshakes_are_hung_up_on() {
    let authority = Authority::new();
    let files = authority.issue("node", GOOD);
    let config = Arc::new(authority.client(&["http/1.1"], None));
    let settings = [
        format!("tls.cert={}", files.cert.display()),
        format!("tls.key={}", files.key.display()),
        "tls.handshake_seconds=1".into(),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let mut scene = Scene::of(gateway(&settings).await, async |gateway| {
        let socket = socket_from("127.0.0.20", gateway.public()).await;
        let stream = tls::connect_over(socket, &config).await.expect("the hands are shaken");
        Client::on(Box::new(stream) as Box<dyn Stream>, gateway.public()).await.expect("it is let in")
    })
    .await;
    scene
        .withstands(async |address| {
            let idle = async |number: usize| {
                let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
                let said: &[u8] = match number % 3 {
                    0 => b"",
                    1 => b"\x16",
                    _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                };
                socket.write_all(said).await.expect("it reads");
                let mut rest = Vec::new();
                let ended = timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
                drop(ended.expect("the gateway hangs up"));
            };
            join_all((0..300).map(idle)).await;
        })
        .await;
    let timeouts = scene.samples().await.value("fanfare_tls_handshakes_total{outcome=\"timeout\"}");
    assert!((timeouts - 300.0).abs() < 0.5, "{timeouts}");
}

/// Sockets that open a conversation and do not say who they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unauthenticated_connections_are_closed_at_the_deadline() {
    let settings = [
        "auth.jwt.hmac_secret=a secret of thirty-two bytes and a few more",
        "auth.anonymous=false",
        "auth.timeout_seconds=1",
    ];
    let bearer = token(&json!({}));
    let mut scene = Scene::of(gateway(&settings).await, async |gateway| {
        let socket = socket_from("127.0.0.20", gateway.public()).await;
        let socket = Box::new(socket) as Box<dyn Stream>;
        Client::on_with_token(socket, gateway.public(), &bearer).await.expect("it is let in")
    })
    .await;
    scene
        .withstands(async |address| {
            let silent = async |_| {
                let mut client = Client::knock(address, "/ws", &[]).await.expect("a conversation begins");
                assert_eq!(client.goodbye().await.code, Some(4401));
            };
            join_all((0..500).map(silent)).await;
        })
        .await;
}
