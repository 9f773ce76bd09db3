//! Where a network lets no WebSocket through, in the ways in which it does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanfare_client::{Client, Error, Event, Options, Subscribe, Transport};
use fanfare_testbed::{Gateway, PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Cluster, HISTORY, PUBLISH, SECRET, fresh_tokens, gateway, next, speaks, until, url};

const HTTP: [Transport; 2] = [Transport::Sse, Transport::Poll];

/// A proxy that takes no upgrade while `refuses`, and holds streams back until they end while `holds`.
struct Proxy {
    address: SocketAddr,
    refuses: Arc<AtomicBool>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    async fn start(node: &Gateway, holds: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, onward) = (listener.local_addr().unwrap(), node.public());
        let refuses = Arc::new(AtomicBool::new(true));
        let mut accepting = JoinSet::new();
        let is_refused = refuses.clone();
        accepting.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                passing.spawn(pass(near, onward, is_refused.clone(), holds));
            }
        });
        Self { address, refuses, _accepting: accepting }
    }

    fn options(&self) -> Options {
        let probe = std::time::Duration::from_millis(300);
        Options { probe, timeout: PATIENCE, ..Options::new(format!("ws://{}/ws", self.address)) }
    }
}

/// The head of a request comes in one piece on loopback, or it is passed on.
async fn pass(mut near: TcpStream, onward: SocketAddr, refuses: Arc<AtomicBool>, holds: bool) {
    let mut head = vec![0; 8192];
    let Ok(length) = near.read(&mut head).await else { return };
    let head = &head[..length];
    if head.starts_with(b"GET /ws") && refuses.load(Ordering::Relaxed) {
        let _ = near.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await; // As a proxy does.
        return;
    }
    let Ok(mut far) = TcpStream::connect(onward).await else { return };
    if far.write_all(head).await.is_err() {
        return;
    }
    if holds && head.starts_with(b"GET /sse") {
        let mut held = Vec::new();
        let _ = far.read_to_end(&mut held).await; // It does not end.
        return;
    }
    let _ = copy_bidirectional(&mut near, &mut far).await; // However it ends.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_upgrades_are_refused_a_client_goes_by_sse_and_returns_to_a_websocket() {
    let node = gateway(&[HISTORY, "namespaces.room.publish=subscribers"]).await;
    let proxy = Proxy::start(&node, false).await;
    let client = Client::start(proxy.options()).unwrap();
    let mut room = client.subscribe("room:1", Subscribe::default()).await.unwrap();
    assert_eq!(*client.transport().borrow(), Some(Transport::Sse));
    assert!(matches!(next(&mut room).await, Event::Subscribed { .. }));
    // By the ticket of the stream: only who hears it may speak.
    speaks(&client, 1..=20).await.unwrap();
    assert!(until(&mut room, 20).await.0.into_iter().eq(1..=20));
    let refused = client.history("room:1", None, 1, false).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { code: 4404, .. }), "{refused:?}");
    let missing = client.subscribe("nowhere:1", Subscribe::default()).await.unwrap_err();
    assert!(matches!(missing, Error::Refused { code: 4404, .. }), "{missing:?}");
    let speaking = speaks(&client, 21..=200);
    proxy.refuses.store(false, Ordering::Relaxed);
    let mut transport = client.transport();
    let returned = transport.wait_for(|it| *it == Some(Transport::WebSocket));
    timeout(PATIENCE, returned).await.expect("it returns").unwrap();
    speaking.await.unwrap();
    speaks(&client, 201..=210).await.unwrap();
    let (numbers, told) = until(&mut room, 210).await;
    assert!(numbers.into_iter().eq(21..=210), "everything, once, in order");
    assert!(
        !told.iter().any(|it| matches!(it, Event::Subscribed { recovered: Some(false), .. })),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_responses_are_held_back_a_client_polls() {
    let node = gateway(&[HISTORY, PUBLISH]).await;
    let proxy = Proxy::start(&node, true).await;
    let client = Client::start(Options { timeout: 2 * PATIENCE, ..proxy.options() }).unwrap();
    let mut room = client.subscribe("room:1", Subscribe::default()).await.unwrap();
    assert_eq!(*client.transport().borrow(), Some(Transport::Poll));
    speaks(&client, 1..=20).await.unwrap();
    assert!(until(&mut room, 20).await.0.into_iter().eq(1..=20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_too_a_node_that_dies_costs_nothing() {
    for transport in HTTP {
        let mut cluster = Cluster::start().await;
        let by = Options { transports: vec![transport], timeout: PATIENCE, ..Options::new(cluster.url()) };
        let (hears, speaker) = (Client::start(by.clone()).unwrap(), Client::start(by).unwrap());
        let mut room = hears.subscribe("room:1", Subscribe::default()).await.unwrap();
        let speaking = speaks(&speaker, 1..=100);
        let (mut numbers, _) = until(&mut room, 30).await;
        cluster.nodes[0].take().unwrap().kill().await;
        speaking.await.unwrap();
        numbers.extend(until(&mut room, 100).await.0);
        let speaking = speaks(&speaker, 101..=200);
        cluster.nodes[1].take().unwrap().terminate().await;
        speaking.await.unwrap();
        numbers.extend(until(&mut room, 200).await.0);
        assert!(numbers.into_iter().eq(1..=200), "{transport:?}: everything, once, in order");
        let reader = super::client(cluster.url());
        let page = reader.history("room:1", None, 1000, false).await.unwrap();
        let kept = page.messages.iter().map(|it| it.json::<u64>().unwrap());
        assert!(kept.eq(1..=200), "{transport:?}: published once, whoever died");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_channels_come_and_go_and_the_others_go_on_where_they_were() {
    let node = gateway(&[]).await;
    let speaker = super::client(url(&node));
    for transport in HTTP {
        let by = Options { transports: vec![transport], timeout: PATIENCE, ..Options::new(url(&node)) };
        let client = Client::start(by).unwrap();
        let channel = format!("{transport:?}");
        let mut kept = client.subscribe(&channel, Subscribe::default()).await.unwrap();
        for number in 1..=30_u64 {
            speaker.publish(&channel, &number).await.unwrap();
            if number % 3 == 0 {
                // It is left at once again.
                drop(client.subscribe(&format!("{channel}{number}"), Subscribe::default()).await.unwrap());
            }
        }
        let (numbers, told) = until(&mut kept, 30).await;
        assert!(numbers.into_iter().eq(1..=30), "{transport:?}");
        assert!(!told.iter().any(|it| matches!(it, Event::Interrupted(_))), "{told:?}");
        let how = Subscribe { rewind: Some(2), ..Subscribe::default() };
        let another = Client::start(Options {
            transports: vec![transport],
            timeout: PATIENCE,
            ..Options::new(url(&node))
        });
        let mut rewound = another.unwrap().subscribe(&channel, how).await.unwrap();
        assert_eq!(until(&mut rewound, 30).await.0, [29, 30]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_a_fresh_token_is_in_time() {
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let settings = [&secret, "auth.jwt.leeway_seconds=0", "namespaces.default.subscribe=authenticated"];
    let history = "namespaces.default.history.size=100";
    let node = gateway(&[&settings[..], &[history, "namespaces.default.publish=subscribers"]].concat()).await;
    let (token, made) = fresh_tokens(secret);
    let by = Options { transports: vec![Transport::Sse], timeout: PATIENCE, ..Options::new(url(&node)) };
    let client = Client::start(by.token(token)).unwrap();
    let mut a = client.subscribe("a", Subscribe::default()).await.unwrap();
    client.publish("a", &1).await.unwrap();
    eventually("two tokens have ended", async || made.load(Ordering::Relaxed) == 3).await;
    client.publish("a", &2).await.unwrap();
    let (numbers, told) = until(&mut a, 2).await;
    assert_eq!(numbers, [1, 2]);
    assert!(!told.iter().any(|it| matches!(it, Event::Interrupted(_))), "it was never cut off: {told:?}");
}
