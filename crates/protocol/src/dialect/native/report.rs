//! What happened, as this dialect tells a backend: one JSON object for many.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::happening::{Happening, Noticed, Report};
use crate::time::UnixMicros;

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    node: &'a str,
    time: u64,
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    time: u64,
    #[serde(flatten)]
    fields: Fields<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Fields<'a> {
    Connected { session: String, user: Option<&'a str> },
    Disconnected { session: String, user: Option<&'a str>, code: u16 },
    Occupied { channel: &'a str },
    Vacated { channel: &'a str },
    Counted { channel: &'a str, connections: u64 },
    Joined { channel: &'a str, user: &'a str },
    Left { channel: &'a str, user: &'a str },
    Published { channel: &'a str, data: Box<RawValue>, session: String, user: Option<&'a str> },
    NothingKept { channel: &'a str },
}

/// The body of a report that is sent at this time.
pub fn encode(report: &Report<'_>, now: UnixMicros) -> Vec<u8> {
    let events = report.noticed.iter().map(event).collect();
    let body = Body { id: report.id, node: report.node, time: now.millis(), events };
    serde_json::to_vec(&body).expect("these fields have string keys")
}

fn event(Noticed { at, happening }: &Noticed) -> Event<'_> {
    use Happening as It;
    let fields = match happening {
        It::Connected { session, user } => {
            Fields::Connected { session: session.to_string(), user: user.as_ref().map(|it| it.as_str()) }
        }
        It::Disconnected { session, user, code } => Fields::Disconnected {
            session: session.to_string(),
            user: user.as_ref().map(|it| it.as_str()),
            code: *code,
        },
        It::Occupied { channel } => Fields::Occupied { channel: channel.as_str() },
        It::Vacated { channel } => Fields::Vacated { channel: channel.as_str() },
        It::Counted { channel, connections } => {
            Fields::Counted { channel: channel.as_str(), connections: *connections }
        }
        It::Joined { channel, user } => Fields::Joined { channel: channel.as_str(), user: user.as_str() },
        It::Left { channel, user } => Fields::Left { channel: channel.as_str(), user: user.as_str() },
        It::Published { channel, payload, session, user } => Fields::Published {
            channel: channel.as_str(),
            data: raw(&payload.json()),
            session: session.to_string(),
            user: user.as_ref().map(|it| it.as_str()),
        },
        It::NothingKept { channel } => Fields::NothingKept { channel: channel.as_str() },
    };
    Event { time: at.millis(), fields }
}

fn raw(json: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(json).into_owned();
    RawValue::from_string(text).expect("a payload is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use crate::id::{SessionId, UserId};

    #[test]
    fn a_report_says_what_happened_and_when() {
        let (session, channel) = (SessionId::from_random([1; 16]), Channel::parse("room:1").unwrap());
        let happenings = [
            Happening::Connected { session, user: Some(UserId::new("ann")) },
            Happening::Disconnected { session, user: None, code: 1001 },
            Happening::Occupied { channel: channel.clone() },
            Happening::Vacated { channel },
        ];
        let at = |(place, happening)| Noticed { at: UnixMicros(place as u64 * 1000), happening };
        let noticed: Vec<_> = happenings.into_iter().enumerate().map(at).collect();
        let body = encode(&Report { id: "7f", node: "one", noticed: &noticed }, UnixMicros(9_000_000));
        let id = "01010101010101010101010101010101";
        let expected = format!(
            concat!(
                r#"{{"id":"7f","node":"one","time":9000,"events":["#,
                r#"{{"time":0,"type":"connected","session":"{id}","user":"ann"}},"#,
                r#"{{"time":1,"type":"disconnected","session":"{id}","user":null,"code":1001}},"#,
                r#"{{"time":2,"type":"occupied","channel":"room:1"}},"#,
                r#"{{"time":3,"type":"vacated","channel":"room:1"}}]}}"#,
            ),
            id = id
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}
