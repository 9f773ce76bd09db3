//! The generator passes a gateway that keeps its promises and fails one that breaks any of them.
//!
//! The gateway here is a stand-in of a page, which commits one fault on demand: a judge that nothing can make
//! say "guilty" proves nothing.

#![allow(clippy::unwrap_used, reason = "a stand-in that cannot go on is a failed test")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Output};
use std::rc::Rc;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, http::HeaderValue};

/// What the stand-in does to its 100th delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Drop,
    Double,
    /// Delivers it after the next one to the same subscriber.
    Swap,
    /// Delivers it to somebody else's channel as well.
    Stray,
    /// Closes the connection instead.
    Cut,
    /// Answers `subscribe` with an error.
    Refuse,
}

type Outbox = mpsc::Sender<Message>;

#[derive(Debug)]
struct StandIn {
    fault: Fault,
    rooms: RefCell<HashMap<String, Vec<Outbox>>>,
    deliveries: Cell<usize>,
    held: RefCell<Option<(Outbox, Message)>>,
}

impl StandIn {
    /// Serves on a free port until the test process ends.
    fn start(fault: Fault) -> SocketAddr {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let this = Rc::new(Self {
                    fault,
                    rooms: RefCell::default(),
                    deliveries: Cell::default(),
                    held: RefCell::default(),
                });
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    drop(spawn_local(this.clone().converse(stream)));
                }
            });
        });
        told.recv().unwrap()
    }

    async fn converse(self: Rc<Self>, stream: TcpStream) {
        let socket = tokio_tungstenite::accept_hdr_async(stream, choose_subprotocol).await.unwrap();
        let (mut output, mut input) = socket.split();
        let (outbox, mut inbox) = mpsc::channel::<Message>(4096);
        drop(spawn_local(async move {
            while let Some(frame) = inbox.recv().await {
                if output.send(frame).await.is_err() {
                    break;
                }
            }
        }));
        let say = |event: Value| outbox.try_send(Message::text(event.to_string())).unwrap();
        outbox.try_send(Message::Ping("still there?".into())).unwrap();
        say(json!({"type": "welcome", "node": "stand-in"}));
        while let Some(Ok(frame)) = input.next().await {
            let Message::Text(text) = frame else { continue };
            let command: Value = serde_json::from_str(&text).unwrap();
            let channel = command["channel"].as_str().unwrap();
            match command["type"].as_str().unwrap() {
                "subscribe" if self.fault == Fault::Refuse => {
                    say(json!({"type": "error", "code": 4403, "reason": "forbidden"}));
                }
                "subscribe" => {
                    self.rooms.borrow_mut().entry(channel.to_owned()).or_default().push(outbox.clone());
                    say(json!({"type": "subscribed", "channel": channel}));
                }
                "publish" => self.publish(channel, &command["data"]),
                other => panic!("a {other} was not expected"),
            }
        }
    }

    fn publish(&self, channel: &str, data: &Value) {
        let event = json!({"type": "message", "channel": channel, "data": data});
        let frame = Message::text(event.to_string());
        let rooms = self.rooms.borrow();
        for subscriber in rooms.get(channel).into_iter().flatten() {
            let send = |frame: &Message| drop(subscriber.try_send(frame.clone()));
            self.deliveries.set(self.deliveries.get() + 1);
            let fault = if self.deliveries.get() == 100 { self.fault } else { Fault::None };
            match fault {
                Fault::None | Fault::Refuse => send(&frame),
                Fault::Drop => {}
                Fault::Double => [&frame, &frame].into_iter().for_each(send),
                Fault::Swap => *self.held.borrow_mut() = Some((subscriber.clone(), frame.clone())),
                Fault::Stray => rooms.values().for_each(|room| drop(room[0].try_send(frame.clone()))),
                Fault::Cut => send(&Message::Close(Some(CloseFrame {
                    code: 4508.into(),
                    reason: "slow_consumer".into(),
                }))),
            }
            let mut held = self.held.borrow_mut();
            if fault == Fault::None
                && let Some((_, held)) = held.take_if(|(outbox, _)| outbox.same_channel(subscriber))
            {
                send(&held);
            }
        }
    }
}

#[allow(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the callback's signature")]
fn choose_subprotocol(
    request: &Request,
    mut response: Response,
) -> Result<Response, tungstenite::handshake::server::ErrorResponse> {
    let offered = request.headers().get("sec-websocket-protocol").cloned();
    let chosen = offered.unwrap_or(HeaderValue::from_static(""));
    response.headers_mut().insert("sec-websocket-protocol", chosen);
    Ok(response)
}

/// Exit code and output of a scenario against a stand-in with the fault.
fn judge(fault: Fault, scenario: &str) -> (i32, String) {
    let url = format!("ws://{}/ws", StandIn::start(fault));
    let mut words = scenario.split_whitespace();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest"))
        .arg(words.next().unwrap())
        .args(["--url", &url])
        .args(words)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    (status.code().unwrap(), output)
}

const CHECK: &str = "check --connections 40 --publishers 1 --messages 10 --rate 5000 --patience 0.5";
const FANOUT: &str = "fanout --subscribers 20 --in-flight 4 --seconds 0.5 --warm-up 0.1 --patience 0.5";
const ROOMS: &str = "rooms --rooms 5 --size 4 --rate 200 --seconds 0.5 --warm-up 0.1 --patience 0.5";

/// Judges each case, all at once: most of a run is waiting.
fn expect(cases: &[(Fault, &str, i32, &str)]) {
    std::thread::scope(|scope| {
        for &(fault, scenario, expected, verdict) in cases {
            scope.spawn(move || {
                let (code, output) = judge(fault, scenario);
                assert_eq!(code, expected, "{fault:?} {scenario}: {output}");
                assert!(output.contains(verdict), "{fault:?} {scenario}: {output}");
            });
        }
    });
}

#[test]
fn a_faultless_gateway_passes() {
    expect(
        &[CHECK, FANOUT, ROOMS, "idle --connections 50"].map(|scenario| (Fault::None, scenario, 0, "\nok\n")),
    );
}

#[test]
fn each_fault_fails_and_is_named() {
    for scenario in [CHECK, FANOUT, ROOMS] {
        expect(&[
            (Fault::Drop, scenario, 1, "FAILED: messages lost: 1\n"),
            (Fault::Double, scenario, 1, "FAILED: messages doubled: 1\n"),
            (Fault::Swap, scenario, 1, "FAILED: messages out of order: 1\n"),
            (Fault::Cut, scenario, 1, "FAILED: connection ended: close 4508 slow_consumer: 1\n"),
        ]);
    }
}

/// With several publishers, each of them heard in order is not enough: all must hear the same order.
#[test]
fn an_order_that_others_do_not_share_fails() {
    let several = CHECK.replace("--publishers 1", "--publishers 5");
    expect(&[(Fault::Swap, &several, 1, "FAILED: channels whose subscribers heard different")]);
}

#[test]
fn what_is_heard_in_another_channel_is_stray() {
    let verdict = "FAILED: messages heard by somebody they were not for";
    expect(&[(Fault::Stray, CHECK, 1, verdict), (Fault::Stray, ROOMS, 1, verdict)]);
}

#[test]
fn limits_that_are_exceeded_fail() {
    let pid = std::process::id();
    let idle = format!("idle --connections 200 --pid {pid} --max-bytes-per-connection 1");
    let fanout = format!("{FANOUT} --pid {pid} --max-cpu-per-message 0.000001");
    let check = format!("{CHECK} --min-nodes 2");
    expect(&[
        (Fault::None, &idle, 1, "bytes a connection, 1 allowed"),
        (Fault::None, &fanout, 1, "µs of CPU a delivered message"),
        (Fault::None, &check, 1, "served by 1 nodes, not 2"),
    ]);
}

#[test]
fn a_run_that_cannot_be_done_is_told_from_a_failed_one() {
    expect(&[
        (Fault::Refuse, "idle --connections 10", 2, "error 4403 forbidden"),
        (Fault::None, "check --url wss://127.0.0.1/ws", 2, "needs --authority"),
        (Fault::None, "check --url http://127.0.0.1/ws", 2, "only ws:// and wss:// are spoken"),
    ]);
}
