//! Every adapter against what its server is known to say.

use super::*;
use crate::stamp::{Finder, Stamp};

/// Leads an opening: `lines` are `< ` what the server says and `> ` what must be said next, in order.
fn open(dialect: Dialect, channels: &[&str], lines: &[&str]) -> Result<bool, String> {
    let protocol = dialect.protocol();
    let mut greeting = Greeting::new(channels);
    protocol.greet(&mut greeting, b"")?;
    for line in lines {
        match line.split_at(2) {
            ("> ", said) => {
                assert!(!greeting.say.is_empty(), "{dialect:?} does not say {said}");
                assert_eq!(greeting.say.remove(0), said, "{dialect:?}");
            }
            (_, heard) => {
                assert!(!greeting.ready, "{dialect:?} is ready before {heard}");
                assert_eq!(greeting.say, [""; 0], "{dialect:?} says this as well");
                protocol.greet(&mut greeting, heard.as_bytes())?;
            }
        }
    }
    assert_eq!(greeting.say, [""; 0], "{dialect:?} says this as well");
    Ok(greeting.ready)
}

#[test]
fn each_server_is_greeted_in_its_own_way() {
    let cases: &[(Dialect, &[&str])] = &[
        (
            Dialect::Fanfare,
            &[
                r#"> {"type":"subscribe","channel":"a"}"#,
                r#"< {"type":"welcome","node":"n"}"#,
                r#"< {"type":"subscribed","channel":"a"}"#,
            ],
        ),
        // Who is known is on a channel of its own before it is on any that it asks for.
        (
            Dialect::Fanfare,
            &[
                r#"> {"type":"subscribe","channel":"a"}"#,
                r#"< {"type":"welcome","node":"n","user":"ann","channels":["user:ann"]}"#,
                r#"< {"type":"subscribed","channel":"user:ann"}"#,
                r#"< {"type":"subscribed","channel":"a"}"#,
            ],
        ),
        (
            Dialect::Centrifugo,
            &[
                "> {\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}",
                r#"< {"id":1,"connect":{"client":"x","version":"6","ping":25,"pong":true}}"#,
                r#"< {"id":2,"subscribe":{}}"#,
            ],
        ),
        (
            Dialect::CentrifugoProtobuf,
            &[
                "> \x04\x08\x01\x22\0\x07\x08\x02\x2a\x03\x0a\x01a",
                "< \x06\x08\x01\x2a\x02\x38\x19",
                "< \x04\x08\x02\x32\0",
            ],
        ),
        (
            Dialect::Nats,
            &[
                "< INFO {\"server_id\":\"x\"}\r\n",
                "> CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\nSUB a 1\r\nPING\r\n",
                "< PONG\r\n",
            ],
        ),
        (Dialect::Nchan, &[]),
        (Dialect::Ws, &[r#"> {"subscribe":"a"}"#, r#"< {"subscribed":"a"}"#]),
        (Dialect::Floor, &["> Sa", "< S"]),
        (
            Dialect::Socketio,
            &[
                r#"< 0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#,
                "> 40",
                r#"< 40{"sid":"y"}"#,
                r#"> 420["subscribe","a"]"#,
                "< 430[]",
            ],
        ),
        (
            Dialect::Pusher,
            &[
                r#"< {"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\"}"}"#,
                "> {\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"private-a\",\"auth\":\"bench-key:\
                 961358df4ffa2dc3738e66a3b7352186f4c408c1ec181445eb69607ed7b30915\"}}",
                r#"< {"event":"pusher_internal:subscription_succeeded","channel":"private-a"}"#,
            ],
        ),
    ];
    for (dialect, lines) in cases {
        assert_eq!(open(*dialect, &["a"], lines), Ok(true), "{dialect:?}");
    }
}

#[test]
fn a_refusal_is_told_in_the_servers_words() {
    for (dialect, refusal) in [
        (Dialect::Fanfare, r#"{"type":"error","code":4403,"reason":"forbidden"}"#),
        (Dialect::Centrifugo, r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#),
        (Dialect::CentrifugoProtobuf, "\x08\x08\x02\x12\x04\x08\x67\x18\x01"),
        (Dialect::Nats, "-ERR 'Authorization Violation'\r\n"),
        (Dialect::Pusher, r#"{"event":"pusher:error","data":{"code":4001}}"#),
        (Dialect::Socketio, r#"44{"message":"no"}"#),
        (Dialect::Ws, r#"{"error":1}"#),
        (Dialect::Floor, "X"),
    ] {
        let mut greeting = Greeting::new(&["a"]);
        dialect.protocol().greet(&mut greeting, b"").unwrap();
        assert!(dialect.protocol().greet(&mut greeting, refusal.as_bytes()).is_err(), "{dialect:?}");
    }
}

/// What is published is a stamp in whatever wrapping; and servers deliver what was published.
#[test]
fn a_publication_carries_its_stamp() {
    let stamp = Stamp { stream: 3, sequence: 7, sent_nanos: 11 };
    let mut data = String::new();
    stamp.write(64, &mut data);
    for dialect in Dialect::value_variants() {
        let mut said = Vec::new();
        dialect.protocol().publish("a", &data, &mut said);
        let mut found = Vec::new();
        Finder::default().each(&said, false, |stamp| found.push(stamp));
        assert_eq!(found, [stamp], "{dialect:?}");
    }
}

#[test]
fn every_publication_of_a_gathered_frame_is_found() {
    let stamps = [1, 2, 3].map(|sequence| Stamp { stream: 0, sequence, sent_nanos: 5 });
    let data = stamps.map(|stamp| {
        let mut data = String::new();
        stamp.write(64, &mut data);
        data
    });
    let each =
        |wrap: &dyn Fn(&String) -> String, by: &str| data.iter().map(wrap).collect::<Vec<_>>().join(by);
    let centrifugo =
        |data: &String| format!("{{\"push\":{{\"channel\":\"a\",\"pub\":{{\"data\":{data}}}}}}}");
    for (dialect, frame) in [
        (
            Dialect::Fanfare,
            format!("[{}]", each(&|data| format!("{{\"type\":\"message\",\"data\":{data}}}"), ",")),
        ),
        (Dialect::Centrifugo, each(&centrifugo, "\n")),
        (
            Dialect::CentrifugoProtobuf,
            // A push that holds a publication that holds 64 bytes.
            each(&|data| format!("\x46\x22\x44\x22\x42\x22\x40{data}"), ""),
        ),
        (Dialect::Nats, each(&|data| format!("MSG a 1 {}\r\n{data}\r\n", data.len()), "")),
    ] {
        let protocol = dialect.protocol();
        assert!(protocol.gathers(frame.as_bytes()), "{dialect:?}");
        let mut found = Vec::new();
        Finder::default().each(frame.as_bytes(), true, |stamp| found.push(stamp));
        assert_eq!(found, stamps, "{dialect:?}");
        assert_eq!(protocol.aside(frame.as_bytes()), Aside::Nothing, "{dialect:?}");
    }
}

#[test]
fn pings_of_the_protocol_are_answered() {
    for (dialect, ping, answer) in [
        (Dialect::Centrifugo, "{}", "{}"),
        (Dialect::Centrifugo, "{\"push\":{}}\n{}", "{}"),
        (Dialect::Centrifugo, "{\"push\":{}}\n{}\n{\"push\":{}}", "{}"),
        (Dialect::CentrifugoProtobuf, "\0", "\0"),
        (Dialect::CentrifugoProtobuf, "\x02\x22\0\0", "\0"),
        (Dialect::Nats, "PING\r\n", "PONG\r\n"),
        (Dialect::Nats, "MSG a 1 2\r\nxx\r\nPING\r\n", "PONG\r\n"),
        (Dialect::Socketio, "2", "3"),
        (Dialect::Pusher, r#"{"event":"pusher:ping","data":{}}"#, r#"{"event":"pusher:pong","data":{}}"#),
    ] {
        assert_eq!(dialect.protocol().aside(ping.as_bytes()), Aside::Answer(answer), "{dialect:?} {ping:?}");
    }
}

#[test]
fn what_goes_wrong_later_is_noticed() {
    for (dialect, frame) in [
        (Dialect::Fanfare, r#"{"type":"error","code":4429,"reason":"rate_limited"}"#),
        (Dialect::Fanfare, r#"{"type":"unsubscribed","channel":"a","reason":"gap"}"#),
        (Dialect::Centrifugo, r#"{"id":3,"error":{"code":111,"message":"too many requests"}}"#),
        (Dialect::Centrifugo, r#"{"push":{"disconnect":{"code":3008,"reason":"slow"}}}"#),
        (Dialect::CentrifugoProtobuf, "\x07\x22\x05\x12\x01a\x3a\0"),
        (Dialect::CentrifugoProtobuf, "\x04\x22\x02\x5a\0"),
        (Dialect::Nats, "-ERR 'Slow Consumer'\r\n"),
        (Dialect::Pusher, r#"{"event":"pusher:error","data":{"code":4301}}"#),
    ] {
        let aside = dialect.protocol().aside(frame.as_bytes());
        assert!(matches!(aside, Aside::Trouble(_)), "{dialect:?} {frame}: {aside:?}");
    }
}
