//! How much a node logs, for a while: of the node that is asked, and of no other.

use std::time::Duration;

use fanfare_protocol::error::{ErrorCode, Failure};
use serde::{Deserialize, Deserializer, Serialize};

use crate::logging::{self, Level, Unchanged};

/// How long another level lasts where the caller does not say.
const SECONDS: u64 = 600;

/// The longest that one may last: a log at `trace` is large.
pub(super) const SECONDS_MAX: u64 = 86_400;

/// What a level is, as OpenAPI has it. More could be said to the filter; but it is read while the node serves.
pub(super) const PATTERN: &str =
    "^(off|error|warn|info|debug|trace)(,[a-z][a-z0-9_:]*=(off|error|warn|info|debug|trace))*$";

/// The longest.
pub(super) const LEVEL_BYTES_MAX: usize = 256;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    #[serde(deserialize_with = "given")]
    level: Option<String>,
    #[serde(deserialize_with = "given")]
    seconds: Option<f64>,
}

/// A field that is there: `null` is no value of it.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Whether it matches [`PATTERN`].
fn is_level(text: &str) -> bool {
    let is_word = |it: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&it);
    let is_target = |it: &str| {
        it.starts_with(|it: char| it.is_ascii_lowercase())
            && it.chars().all(|it| matches!(it, 'a'..='z' | '0'..='9' | '_' | ':'))
    };
    let mut parts = text.split(',');
    let is_directive =
        |it: &str| it.split_once('=').is_some_and(|(target, level)| is_target(target) && is_word(level));
    text.len() <= LEVEL_BYTES_MAX && parts.next().is_some_and(is_word) && parts.all(is_directive)
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    level: &'a str,
    /// For how long it still holds; null where it is that of the configuration.
    seconds: Option<u64>,
}

/// Answers what is logged, after that was changed if it is to be.
pub(super) fn answer(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let bad = |text: &str| Failure::new(ErrorCode::BadRequest, text);
    let asked = Some(body).filter(|body| body.trim_ascii_start().starts_with(b"{"));
    let Some(Asked { level, seconds }) = asked.and_then(|body| serde_json::from_slice(body).ok()) else {
        return Err(bad("log takes a JSON object: `level`, a string, and `seconds`, a whole number"));
    };
    let seconds = seconds.unwrap_or(SECONDS as f64);
    if seconds.fract() != 0.0 || !(1.0..=SECONDS_MAX as f64).contains(&seconds) {
        return Err(bad(&format!("`seconds` is a whole number from 1 to {SECONDS_MAX}")));
    }
    let level = match &level {
        Some(level) if !is_level(level) => Err(Unchanged::Misspelt),
        Some(level) => logging::pass(level, Duration::from_secs_f64(seconds)),
        None => logging::level(),
    };
    let Level { level, lasts } = level.map_err(|error| match error {
        Unchanged::Misspelt => bad(&error.to_string()),
        Unchanged::Silent => Failure::new(ErrorCode::NotOffered, error.to_string()),
    })?;
    let said = Said { kind: "log", level: &level, seconds: lasts.map(|it| it.as_secs()) };
    Ok(serde_json::to_vec(&said).expect("plain fields are JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_question_says_what_would_be_right() {
        for (body, part) in [
            ("", "takes a JSON object"),
            ("[\"debug\"]", "takes a JSON object"),
            (r#"{"level":7}"#, "takes a JSON object"),
            (r#"{"level":null}"#, "takes a JSON object"),
            (r#"{"level":"debug","seconds":1.5}"#, "whole number from 1 to"),
            (r#"{"level":"debug","seconds":0}"#, "from 1 to"),
            (r#"{"level":"debug","seconds":86401}"#, "from 1 to"),
            (r#"{"level":"info,[","seconds":1}"#, "directives such as"),
            (r#"{"level":"loud","seconds":1}"#, "directives such as"),
            (r#"{"level":""}"#, "directives such as"),
        ] {
            let failure = answer(body.as_bytes()).unwrap_err();
            assert!(
                failure.code == ErrorCode::BadRequest && failure.explanation.contains(part),
                "{body}: {failure:?}"
            );
        }
    }

    #[test]
    fn a_level_is_a_word_and_perhaps_others_for_parts_of_the_program() {
        for good in ["off", "debug", "info,fanfare_gateway::hooks=trace", "warn,hyper=info,a_1=off"] {
            assert!(is_level(good), "{good}");
        }
        for bad in [
            "",
            "loud",
            "debug,",
            "fanfare=debug",
            "info,Fanfare=debug",
            "info,a[b]=trace",
            "info,a=",
            "info,=debug",
        ] {
            assert!(!is_level(bad), "{bad}");
        }
        assert!(!is_level(&format!("info,{}=debug", "a".repeat(LEVEL_BYTES_MAX))));
    }
}
