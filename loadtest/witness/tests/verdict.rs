//! The witness lets off a server that keeps its promises, and finds one guilty that breaks any of them.
//!
//! The server is a stand-in of a page, which commits one fault on demand: a judge that nothing can make say "guilty" proves
//! nothing.

#![allow(clippy::unwrap_used, reason = "a stand-in that cannot go on is a failed test")]
#![allow(
    clippy::disallowed_methods,
    reason = "the clock of this test is the real one: the witness is a process"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// How long a run may take that needs a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked how far the run is.
const LOOK: Duration = Duration::from_millis(10);

/// What the stand-in does to the tenth publication of each channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It is acknowledged and told to nobody.
    Lose,
    /// It is published twice, as where its key was forgotten; once at one place twice is the client's to see, and it does.
    Double,
    /// It is told as another than it was.
    Alter,
    /// It is acknowledged, and told from the next place on.
    Stray,
    /// Its subscribers are told that the stream went on without them.
    Gap,
}

/// One channel: who hears it, and the offset of what was published last.
#[derive(Default)]
struct Room {
    ears: Vec<mpsc::UnboundedSender<Value>>,
    offset: u64,
}

/// Serves on a free port until the test process ends.
fn stand_in(fault: Fault) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let rooms = Rc::new(RefCell::new(HashMap::new()));
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(converse(stream, fault, Rc::clone(&rooms)));
            }
        });
    });
    told.recv().unwrap()
}

#[allow(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the callback's signature")]
fn choose_subprotocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("fanfare.v1.json"));
    Ok(response)
}

async fn converse(stream: TcpStream, fault: Fault, rooms: Rc<RefCell<HashMap<String, Room>>>) {
    let (mut output, mut input) = accept_hdr_async(stream, choose_subprotocol).await.unwrap().split();
    let (mouth, mut said) = mpsc::unbounded_channel::<Value>();
    spawn_local(async move {
        while let Some(event) = said.recv().await {
            if output.send(Message::text(event.to_string())).await.is_err() {
                break;
            }
        }
    });
    let say = |event: Value| drop(mouth.send(event));
    say(
        json!({"type": "welcome", "session": "s", "node": "stand-in", "user": null, "expires": null, "heartbeat": 30,
        "limits": {"message_bytes": 65536, "channels": 128, "messages_per_second": 100}, "channels": []}),
    );
    while let Some(Ok(frame)) = input.next().await {
        let Message::Text(text) = frame else { continue };
        let commands = match serde_json::from_str(&text).unwrap() {
            Value::Array(batch) => batch,
            command => vec![command],
        };
        for command in commands {
            let channel = command["channel"].as_str().unwrap();
            let mut rooms = rooms.borrow_mut();
            let room = rooms.entry(channel.to_owned()).or_default();
            let reply = |kind: &str, offset: u64| json!({"type": kind, "id": command["id"], "channel": channel, "epoch": "e", "offset": offset, "recovered": false});
            if command["type"] == "subscribe" {
                say(reply("subscribed", room.offset));
                room.ears.push(mouth.clone());
            } else {
                room.offset += 1;
                say(reply("published", room.offset));
                publish(room, channel, &command["data"], if room.offset == 10 { fault } else { Fault::None });
            }
        }
    }
}

fn publish(room: &mut Room, channel: &str, data: &Value, fault: Fault) {
    let ears = room.ears.clone();
    let tell = |offset: u64, data: &Value| {
        for ear in &ears {
            drop(ear.send(json!({"type": "message", "channel": channel, "offset": offset, "data": data})));
        }
    };
    match fault {
        Fault::Lose => {}
        Fault::Double => {
            tell(room.offset, data);
            room.offset += 1;
            tell(room.offset, data);
        }
        Fault::Alter => tell(room.offset, &json!([99, 1])),
        Fault::Stray => tell(room.offset + 1, data),
        Fault::Gap => {
            for ear in &ears {
                drop(ear.send(
                    json!({"type": "unsubscribed", "channel": channel, "code": 4410, "reason": "gap"}),
                ));
            }
        }
        Fault::None => tell(room.offset, data),
    }
}

/// The witness' exit code and its last word, after so many publications.
fn judged(fault: Fault) -> (Option<i32>, Value) {
    let mut witness = Command::new(env!("CARGO_BIN_EXE_fanfare-witness"))
        .args(["--url", &format!("ws://{}/ws", stand_in(fault))])
        .args([
            "--channels",
            "2",
            "--listeners",
            "4",
            "--publishers",
            "1",
            "--pause",
            "1",
            "--patience",
            "60",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = witness.stdin.take().unwrap();
    let mut answers = BufReader::new(witness.stdout.take().unwrap()).lines().map(|it| it.unwrap());
    let mut status = Value::Null;
    let until = Instant::now() + PATIENCE;
    while status["acknowledged"].as_u64().unwrap_or_default() < 40 {
        writeln!(ask, "status").unwrap();
        status = serde_json::from_str(&answers.next().unwrap()).unwrap();
        assert!(Instant::now() < until, "{fault:?}: nothing moves: {status}");
        std::thread::sleep(LOOK);
    }
    writeln!(ask, "stop").unwrap();
    let verdict = answers.last().unwrap();
    (witness.wait().unwrap().code(), serde_json::from_str(&verdict).unwrap())
}

#[test]
fn a_server_that_keeps_its_promises_is_let_off() {
    let (code, verdict) = judged(Fault::None);
    assert_eq!(
        (code, verdict["offences"].as_u64(), verdict["behind"].as_u64()),
        (Some(0), Some(0), Some(0)),
        "{verdict}"
    );
    assert_eq!(verdict["on"]["stand-in"], 4);
}

#[test]
fn every_broken_promise_is_found() {
    for fault in [Fault::Lose, Fault::Double, Fault::Alter, Fault::Stray, Fault::Gap] {
        let (code, verdict) = judged(fault);
        assert_eq!(code, Some(1), "{fault:?}: {verdict}");
        assert!(verdict["offences"].as_u64() > Some(0), "{fault:?}: {verdict}");
    }
}
