//! The claims of a token whose signature is good, which is all that is known of them: what is granted is what they say, and
//! now. The first byte picks what is expected, the rest is JSON.

#![no_main]

use std::time::Duration;

use fanfare_protocol::Channel;
use fanfare_protocol::grant::claims::{self, Expected, ID_BYTES_MAX};
use fanfare_protocol::grant::{Verb, owner};
use fanfare_protocol::time::UnixMicros;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

const NOW: UnixMicros = UnixMicros(1_767_225_600_000_000);
const LEEWAY: Duration = Duration::from_secs(30);

fuzz_target!(|bytes: &[u8]| {
    let [picked, json @ ..] = bytes else { return };
    let expected = Expected {
        issuer: (picked & 1 == 1).then(|| "us".into()),
        audience: (picked & 2 == 2).then(|| "here".into()),
        leeway: LEEWAY,
    };
    let Ok(grant) = claims::read(json, &expected, NOW) else { return };
    let text = str::from_utf8(json).expect("claims are text");
    serde_json::from_str::<&RawValue>(text).expect("claims are JSON");
    // What has a number that nobody can hold is JSON as well.
    let Ok(said) = serde_json::from_str::<Value>(text) else { return };
    assert!(said.is_object());
    assert!(grant.ends.is_none_or(|ends| ends > NOW), "an expired token grants nothing");
    assert_eq!(grant.ends.is_some(), !said["exp"].is_null(), "a token ends if and only if it says so");
    let sub = said["sub"].as_str().filter(|sub| !sub.is_empty());
    assert_eq!(grant.user.as_ref().map(|user| user.as_str()), sub, "an empty name is nobody's");
    assert!(grant.user.as_ref().is_none_or(|user| (1..=ID_BYTES_MAX).contains(&user.as_str().len())));
    if expected.issuer.is_some() {
        assert_eq!(said["iss"], "us");
    }
    if let Some(channel) = grant.personal_channel() {
        assert!(grant.owns(&channel));
        assert_eq!(owner(&channel), sub);
    }
    let anything = Channel::parse("user:somebody-else").expect("a name");
    assert!(!grant.owns(&anything) || said["sub"] == "somebody-else");
    // Whatever the patterns: this takes no longer than they are long.
    for channel in grant.channels.iter().chain([&anything]) {
        for verb in [Verb::Subscribe, Verb::Publish, Verb::Presence, Verb::History] {
            let is_open = grant.allows(verb, channel);
            assert!(!is_open || !grant.allowances.is_empty() || verb == Verb::Subscribe);
        }
    }
});
