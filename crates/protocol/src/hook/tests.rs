use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::channel::Channel;
use crate::error::ErrorCode;
use crate::grant::{Grant, Verb};
use crate::id::{SessionId, UserId};
use crate::time::UnixMicros;

const NOW: UnixMicros = UnixMicros(1_767_225_600_000_000);

fn session(byte: u8) -> SessionId {
    SessionId::from_random([byte; 16])
}

fn ann() -> Grant {
    Grant {
        user: Some(UserId::new("ann")),
        profile: Some(Payload::parse(r#"{"name": "Ann"}"#).unwrap()),
        expires: Some(1_767_225_660),
        ends: Some(UnixMicros(1_767_225_660_000_000)),
        issued: Some(7),
        channels: vec![Channel::parse("news").unwrap()],
        meta: Some(Box::new(Payload::parse(r#"{"plan": "free"}"#).unwrap())),
        ..Grant::default()
    }
}

fn asked(question: Question<'_>, grant: Option<&Grant>) -> Value {
    let address = Some(IpAddr::from([192, 0, 2, 7]));
    let client = Client { session: Some(session(7)), node: "n\"1", address, transport: "websocket", grant };
    serde_json::from_slice(&question.encode(&client, NOW)).expect("a question is JSON")
}

#[test]
fn a_question_says_what_is_asked_and_about_whom() {
    let common = json!({"time": 1_767_225_600_000_u64, "node": "n\"1", "session": "07".repeat(16),
        "address": "192.0.2.7", "transport": "websocket"});
    let channel = Channel::parse("room:1").unwrap();
    let payload = Payload::parse("{\"a\": 1}").unwrap();
    let packed = Payload::binary(b"ab");
    for (question, grant, rest) in [
        (Question::Connect { payload: None }, None, json!({"type": "connect", "user": null})),
        (
            Question::Connect { payload: Some(&payload) },
            Some(ann()),
            json!({"type": "connect", "user": "ann", "info": {"name": "Ann"}, "meta": {"plan": "free"}, "expires": 1_767_225_660,
                "data": {"a": 1}}),
        ),
        (
            Question::Subscribe { channel: &channel },
            Some(Grant::default()),
            json!({"type": "subscribe", "user": null, "channel": "room:1"}),
        ),
        (
            Question::Publish { channel: &channel, payload: &packed },
            None,
            json!({"type": "publish", "user": null, "channel": "room:1", "data": {"$binary": "YWI="}}),
        ),
        (
            Question::Call { method: "a\nb", payload: &payload },
            None,
            json!({"type": "call", "user": null, "method": "a\nb", "data": {"a": 1}}),
        ),
        (Question::Tell { payload: &payload }, None, json!({"type": "tell", "user": null, "data": {"a": 1}})),
    ] {
        let mut expected = common.clone();
        expected.as_object_mut().unwrap().append(&mut rest.as_object().unwrap().clone());
        assert_eq!(asked(question, grant.as_ref()), expected);
    }
}

#[test]
fn one_question_is_about_many_clients_that_are_to_stay() {
    let (ann, nobody) = (ann(), Grant::default());
    let body = refresh([(session(1), &ann), (session(2), &nobody)], "n", NOW);
    let expected = json!({"type": "refresh", "time": 1_767_225_600_000_u64, "node": "n", "clients": [
        {"session": "01".repeat(16), "user": "ann", "info": {"name": "Ann"}, "meta": {"plan": "free"}},
        {"session": "02".repeat(16), "user": null}]});
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    let none = refresh([], "n", NOW);
    assert_eq!(serde_json::from_slice::<Value>(&none).unwrap()["clients"], json!([]));
}

#[test]
fn what_an_answer_does_not_say_stays_as_it_was() {
    for empty in ["", " \n", "{}", r#"{"later":"fields"}"#] {
        assert_eq!(connect(empty.as_bytes(), Some(&ann()), NOW), Ok(Ok(ann())), "{empty:?}");
        assert_eq!(connect(empty.as_bytes(), None, NOW), Ok(Ok(Grant::default())), "{empty:?}");
        assert_eq!(consent(empty.as_bytes()), Ok(Ok(())), "{empty:?}");
        assert_eq!(publish(empty.as_bytes()), Ok(Ok(None)), "{empty:?}");
        assert_eq!(call(empty.as_bytes()).unwrap().unwrap().as_bytes(), b"null", "{empty:?}");
    }
}

#[test]
fn what_an_answer_says_is_what_a_token_would_say() {
    let body = r#"{"user":"bob","info":[1],"expires":1767225700,"channels":["a","b"],
        "allow":[{"channels":["room:*"],"can":["publish"]}]}"#;
    let bob = connect(body.as_bytes(), Some(&ann()), NOW).unwrap().unwrap();
    assert_eq!(bob.user, Some(UserId::new("bob")));
    assert_eq!(bob.profile.as_ref().unwrap().as_bytes(), b"[1]");
    assert_eq!((bob.expires, bob.is_renewable), (Some(1_767_225_700), true));
    assert_eq!(bob.ends, Some(UnixMicros(1_767_225_700_000_000)));
    assert_eq!(bob.channels.len(), 2);
    assert!(bob.allows(Verb::Publish, &Channel::parse("room:1").unwrap()));
    // A token's own times stay good where the answer names none: it is the client who renews that.
    let still = connect(br#"{"info":null}"#, Some(&ann()), NOW).unwrap().unwrap();
    assert_eq!((still.expires, still.is_renewable, still.issued), (ann().expires, false, Some(7)));
    for nobody in [&br#"{"user":null}"#[..], br#"{"user":""}"#] {
        assert_eq!(connect(nobody, Some(&ann()), NOW).unwrap().unwrap().user, None);
    }
    let fresh = connect(br#"{"user":"eve"}"#, None, NOW).unwrap().unwrap();
    assert_eq!(fresh.issued, Some(1_767_225_600), "what was revoked before does not concern it");
    assert_eq!(
        publish(br#"{"data":{"clean":true}}"#).unwrap().unwrap().unwrap().as_bytes(),
        b"{\"clean\":true}"
    );
    assert_eq!(publish(br#"{"data":null}"#).unwrap().unwrap().unwrap().as_bytes(), b"null");
    assert_eq!(call(br#"{"data":7}"#).unwrap().unwrap().as_bytes(), b"7");
}

#[test]
fn a_refusal_reaches_the_client_in_the_words_that_it_knows() {
    let refusal = |body: &str| consent(body.as_bytes()).unwrap().unwrap_err();
    let plain = refusal(r#"{"error":{}}"#);
    assert_eq!((plain.code, plain.number(), plain.retry_after), (ErrorCode::Forbidden, 4403, None));
    let full = refusal(
        r#"{"error":{"reason":"rate_limited","message":"slow \"down\"","retry_after":1500,"code":4700}}"#,
    );
    assert_eq!((full.code, full.application), (ErrorCode::RateLimited, NonZeroU16::new(4700)));
    assert_eq!((full.number(), full.retry_after), (4700, Some(Duration::from_millis(1500))));
    assert_eq!(&*full.explanation, "slow \"down\"");
    let same = refusal(r#"{"error":{"reason":"not_found","code":4404}}"#);
    assert_eq!((same.code, same.application), (ErrorCode::NotFound, None));
    let long = refusal(r#"{"error":{"retry_after":18446744073709551615}}"#);
    assert_eq!(long.retry_after, Some(Duration::from_secs(3600)));
    for read in [
        connect(br#"{"error":{}}"#, Some(&ann()), NOW).map(|it| it.is_err()),
        call(br#"{"error":{}}"#).map(|it| it.is_err()),
    ] {
        assert_eq!(read, Ok(true));
    }
}

#[test]
fn an_answer_that_contradicts_itself_or_cannot_be_understood_says_nothing() {
    let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(1025));
    for anywhere in [
        "null",
        "[]",
        "[{}]",
        "true",
        "{",
        "<html>",
        r#"{"error":true}"#,
        r#"{"error":null}"#,
        r#"{"error":"no"}"#,
        r#"{"error":[]}"#,
        r#"{"error":{"reason":"whatever"}}"#,
        r#"{"error":{"reason":"gap"}}"#,
        r#"{"error":{"code":4403,"reason":"unauthorized"}}"#,
        r#"{"error":{"code":4500}}"#,
        r#"{"error":{"code":0}}"#,
        r#"{"error":{"retry_after":-1}}"#,
        r#"{"error":{},"user":"ann"}"#,
        r#"{"error":{},"data":1}"#,
        r#"{"error":{},"error":{}}"#,
        r#"{"data":1,"data":2}"#,
        &long,
    ] {
        let body = anywhere.as_bytes();
        assert!(connect(body, None, NOW).is_err(), "{anywhere}");
        assert!(consent(body).is_err(), "{anywhere}");
        assert!(publish(body).is_err(), "{anywhere}");
        assert!(call(body).is_err(), "{anywhere}");
    }
    for connecting in [
        r#"{"user":7}"#,
        r#"{"expires":"soon"}"#,
        r#"{"expires":1767225600}"#,
        r#"{"channels":["a b"]}"#,
        r#"{"channels":"a"}"#,
        r#"{"allow":[{"channels":["a"],"can":["everything"]}]}"#,
        r#"{"data":1}"#,
    ] {
        assert!(connect(connecting.as_bytes(), None, NOW).is_err(), "{connecting}");
    }
    for (body, is_for_publish) in
        [(r#"{"data":1}"#, true), (r#"{"user":"ann"}"#, false), (r#"{"channels":[]}"#, false)]
    {
        assert!(consent(body.as_bytes()).is_err(), "{body}");
        assert_eq!(publish(body.as_bytes()).is_ok(), is_for_publish, "{body}");
    }
    assert!(connect(b"{\"later\":\"\xff\"}", None, NOW).is_err(), "no text");
}

#[test]
fn each_client_is_answered_for_itself() {
    let (one, two, three) = (session(1), session(2), session(3));
    let body = format!(r#"{{"clients":{{"{one}":{{"expires":1767225700}},"{two}":{{"error":{{}}}}}}}}"#);
    let answers = refresh_answers(body.as_bytes()).unwrap();
    assert!(connect(answers(one).unwrap(), Some(&ann()), NOW).unwrap().is_ok());
    assert!(connect(answers(two).unwrap(), Some(&ann()), NOW).unwrap().is_err());
    assert_eq!(answers(three), None);
    for bad in ["", "{}", "[]", r#"{"clients":[]}"#] {
        assert!(refresh_answers(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
