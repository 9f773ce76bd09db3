//! The golden conversations, and what no conversation has.

use std::time::Duration;

use proptest::prelude::*;

use super::sink::{Field, Json as JsonSink, Protobuf as ProtobufSink, Sink};
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Decoded, Start, Wording};
use crate::dialect::theatre::{Spelling, check, draft, replay, transcripts};
use crate::dialect::{Encoding, Incoming};
use crate::error::{ErrorCode, Failure};
use crate::event::{Entry, Event, Member, Reply};
use crate::id::{RequestId, SessionId, UserId};
use crate::publication::{Draft, Epoch, Offset, Payload, Position, Publication};

#[test]
fn every_transcript_is_what_is_said() {
    let spelling = Spelling::Text(Encoding::CentrifugoJson);
    check(&transcripts("centrifugo/transcripts"), |written| (replay(written, spelling), written.to_owned()));
}

/// Both formats of a command, written by the same walk.
fn both(
    write_json: impl FnOnce(&mut JsonSink),
    write_protobuf: impl FnOnce(&mut ProtobufSink),
) -> (String, Vec<u8>) {
    let (mut json, mut protobuf) = (JsonSink::default(), ProtobufSink::default());
    write_json(&mut json);
    write_protobuf(&mut protobuf);
    let text = String::from_utf8(json.into_frame().payload().to_vec()).unwrap();
    (text, protobuf.into_frame().payload().to_vec())
}

fn decoded(encoding: Encoding, incoming: Incoming<'_>) -> Result<Vec<Decoded>, CloseReason> {
    let mut all = Vec::new();
    encoding.dialect().decode(incoming, 8, &mut |it| all.push(it)).map(|()| all)
}

/// A command of every kind, with every field that is read.
fn sample(sink: &mut impl Sink, method: u32) {
    let data = Payload::parse(r#"{"a":[1]}"#).unwrap();
    let subscribe = |sink: &mut _, name: &str| subscription(sink, name);
    sink.number(Field::new("id", 1), 7);
    let channel = Field::new("channel", 1);
    match method {
        4 => sink.message(Field::new("connect", 4), |sink| {
            sink.text(Field::new("token", 1), "t");
            sink.data(Field::new("data", 2), &data);
            let places = [("news".to_owned(), ()), ("more".to_owned(), ())];
            sink.map(Field::new("subs", 3), places, |sink, ()| subscribe(sink, ""));
            sink.text(Field::new("name", 4), "js");
            sink.text(Field::new("version", 5), "5");
        }),
        5 => sink.message(Field::new("subscribe", 5), |sink| subscribe(sink, "room:1")),
        6 => sink.message(Field::new("unsubscribe", 6), |sink| sink.text(channel, "room:1")),
        7 => sink.message(Field::new("publish", 7), |sink| {
            sink.text(channel, "room:1");
            sink.data(Field::new("data", 2), &data);
        }),
        8 => sink.message(Field::new("presence", 8), |sink| sink.text(channel, "room:1")),
        9 => sink.message(Field::new("presence_stats", 9), |sink| sink.text(channel, "room:1")),
        10 => sink.message(Field::new("history", 10), |sink| {
            sink.text(channel, "room:1");
            sink.number(Field::new("limit", 7), 9);
            sink.message(Field::new("since", 8), |sink| {
                sink.number(Field::new("offset", 1), 300);
                sink.text(Field::new("epoch", 2), "9f3c1a7b5e0d4520");
            });
            sink.switch(Field::new("reverse", 9), true);
        }),
        11 => sink.message(Field::new("ping", 11), |_| {}),
        13 => sink.message(Field::new("rpc", 13), |sink| sink.text(Field::new("method", 2), "sum")),
        14 => sink.message(Field::new("refresh", 14), |sink| sink.text(Field::new("token", 1), "t")),
        15 => sink.message(Field::new("sub_refresh", 15), |sink| {
            sink.text(channel, "room:1");
            sink.text(Field::new("token", 2), "t");
        }),
        _ => {}
    }
}

fn subscription(sink: &mut impl Sink, channel: &str) {
    sink.text(Field::new("channel", 1), channel);
    sink.text(Field::new("token", 2), "t");
    sink.switch(Field::new("recover", 3), true);
    sink.text(Field::new("epoch", 6), "9f3c1a7b5e0d4520");
    sink.number(Field::new("offset", 7), 41);
    sink.switch(Field::new("join_leave", 11), true);
    sink.text(Field::new("delta", 12), "fossil");
    sink.message(Field::new("tf", 13), |sink| {
        sink.text(Field::new("op", 1), "or");
        sink.list(Field::new("nodes", 6), ["gte", "ex"], |sink, cmp| {
            sink.text(Field::new("key", 2), "price");
            sink.text(Field::new("cmp", 3), cmp);
            if cmp == "gte" {
                sink.text(Field::new("val", 4), "1.5");
            }
        });
    });
}

#[test]
fn a_command_means_the_same_in_both_formats() {
    for method in (4..=11).chain(13..=15) {
        let (json, protobuf) = both(|sink| sample(sink, method), |sink| sample(sink, method));
        let said = decoded(Encoding::CentrifugoJson, Incoming::Text(&json)).unwrap();
        assert_eq!(
            said,
            decoded(Encoding::CentrifugoProtobuf, Incoming::Binary(&protobuf)).unwrap(),
            "{json}"
        );
        assert_eq!(said.len(), 1, "{json}");
        let id = said[0].as_ref().map_or_else(|it| it.id.clone(), |it| it.id.clone());
        assert_eq!(id, Some(RequestId::Number(7)), "{json}");
    }
    let subscribe = |channel: &str| format!(r#"{{"id":1,"subscribe":{{"channel":"{channel}"}}}}"#);
    let many = vec![subscribe("a"); 9].join("\n");
    assert_eq!(decoded(Encoding::CentrifugoJson, Incoming::Text(&many)), Err(CloseReason::BadRequest));
    assert_eq!(
        decoded(Encoding::CentrifugoJson, Incoming::Text(&many[..many.len() / 2])),
        Err(CloseReason::BadRequest)
    );
}

/// As the schema has them: each field before its value, by its number and by how long that is.
#[test]
fn messages_of_protobuf_are_those_of_the_schema() {
    let id = Some(RequestId::Number(300));
    let channel = Channel::parse("a").unwrap();
    let failure = Failure::new(ErrorCode::RateLimited, "x");
    let draft = Draft { sender: None, ..draft("a", "[1]") };
    let bytes = Payload::binary(&[0, 0xff]);
    let position = Position { epoch: Epoch(0xab), offset: Offset(200) };
    let session = SessionId::from_random([0; 16]);
    let payload = |json| Some(Payload::parse(json).unwrap());
    let member = Member { user: Some(UserId::new("u")), session, profile: payload("1"), note: payload("2") };
    let joined = Event::Joined { channel: channel.clone(), member };
    let subscribed = Event::Subscribed {
        channel: channel.clone(),
        entry: Some(Entry { position, recovered: false }),
        start: Start::Live,
        wording: Wording::Whole,
        lasts: None,
        crowd: None,
        greeting: payload("[1]"),
    };
    let encode = |id: &Option<RequestId>, event| {
        let reply = Reply { id: id.clone(), event };
        Encoding::CentrifugoProtobuf.dialect().encode(&reply).unwrap().payload().to_vec()
    };
    for (said, written) in [
        (
            encode(&id, Event::Unsubscribed { channel: channel.clone(), cause: None }),
            b"\x05\x08\xac\x02\x3a\x00".to_vec(),
        ),
        (
            encode(&None, Event::Unsubscribed { channel, cause: Some(ErrorCode::Gap) }),
            b"\x1e\x22\x1c\x12\x01a\x3a\x17\x10\xc4\x13\x1a\x12insufficient state".to_vec(),
        ),
        (
            encode(&id, Event::Refused { failure, channel: None }),
            b"\x1f\x08\xac\x02\x12\x1a\x08\x6f\x12\x14too many requests: x\x18\x01".to_vec(),
        ),
        (
            encode(&None, Event::Refreshed { session, expires: Some(1), lasts: Some(Duration::from_secs(60)) }),
            b"\x08\x22\x06\x62\x04\x08\x01\x10\x3c".to_vec(),
        ),
        (
            encode(&None, subscribed),
            b"\x25\x22\x23\x12\x01a\x4a\x1e\x08\x01\x22\x1000000000000000ab\x28\xc8\x01\x30\x01\x3a\x03[1]".to_vec(),
        ),
        (
            encode(&None, joined),
            b"\x34\x22\x32\x12\x01a\x2a\x2d\x0a\x2b\x0a\x01u\x12\x2000000000000000000000000000000000\x1a\x011\x22\x012".to_vec(),
        ),
        (
            Publication::new(draft.clone(), Some(position))
                .encoded(Encoding::CentrifugoProtobuf)
                .payload()
                .to_vec(),
            b"\x0f\x22\x0d\x12\x01a\x22\x08\x22\x03[1]\x30\xc8\x01".to_vec(),
        ),
        (
            Publication::new(Draft { payload: bytes, ..draft }, None)
                .encoded(Encoding::CentrifugoProtobuf)
                .payload()
                .to_vec(),
            b"\x0b\x22\x09\x12\x01a\x22\x04\x22\x02\x00\xff".to_vec(),
        ),
    ] {
        assert_eq!(said, written);
    }
}

/// Who hears by the body of a response, in which there is no Close frame.
#[test]
fn why_it_ends_is_told_by_a_last_message_too() {
    let farewell = |encoding: Encoding, reason| {
        encoding.dialect().farewell(reason).map(|frame| frame.payload().to_vec()).unwrap_or_default()
    };
    for (reason, json) in [
        (
            CloseReason::GoingAway,
            r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}}"#,
        ),
        (CloseReason::Forbidden, r#"{"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}"#),
    ] {
        assert_eq!(String::from_utf8(farewell(Encoding::CentrifugoJson, reason)).unwrap(), json);
    }
    let protobuf = farewell(Encoding::CentrifugoProtobuf, CloseReason::GoingAway);
    assert_eq!(protobuf, b"\x13\x22\x11\x5a\x0f\x08\xb9\x17\x12\x08shutdown\x18\x01");
    assert_eq!(farewell(Encoding::NativeJson, CloseReason::GoingAway), b"", "its `closing` says so");
}

proptest! {
    /// Whatever comes ends the conversation or is answered; nothing panics, and nothing that was only announced takes memory.
    #[test]
    fn whatever_comes_is_decoded_or_is_the_end(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        method in 4_u32..16, at in any::<prop::sample::Index>(), with in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (json, protobuf) = both(|sink| sample(sink, method), |sink| sample(sink, method));
        let mut near = protobuf.clone();
        near[at.index(protobuf.len())] = with;
        let cut = cut.index(protobuf.len());
        for bytes in [&noise[..], &near, &protobuf[..cut]] {
            let _ = decoded(Encoding::CentrifugoProtobuf, Incoming::Binary(bytes));
        }
        prop_assert_eq!(
            decoded(Encoding::CentrifugoProtobuf, Incoming::Binary(&protobuf[..cut])),
            Err(CloseReason::BadRequest)
        );
        let text = String::from_utf8_lossy(&noise);
        let _ = decoded(Encoding::CentrifugoJson, Incoming::Text(&text));
        let mut near = json.into_bytes();
        let at = at.index(near.len());
        near[at] = with & 0x7f;
        let _ = decoded(Encoding::CentrifugoJson, Incoming::Text(str::from_utf8(&near).unwrap()));
    }
}
