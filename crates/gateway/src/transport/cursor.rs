//! Where the reader of a one-way transport stands in its channels: what `id`, `Last-Event-ID` and `since` say.
//!
//! A cursor is the position in each channel, in the order in which the request names them, `-` where there is none:
//! `9f3c1a7b5e0d4520:7,-,27aa5e0d45209f3c:12`. It moves with what the client is handed, frame by frame, so wherever the
//! connection is cut, the last one that arrived says what is missing.
//!
//! Like any client of the protocol, a reader keeps the epoch of the last `subscribed` and the offset of the last message.
//! After `subscribed` the replayed messages follow, so until the last of them has been handed over the old position is
//! the true one. Only a `rewind` has no old position: then there is none until it is over.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use fanfare_protocol::command::Start;
use fanfare_protocol::event::Entry;
use fanfare_protocol::publication::{Epoch, Offset, Position};
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Publication};

/// A channel that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) channel: Channel,
    pub(crate) start: Start,
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Cursor {
    places: Box<[Place]>,
    /// `subscribed` frames that are on their way through the outbox.
    entering: VecDeque<(Bytes, usize, Option<Entry>)>,
    /// The channel whose rewound messages are being handed over, and where it stands after them.
    rewinding: Option<(usize, Position)>,
    is_told: bool,
}

#[derive(Debug)]
struct Place {
    channel: Channel,
    start: Start,
    position: Option<Position>,
    /// That of the last `subscribed`.
    epoch: Epoch,
}

impl Cursor {
    pub(crate) fn new(wanted: &[Wanted]) -> Self {
        let place = |it: &Wanted| {
            let position = if let Start::Since(since) = it.start { Some(since) } else { None };
            Place { channel: it.channel.clone(), start: it.start, position, epoch: Epoch::NEVER }
        };
        let places = wanted.iter().map(place).collect();
        Self { places, entering: VecDeque::new(), rewinding: None, is_told: true }
    }

    /// The positions that a request names, one for each of `channels`; `None` when it is not a cursor of so many.
    pub(crate) fn parse(text: &str, channels: usize) -> Option<Vec<Option<Position>>> {
        let positions: Vec<_> = text.split(',').map(parse_position).collect::<Option<_>>()?;
        (positions.len() == channels).then_some(positions)
    }

    /// This frame, on its way to the client, tells where it enters a channel.
    pub(crate) fn entering(&mut self, channel: &Channel, entry: Option<Entry>, frame: &Frame) {
        if let Some(index) = self.index(channel) {
            self.entering.push_back((frame.bytes().clone(), index, entry));
        }
    }

    /// Whether this frame tells the client no more than that a channel goes on from where the client left it, as far as
    /// anything is known of that.
    pub(crate) fn is_resumption(&self, frame: &Bytes) -> bool {
        self.next_entering(frame).is_some_and(|entry| entry.is_none_or(|entry| entry.recovered))
    }

    /// What the frame says about the channel that it enters, if it does. While we hold its memory nothing else can be where
    /// the frame is.
    fn next_entering(&self, frame: &Bytes) -> Option<Option<Entry>> {
        let (entering, _, entry) = self.entering.front()?;
        (entering.as_ptr() == frame.as_ptr()).then_some(*entry)
    }

    /// A frame is handed over: a publication, or one of the session's.
    pub(crate) fn pass(&mut self, frame: &Bytes, publication: Option<&Publication>) {
        if let Some(publication) = publication {
            if let (Some(index), Some(position)) = (self.index(&publication.channel), publication.position) {
                let is_replayed =
                    self.rewinding.is_some_and(|(it, end)| it == index && position.offset <= end.offset);
                if !is_replayed {
                    self.settle();
                }
                let epoch = self.places[index].epoch;
                self.go_to(index, Position { epoch, offset: position.offset });
            }
            return;
        }
        self.settle();
        if self.next_entering(frame).is_some()
            && let Some((_, index, Some(entry))) = self.entering.pop_front()
        {
            self.enter(index, entry);
        }
    }

    /// Nothing more waits: what was to be replayed has been.
    pub(crate) fn settle(&mut self) {
        if let Some((index, end)) = self.rewinding.take() {
            self.go_to(index, end);
        }
    }

    /// Whether the client has not been told yet where it stands.
    pub(crate) fn is_news(&self) -> bool {
        !self.is_told && self.places.iter().any(|place| place.position.is_some())
    }

    pub(crate) fn told(&mut self) {
        self.is_told = true;
    }

    fn enter(&mut self, index: usize, entry: Entry) {
        let Position { epoch, offset } = entry.position;
        self.places[index].epoch = epoch;
        match self.places[index].start {
            Start::Since(since) if entry.recovered => {
                self.go_to(index, Position { epoch, offset: since.offset });
            }
            Start::Rewind(_) if entry.recovered => self.rewinding = Some((index, entry.position)),
            Start::Live | Start::Since(_) | Start::Rewind(_) => self.go_to(index, Position { epoch, offset }),
        }
    }

    fn go_to(&mut self, index: usize, position: Position) {
        // An offset within an epoch never falls back: what is handed over last is the newest.
        self.is_told &= self.places[index].position == Some(position);
        self.places[index].position = Some(position);
    }

    fn index(&self, channel: &Channel) -> Option<usize> {
        self.places.iter().position(|place| place.channel == *channel)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.places.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match place.position {
                Some(Position { epoch, offset: Offset(offset) }) => write!(f, "{epoch}:{offset}")?,
                None => f.write_str("-")?,
            }
        }
        Ok(())
    }
}

fn parse_position(text: &str) -> Option<Option<Position>> {
    if text == "-" {
        return Some(None);
    }
    let (epoch, offset) = text.split_once(':')?;
    let is_number = offset.bytes().all(|byte| byte.is_ascii_digit());
    let offset = Some(offset).filter(|_| is_number)?.parse().ok()?;
    // An epoch of another shape is one that never was, as it is to any other client.
    Some(Some(Position { epoch: Epoch::parse(epoch).unwrap_or(Epoch::NEVER), offset: Offset(offset) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::publication::{Draft, Payload};
    use fanfare_protocol::time::UnixMicros;

    const OLD: Epoch = Epoch(0x0a);
    const NEW: Epoch = Epoch(0x0b);

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    fn at(epoch: Epoch, offset: u64) -> Position {
        Position { epoch, offset: Offset(offset) }
    }

    fn cursor<const COUNT: usize>(wanted: [(&str, Start); COUNT]) -> Cursor {
        let wanted = wanted.map(|(name, start)| Wanted { channel: channel(name), start });
        Cursor::new(&wanted)
    }

    /// A frame that enters a channel, not yet handed over.
    fn entering(cursor: &mut Cursor, name: &str, position: Position, recovered: bool) -> Bytes {
        let frame = Frame::text("subscribed");
        cursor.entering(&channel(name), Some(Entry { position, recovered }), &frame);
        frame.into()
    }

    fn publication(name: &str, position: Option<Position>) -> Publication {
        let draft = Draft {
            channel: channel(name),
            payload: Payload::parse("1").unwrap(),
            sender: None,
            exclude: None,
            received: UnixMicros(0),
            retention: None,
            key: None,
            trace: None,
        };
        Publication::new(draft, position)
    }

    fn hear(cursor: &mut Cursor, name: &str, offset: u64) {
        cursor.pass(&Bytes::from_static(b"frame"), Some(&publication(name, Some(at(NEW, offset)))));
    }

    /// What the client is told when it is told now; nothing when that is not news.
    fn told(cursor: &mut Cursor) -> Option<String> {
        let text = cursor.is_news().then(|| cursor.to_string());
        cursor.told();
        text
    }

    #[test]
    fn a_live_reader_stands_where_it_entered_and_then_at_the_last_message() {
        let mut cursor = cursor([("a", Start::Live)]);
        let frame = entering(&mut cursor, "a", at(NEW, 7), false);
        assert_eq!(told(&mut cursor), None, "it has not been handed over");
        cursor.pass(&frame, None);
        assert_eq!(told(&mut cursor).as_deref(), Some("000000000000000b:7"));
        assert_eq!(told(&mut cursor), None, "once");
        hear(&mut cursor, "a", 8);
        assert_eq!(told(&mut cursor).as_deref(), Some("000000000000000b:8"));
        cursor.pass(&Bytes::from_static(b"joined"), None);
        assert_eq!(told(&mut cursor), None);
    }

    #[test]
    fn a_recovering_reader_stands_where_it_was_until_it_has_heard_what_it_missed() {
        let mut cursor = cursor([("a", Start::Since(at(OLD, 3)))]);
        let frame = entering(&mut cursor, "a", at(NEW, 5), true);
        cursor.pass(&frame, None);
        assert_eq!(told(&mut cursor).as_deref(), Some("000000000000000b:3"), "under the epoch it was told");
        hear(&mut cursor, "a", 4);
        assert_eq!(told(&mut cursor).as_deref(), Some("000000000000000b:4"));
    }

    #[test]
    fn a_reader_that_has_lost_messages_goes_on_from_where_it_was_told_so() {
        let mut cursor = cursor([("a", Start::Since(at(OLD, 3)))]);
        let frame = entering(&mut cursor, "a", at(NEW, 5), false);
        assert_eq!(cursor.to_string(), "000000000000000a:3", "and not before");
        cursor.pass(&frame, None);
        assert_eq!(told(&mut cursor).as_deref(), Some("000000000000000b:5"));
    }

    #[test]
    fn a_rewinding_reader_has_no_place_before_the_last_rewound_message() {
        for replayed in [vec![], vec![4, 5]] {
            let mut cursor = cursor([("a", Start::Rewind(2))]);
            let frame = entering(&mut cursor, "a", at(NEW, 5), true);
            cursor.pass(&frame, None);
            assert_eq!(told(&mut cursor), None);
            for &offset in &replayed {
                hear(&mut cursor, "a", offset);
                assert_eq!(told(&mut cursor), Some(format!("000000000000000b:{offset}")));
            }
            cursor.settle();
            assert_eq!(cursor.to_string(), "000000000000000b:5", "after {replayed:?}");
        }
    }

    #[test]
    fn each_channel_has_its_place_in_the_order_of_the_request() {
        let mut cursor = cursor([("a", Start::Live), ("b", Start::Live), ("c", Start::Since(at(OLD, 1)))]);
        let first = entering(&mut cursor, "a", at(NEW, 1), false);
        let third = entering(&mut cursor, "c", at(NEW, 9), false);
        cursor.pass(&first, None);
        hear(&mut cursor, "a", 2);
        assert_eq!(cursor.to_string(), "000000000000000b:2,-,000000000000000a:1", "c has not been told yet");
        cursor.pass(&third, None);
        cursor.pass(&Bytes::from_static(b"frame"), Some(&publication("b", None)));
        let text = cursor.to_string();
        assert_eq!(text, "000000000000000b:2,-,000000000000000b:9");
        let positions = [Some(at(NEW, 2)), None, Some(at(NEW, 9))];
        assert_eq!(Cursor::parse(&text, 3), Some(positions.to_vec()));
        assert_eq!(Cursor::parse(&text, 2), None);
    }

    #[test]
    fn what_is_no_cursor_is_not_taken_for_one() {
        for bad in
            ["", "7", ":", "a:", "a:-1", "a:+1", "a:1 ", "000000000000000b:18446744073709551616", "a:1,"]
        {
            assert_eq!(Cursor::parse(bad, 1), None, "{bad:?}");
        }
        let never = Some(vec![Some(at(Epoch::NEVER, 1))]);
        assert_eq!(Cursor::parse("elsewhere:1", 1), never, "a place in a stream that never was");
    }
}
