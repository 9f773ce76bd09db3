//! What a request to `/sse`, `/stream` or `/poll` asks for: its query and `Last-Event-ID`.

use std::borrow::Cow;
use std::time::Duration;

use ::http::{HeaderMap, Uri};
use fanfare_protocol::Channel;
use fanfare_protocol::command::Start;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::publication::{Epoch, Offset, Position};

use crate::connection::Listening;
use crate::transport::lines::Arrival;
use crate::transport::{Cursor, Wanted};

/// What the parameters say.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) listening: Listening,
    /// How long a poll may be held; as long as the gateway likes when the client does not say.
    pub(super) wait: Option<Duration>,
}

/// Reads a request. Parameters that are not known are ignored, like fields of a command.
///
/// # Errors
/// What is wrong, and what would be right.
pub(super) fn read(uri: &Uri, headers: &HeaderMap, channels_max: usize) -> Result<Query, Failure> {
    let mut channels: Vec<Channel> = Vec::new();
    let (mut since, mut rewind, mut presence, mut wait) = (None, None, false, None);
    for (name, value) in pairs(uri.query().unwrap_or_default()) {
        let value =
            value.ok_or_else(|| bad(format!("the parameter `{name}` is not UTF-8 in percent encoding")))?;
        match &*name {
            "channel" => channels.push(channel(&value, &channels)?),
            "since" => since = Some(value),
            "rewind" => rewind = Some(number(&value, "rewind", "a number of messages")?),
            "presence" => presence = switch(&value)?,
            "wait" => wait = Some(Duration::from_secs(number(&value, "wait", "a number of seconds")?.into())),
            _ => {}
        }
    }
    if channels.is_empty() {
        return Err(bad("`channel` is missing: name one, or several by repeating it"));
    }
    if channels.len() > channels_max {
        let text =
            format!("a connection may subscribe to {channels_max} channels: open another for the rest");
        return Err(Failure::new(ErrorCode::LimitReached, text));
    }
    let last_event_id = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let positions = positions(last_event_id, since.as_deref(), channels.len())?;
    let arrival = if positions.is_some() { Arrival::Again } else { Arrival::First };
    let positions = positions.unwrap_or_else(|| vec![None; channels.len()]);
    let start = |position| match (position, rewind) {
        (Some(position), _) => Start::Since(position),
        (None, Some(count)) => Start::Rewind(count),
        (None, None) => Start::Live,
    };
    let wanted = channels.into_iter().zip(positions);
    let channels = wanted.map(|(channel, position)| Wanted { channel, start: start(position) }).collect();
    Ok(Query { listening: Listening { channels, arrival, presence }, wait })
}

/// Where the client stands: by the header that a browser sends of its own accord when it comes back, else by the query,
/// which then is the one it came with at first.
fn positions(
    last_event_id: Option<&str>,
    since: Option<&str>,
    channels: usize,
) -> Result<Option<Vec<Option<Position>>>, Failure> {
    match (last_event_id, since) {
        (Some(id), _) if !id.is_empty() => {
            // Not one of ours. The browser would send it again and again, so it is a place that is lost, not a mistake.
            let lost = Position { epoch: Epoch::NEVER, offset: Offset(0) };
            Ok(Some(Cursor::parse(id, channels).unwrap_or_else(|| vec![Some(lost); channels])))
        }
        (_, Some(since)) => {
            let text = format!(
                "`since` must be <epoch>:<offset> as the server sent them, one for each of {channels} channels, \
                 separated by commas; - where there is none"
            );
            Cursor::parse(since, channels).map(Some).ok_or_else(|| bad(text))
        }
        (_, None) => Ok(None),
    }
}

fn channel(value: &str, known: &[Channel]) -> Result<Channel, Failure> {
    let channel =
        Channel::parse(value).map_err(|error| bad(format!("`channel` is not a channel name: {error}")))?;
    if known.contains(&channel) {
        return Err(bad(format!("`channel` names {:?} twice", channel.as_str())));
    }
    Ok(channel)
}

fn number(value: &str, name: &str, what: &str) -> Result<u32, Failure> {
    value.parse().map_err(|_| bad(format!("`{name}` must be {what}")))
}

fn switch(value: &str) -> Result<bool, Failure> {
    value.parse().map_err(|_| bad("`presence` must be true or false"))
}

/// The first value of a parameter; nothing in it where that is not text.
pub(super) fn value<'a>(uri: &'a Uri, name: &str) -> Option<Option<Cow<'a, str>>> {
    pairs(uri.query().unwrap_or_default()).find_map(|(it, value)| (it == name).then_some(value))
}

/// The parameters in their order; a value that is not text is none.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name).unwrap_or(Cow::Borrowed(name)), decode(value))
    })
}

/// Undoes the encoding of a form (`application/x-www-form-urlencoded`). A `%` that begins no byte stands for itself, as
/// browsers have it.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|digits| {
            let digits =
                str::from_utf8(digits).ok().filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
            u8::from_str_radix(digits, 16).ok()
        });
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                decoded.push(escaped);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn bad(explanation: impl Into<Box<str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "9f3c1a7b5e0d4520";

    fn asked(query: &str, last_event_id: Option<&'static str>) -> Result<Query, Failure> {
        let uri: Uri = format!("/sse?{query}").parse().unwrap();
        let mut headers = HeaderMap::new();
        if let Some(id) = last_event_id {
            headers.insert("last-event-id", id.parse().unwrap());
        }
        read(&uri, &headers, 3)
    }

    fn starts(query: &str, last_event_id: Option<&'static str>) -> Vec<Start> {
        asked(query, last_event_id).unwrap().listening.channels.iter().map(|it| it.start).collect()
    }

    fn since(offset: u64) -> Start {
        Start::Since(Position { epoch: Epoch::parse(EPOCH).unwrap(), offset: Offset(offset) })
    }

    #[test]
    fn channels_are_named_once_each_in_percent_encoding() {
        let query = asked("channel=room%3A1&channel=a%26b&_=7", None).unwrap();
        let names: Vec<_> = query.listening.channels.iter().map(|it| it.channel.as_str()).collect();
        assert_eq!(names, ["room:1", "a&b"]);
        assert_eq!(asked("channel=50%", None).unwrap().listening.channels[0].channel.as_str(), "50%");
    }

    #[test]
    fn the_header_of_a_browser_that_comes_back_is_newer_than_its_query() {
        let at = |offset| format!("channel=a&since={EPOCH}:{offset}");
        assert_eq!(starts(&at(3), None), [since(3)]);
        assert_eq!(starts(&at(3), Some("9f3c1a7b5e0d4520:7")), [since(7)]);
        assert_eq!(starts(&at(3), Some("")), [since(3)]);
        assert_eq!(starts("channel=a&rewind=2", Some("9f3c1a7b5e0d4520:7")), [since(7)]);
        let lost = Start::Since(Position { epoch: Epoch::NEVER, offset: Offset(0) });
        assert_eq!(starts("channel=a&channel=b", Some("elsewhere")), [lost, lost]);
    }

    #[test]
    fn a_channel_without_a_place_is_rewound_or_live() {
        let query = format!("channel=a&channel=b&since=-,{EPOCH}:4");
        assert_eq!(starts(&query, None), [Start::Live, since(4)]);
        assert_eq!(starts(&format!("{query}&rewind=9"), None), [Start::Rewind(9), since(4)]);
        assert_eq!(asked(&query, None).unwrap().listening.arrival, Arrival::Again);
        assert_eq!(asked("channel=a&rewind=9", None).unwrap().listening.arrival, Arrival::First);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (query, code, part) in [
            ("", ErrorCode::BadRequest, "`channel` is missing"),
            ("channel=", ErrorCode::BadRequest, "not a channel name"),
            ("channel=a+b", ErrorCode::BadRequest, "not a channel name"),
            ("channel=%ff", ErrorCode::BadRequest, "not UTF-8"),
            ("channel=a&channel=a", ErrorCode::BadRequest, "twice"),
            ("channel=a&since=7", ErrorCode::BadRequest, "<epoch>:<offset>"),
            ("channel=a&channel=b&since=x:1", ErrorCode::BadRequest, "each of 2 channels"),
            ("channel=a&rewind=-1", ErrorCode::BadRequest, "number of messages"),
            ("channel=a&presence=1", ErrorCode::BadRequest, "true or false"),
            ("channel=a&wait=soon", ErrorCode::BadRequest, "number of seconds"),
            ("channel=a&channel=b&channel=c&channel=d", ErrorCode::LimitReached, "3 channels"),
        ] {
            let failure = asked(query, None).unwrap_err();
            assert_eq!(failure.code, code, "{query}");
            assert!(failure.explanation.contains(part), "{query}: {}", failure.explanation);
        }
    }
}
