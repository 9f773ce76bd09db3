use std::sync::Arc;

use super::*;
use crate::event::{Crowd, Member};
use crate::history::Page;
use crate::id::UserId;
use crate::publication::{Draft, Epoch, Offset, Publication};
use crate::realm::Credentials;

const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
const SIGNED: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
    &body_md5=ec365a775a4cd0599faeb73354201b6f\
    &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
const THEN: UnixMicros = UnixMicros(1_353_088_179_000_000);

fn realm() -> Realm {
    let credentials = Credentials::new("278d425bdf160c739803", "7ad3773142a6692b25b8");
    Realm { namespace: "3".into(), credentials }
}

fn post<'a>(path: &'a str, query: &'a str, body: &'a str) -> Asked<'a> {
    Asked { method: "POST", path, query, body: body.as_bytes() }
}

fn planned(method: &str, path: &str, query: &str, body: &str) -> Result<Plan, Failure> {
    plan(&realm(), Asked { method, path, query, body: body.as_bytes() })
}

fn within(name: &str) -> Channel {
    realm().channel(name).unwrap()
}

fn present(name: &str, users: u64, connections: u64, members: &[&str]) -> ApiReply {
    let member = |user: &&str| Member {
        user: Some(UserId::new(user)),
        session: SessionId::from_random([1; 16]),
        profile: None,
        note: None,
    };
    let members = Some(members.iter().map(member).collect());
    ApiReply::Present { channel: within(name), crowd: Arc::new(Crowd { users, connections, members }) }
}

fn told(plan: &Plan, replies: &[ApiReply]) -> String {
    String::from_utf8(plan.encode(replies, THEN)).unwrap()
}

/// The example of the protocol's documentation.
#[test]
fn a_request_is_verified_by_its_signature() {
    assert_eq!(verify(&realm(), post("/apps/3/events", SIGNED, BODY), THEN), Ok(()));
}

#[test]
fn what_is_not_as_it_was_signed_is_refused() {
    let within = UnixMicros(THEN.0 + 600_000_000);
    assert_eq!(verify(&realm(), post("/apps/3/events", SIGNED, BODY), within), Ok(()));
    let other_body = BODY.replace("foo", "bar");
    for (why, path, query, body, now) in [
        ("another path", "/apps/3/batch_events", SIGNED.to_owned(), BODY, THEN),
        ("another body", "/apps/3/events", SIGNED.into(), &*other_body, THEN),
        ("no digest", "/apps/3/events", SIGNED.replace("body_md5=", "body="), BODY, THEN),
        ("one more parameter", "/apps/3/events", format!("{SIGNED}&info=cache"), BODY, THEN),
        ("another key", "/apps/3/events", SIGNED.replace("739803", "739804"), BODY, THEN),
        ("another version", "/apps/3/events", SIGNED.replace("=1.0", "=1.1"), BODY, THEN),
        ("no signature", "/apps/3/events", SIGNED.replace("auth_signature=", "auth_x="), BODY, THEN),
        ("too late", "/apps/3/events", SIGNED.into(), BODY, UnixMicros(THEN.0 + 601_000_000)),
        ("too early", "/apps/3/events", SIGNED.into(), BODY, UnixMicros(THEN.0 - 601_000_000)),
        ("nothing", "/apps/3/events", String::new(), BODY, THEN),
    ] {
        let refused = verify(&realm(), post(path, &query, body), now).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthorized, "{why}");
    }
}

/// A signature that is right otherwise is good for a body only if that is signed with it, and knows names in lower case alone.
#[test]
fn a_body_is_signed_and_names_are_signed_in_lower_case() {
    let verified = |signed: &str, sent: &str, body: &str| {
        let signature = realm().credentials.sign(&[&format!("POST\n/apps/3/events\n{signed}")]);
        let query = format!("{sent}&auth_signature={signature}");
        verify(&realm(), post("/apps/3/events", &query, body), THEN).map_err(|failure| failure.code)
    };
    let bare = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0";
    assert_eq!(verified(bare, bare, ""), Ok(()), "there is no body to sign");
    assert_eq!(verified(bare, bare, BODY), Err(ErrorCode::Unauthorized), "a body that nobody has signed");
    let upper = bare.replace("auth_version", "Auth_Version");
    assert_eq!(verified(bare, &upper, ""), Ok(()));
    assert_eq!(verified(&upper, &upper, ""), Err(ErrorCode::Unauthorized));
}

#[test]
fn values_are_signed_as_they_are_before_they_are_escaped() {
    let signed = |path: &str| {
        let query = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&info=a,b c";
        let signature = realm().credentials.sign(&[&format!("GET\n{path}\n{query}")]);
        format!("{}&auth_signature={signature}", query.replace("a,b c", "a%2Cb%20c"))
    };
    for (sent, signed_as) in [("/apps/3/users/a%40b", "/apps/3/users/a@b"), ("/apps/3/x%40", "/apps/3/x%40")]
    {
        let query = signed(signed_as);
        let asked = Asked { method: "GET", path: sent, query: &query, body: b"" };
        assert_eq!(verify(&realm(), asked, THEN), Ok(()), "{sent}");
    }
}

#[test]
fn an_event_is_published_on_each_of_its_channels() {
    let body = r#"{"name":"e","data":"{\"a\":1}","channels":["a","private-b"],"socket_id":"1.2"}"#;
    let plan = planned("POST", "/apps/3/events", "", body).unwrap();
    let channels: Vec<_> = plan
        .calls
        .iter()
        .map(|call| {
            let ApiCall::Publish { channel, payload, key: None, exclude } = call else { panic!("{call:?}") };
            assert_eq!(payload.as_bytes(), br#"{"a":1}"#);
            assert_eq!(payload.label().map(Label::as_str), Some("e"));
            assert_eq!(*exclude, names::session("1.2"));
            channel.clone()
        })
        .collect();
    assert_eq!(channels, [within("a"), within("private-b")]);
    assert_eq!(told(&plan, &[ApiReply::Done, ApiReply::Done]), "{}");
}

#[test]
fn what_is_asked_about_the_channels_of_an_event_is_told() {
    let body = r#"{"name":"e","data":"x","channel":"presence-a","info":"user_count,subscription_count"}"#;
    let plan = planned("POST", "/apps/3/events", "", body).unwrap();
    assert_eq!(plan.calls.len(), 2);
    assert_eq!([plan.needs(0), plan.needs(1)], [true, false], "it is published, whatever can be told");
    let answer = told(&plan, &[ApiReply::Done, present("presence-a", 2, 3, &[])]);
    assert_eq!(answer, r#"{"channels":{"presence-a":{"user_count":2,"subscription_count":3}}}"#);
    let batch = r#"{"batch":[{"name":"e","data":"x","channel":"a","info":"subscription_count"},
        {"name":"f","data":"y","channel":"b"},
        {"name":"f","data":"y","channel":"presence-c","info":"user_count"}]}"#;
    let plan = planned("POST", "/apps/3/batch_events", "", batch).unwrap();
    let done = [ApiReply::Done, ApiReply::Done, ApiReply::Done];
    let counts = [present("a", 1, 1, &[]), present("presence-c", 2, 3, &[])];
    let answer = told(&plan, &[&done[..], &counts].concat());
    assert_eq!(
        answer, r#"{"batch":[{"subscription_count":1},{},{"user_count":2}]}"#,
        "to each what it asked for"
    );
    let unheard = [ApiReply::Done, ApiReply::Done, ApiReply::Done, ApiReply::Done, counts[1].clone()];
    assert_eq!(
        told(&plan, &unheard),
        r#"{"batch":[{},{},{"user_count":2}]}"#,
        "one of them could not be told"
    );
}

#[test]
fn a_channel_is_told_of_by_its_name_within_the_application() {
    let query = "info=user_count,subscription_count";
    let plan = planned("GET", "/apps/3/channels/presence-a", query, "").unwrap();
    let answer = told(&plan, &[present("presence-a", 2, 3, &[])]);
    assert_eq!(answer, r#"{"occupied":true,"user_count":2,"subscription_count":3}"#);
    assert_eq!(
        told(&plan, &[present("presence-a", 0, 0, &[])]).split(',').next(),
        Some(r#"{"occupied":false"#)
    );

    let plan = planned("GET", "/apps/3/channels/cache-a", "info=cache", "").unwrap();
    let draft = Draft {
        channel: within("cache-a"),
        payload: Payload::parse(r#"{"a":1}"#).unwrap(),
        sender: None,
        exclude: None,
        received: THEN,
        retention: None,
        key: None,
        trace: None,
    };
    let publications = vec![Arc::new(Publication::new(draft, None))];
    let page = Page { epoch: Epoch(1), top: Offset(1), publications };
    let replies = [present("cache-a", 1, 1, &[]), ApiReply::Past { channel: within("cache-a"), page }];
    for (seconds_later, ttl) in [(0, 1800), (1, 1799), (1790, 10), (1800, 0), (9000, 0)] {
        let now = UnixMicros(THEN.0 + seconds_later * 1_000_000);
        let answer = String::from_utf8(plan.encode(&replies, now)).unwrap();
        let expected = format!(r#"{{"occupied":true,"cache":{{"data":"{{\"a\":1}}","ttl":{ttl}}}}}"#);
        assert_eq!(answer, expected);
    }

    let plan = planned("GET", "/apps/3/channels/presence-a/users", "", "").unwrap();
    let answer = told(&plan, &[present("presence-a", 2, 3, &["bob", "ann", "bob"])]);
    assert_eq!(answer, r#"{"users":[{"id":"ann"},{"id":"bob"}]}"#);
}

#[test]
fn a_user_is_spoken_of_within_the_application() {
    let plan = planned("POST", "/apps/3/users/a%40b/terminate_connections", "", "").unwrap();
    let whom = Whom::User(realm().user("a@b"));
    assert_eq!(plan.calls, [ApiCall::Disconnect { whom, reason: CloseReason::Forbidden }]);
    let plan = planned("POST", "/apps/3/users/7/events", "", r#"{"name":"e","data":"x"}"#).unwrap();
    let [ApiCall::Publish { channel, .. }] = &plan.calls[..] else { panic!("{plan:?}") };
    assert_eq!(*channel, within("#server-to-user-7"));
}

#[test]
fn a_bad_request_says_what_would_be_right() {
    let many = format!(r#"{{"name":"e","data":"x","channels":[{}"a"]}}"#, r#""a","#.repeat(100));
    let batch = format!(r#"{{"batch":[{}{{}}]}}"#, "{},".repeat(10));
    for (method, path, query, body, code, part) in [
        ("POST", "/apps/3/events", "", "", ErrorCode::BadRequest, "a JSON object"),
        ("POST", "/apps/3/events", "", "[]", ErrorCode::BadRequest, "a JSON object"),
        ("POST", "/apps/3/events", "", "{}", ErrorCode::BadRequest, "missing field"),
        ("POST", "/apps/3/events", "", r#"{"name":"e","data":"x"}"#, ErrorCode::BadRequest, "to 0"),
        ("POST", "/apps/3/events", "", &many, ErrorCode::BadRequest, "to 101"),
        (
            "POST",
            "/apps/3/events",
            "",
            r#"{"name":"","data":"x","channel":"a"}"#,
            ErrorCode::BadRequest,
            "`name`",
        ),
        (
            "POST",
            "/apps/3/events",
            "",
            r#"{"name":"e","data":{},"channel":"a"}"#,
            ErrorCode::BadRequest,
            "string",
        ),
        (
            "POST",
            "/apps/3/events",
            "",
            r#"{"name":"e","data":"x","channel":"a:b"}"#,
            ErrorCode::BadRequest,
            "name",
        ),
        (
            "POST",
            "/apps/3/events",
            "",
            r#"{"name":"e","data":"x","channel":"a","socket_id":"7"}"#,
            ErrorCode::BadRequest,
            "`socket_id`",
        ),
        ("POST", "/apps/3/batch_events", "", &batch, ErrorCode::BadRequest, "missing field"),
        ("POST", "/apps/3/batch_events", "", r#"{"batch":[]}"#, ErrorCode::BadRequest, "this one has 0"),
        ("GET", "/apps/3/channels", "info=user_count", "", ErrorCode::BadRequest, "presence-"),
        ("GET", "/apps/3/channels", "filter_by_prefix=*", "", ErrorCode::BadRequest, "filter_by_prefix"),
        ("GET", "/apps/3/channels/a", "info=user_count", "", ErrorCode::BadRequest, "presence"),
        ("GET", "/apps/3/channels/a/users", "", "", ErrorCode::BadRequest, "presence"),
        ("GET", "/apps/3/events", "", "", ErrorCode::NotFound, "no GET events"),
        ("POST", "/apps/3", "", "", ErrorCode::NotFound, "no POST"),
    ] {
        let failure = planned(method, path, query, body).unwrap_err();
        assert_eq!(failure.code, code, "{path} {body}");
        assert!(failure.explanation.contains(part), "{path} {body}: {}", failure.explanation);
    }
}
