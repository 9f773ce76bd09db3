//! What a backend answers, to whatever question: each reader makes of it a word that a client or a token could have said, or
//! nothing at all; and all of them see the same refusal in it.

#![no_main]

use std::time::Duration;

use fanfare_protocol::error::{APPLICATION_NUMBERS, ErrorCode, Failure};
use fanfare_protocol::grant::Grant;
use fanfare_protocol::grant::claims::ID_BYTES_MAX;
use fanfare_protocol::publication::Payload;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{SessionId, UserId, hook};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

const NOW: UnixMicros = UnixMicros(1_767_225_600_000_000);

fuzz_target!(|body: &[u8]| {
    let presumed = Grant { user: Some(UserId::new("ann")), token: Some("t1".into()), ..Grant::default() };
    let connected = hook::connect(body, Some(&presumed), NOW);
    let (consented, published, called) = (hook::consent(body), hook::publish(body), hook::call(body));

    if let Ok(Err(failure)) = &connected {
        is_a_refusal(failure);
        assert_eq!(consented, Ok(Err(failure.clone())));
        assert_eq!(published, Ok(Err(failure.clone())));
        assert_eq!(called, Ok(Err(failure.clone())));
    }
    if let Ok(Ok(grant)) = &connected {
        is_a_grant(body, grant, &presumed);
    }
    if let Ok(Ok(instead)) = &published {
        instead.iter().for_each(is_json);
        let none = Payload::parse("null").expect("it is JSON");
        assert_eq!(called, Ok(Ok(instead.clone().unwrap_or(none))));
        assert_eq!(consented.is_ok(), instead.is_none(), "yes or no takes no data");
    }
    if let Ok(answers) = hook::refresh_answers(body) {
        // Each is read for itself, as an answer to `connect`.
        if let Some(answer) = answers(SessionId::from_random([7; 16])) {
            serde_json::from_slice::<&RawValue>(answer).expect("a part of JSON is JSON");
            if let Ok(Ok(grant)) = hook::connect(answer, Some(&presumed), NOW) {
                is_a_grant(answer, &grant, &presumed);
            }
        }
    }
});

fn is_json(payload: &Payload) {
    serde_json::from_slice::<&RawValue>(payload.as_bytes()).expect("what is published is JSON");
}

fn is_a_refusal(failure: &Failure) {
    assert!(failure.code != ErrorCode::Gap && failure.explanation.len() <= 1024);
    assert!(failure.retry_after.is_none_or(|wait| wait <= Duration::from_secs(3_600)));
    assert!(failure.application.is_none_or(|number| APPLICATION_NUMBERS.contains(&number.get())));
}

/// What is said of a client is what it said; the rest is as it was known.
fn is_a_grant(body: &[u8], grant: &Grant, presumed: &Grant) {
    assert!(grant.ends.is_none_or(|ends| ends > NOW), "a word that is over lets nobody in");
    assert!(grant.user.as_ref().is_none_or(|user| (1..=ID_BYTES_MAX).contains(&user.as_str().len())));
    assert_eq!(grant.token, presumed.token, "the token is still that of the client");
    grant.profile.iter().for_each(is_json);
    // What has a number that nobody can hold is JSON as well.
    let said = if body.trim_ascii().is_empty() { Ok(Value::Null) } else { serde_json::from_slice(body) };
    let Ok(said) = said else { return };
    let user = said.get("user").map_or(Some("ann"), |user| user.as_str().filter(|user| !user.is_empty()));
    assert_eq!(grant.user.as_ref().map(|user| user.as_str()), user);
    assert_eq!(grant.ends.is_some(), said.get("expires").is_some_and(|it| !it.is_null()));
}
