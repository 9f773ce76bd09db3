//! What is asked of a channel's past, and what comes of it.

use std::sync::Arc;

use crate::error::{ErrorCode, Failure};
use crate::publication::{Epoch, Offset, Position, Publication};

/// The most publications in one page.
pub const PAGE_MAX: usize = 1000;

/// Which part of a channel's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Only what was published after this (forward) or before it (in reverse).
    pub since: Option<Offset>,
    /// At most so many; 0 asks for the position alone.
    pub limit: usize,
    /// The newest first.
    pub reverse: bool,
}

/// Which part of a channel's history, as clients say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Only what was published after this (forward) or before it (in reverse), if it is a position of this stream.
    pub since: Option<Position>,
    /// At most so many; 0 asks for the position alone.
    pub limit: usize,
    /// The newest first.
    pub reverse: bool,
}

impl Excerpt {
    /// What has to be read for it: the publication at `since` too, which may prove that the position still counts.
    pub fn query(self) -> Query {
        let Self { since, limit, reverse } = self;
        let beyond = |Position { offset: Offset(offset), .. }| match reverse {
            false => Offset(offset.saturating_sub(1)),
            true => Offset(offset.saturating_add(1)),
        };
        Query { since: since.map(beyond), limit: limit + usize::from(since.is_some()), reverse }
    }

    /// What was asked for, out of the page that was read for it.
    ///
    /// # Errors
    /// 4410 when `since` is of an epoch that is over and the page does not show that the stream goes on from there: then
    /// its offsets say nothing about this one.
    pub fn of(self, mut page: Page) -> Result<Page, Failure> {
        if let Some(since) = self.since {
            if since.epoch != page.epoch && !since.is_shown_by(&page.publications) {
                let text = "`since` is of a stream that is lost: read without it";
                return Err(Failure::new(ErrorCode::Gap, text));
            }
            page.publications.retain(|publication| publication.offset() != since.offset);
            page.publications.truncate(self.limit);
        }
        Ok(page)
    }
}

/// A part of a channel's history, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The stream's life.
    pub epoch: Epoch,
    /// The offset of the newest publication ever placed in it; 0 when there was none.
    pub top: Offset,
    /// What the query asked for and is still kept, in the order it asked for.
    pub publications: Vec<Arc<Publication>>,
}

impl Page {
    /// Where the stream stood.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.top }
    }

    /// Keeps its first publications: as many as have at most so many bytes of data together, in whichever format they are
    /// read, and at least one.
    pub fn shorten(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        let fitting = self.publications.iter().take_while(|publication| {
            bytes += publication.payload.bytes_at_most();
            bytes <= bytes_max
        });
        let fitting = fitting.count().max(1);
        self.publications.truncate(fitting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use crate::publication::{Draft, Payload};
    use crate::time::UnixMicros;

    const OLD: Epoch = Epoch(1);
    const NEW: Epoch = Epoch(2);
    const TOP: u64 = 9;

    fn placed(offset: u64) -> Arc<Publication> {
        let draft = Draft {
            channel: Channel::parse("a").unwrap(),
            payload: Payload::parse("1").unwrap(),
            sender: None,
            exclude: None,
            received: UnixMicros(offset),
            retention: None,
            key: None,
            trace: None,
        };
        let epoch = if offset <= 6 { OLD } else { NEW };
        Arc::new(Publication::new(draft, Some(Position { epoch, offset: Offset(offset) })))
    }

    /// A broker that keeps 4 to 9, the first three of them from an epoch that is over.
    fn read(query: Query) -> Page {
        let mut publications: Vec<_> = (4..=TOP).map(placed).collect();
        if query.reverse {
            publications.reverse();
        }
        publications.retain(|it| match query.since {
            Some(since) if query.reverse => it.offset() < since,
            Some(since) => it.offset() > since,
            None => true,
        });
        publications.truncate(query.limit);
        Page { epoch: NEW, top: Offset(TOP), publications }
    }

    #[test]
    fn an_excerpt_begins_where_it_was_asked_to_if_the_stream_goes_on_from_there() {
        for (epoch, offset, limit, reverse, expected) in [
            (NEW, 6, 9, false, Some(vec![7, 8, 9])),
            (NEW, 0, 2, false, Some(vec![4, 5])),
            (NEW, 9, 2, false, Some(vec![])),
            (NEW, 7, 2, true, Some(vec![6, 5])),
            (NEW, u64::MAX, 1, true, Some(vec![9])),
            (OLD, 6, 9, false, Some(vec![7, 8, 9])),
            (OLD, 6, 0, false, Some(vec![])),
            (OLD, 5, 2, false, Some(vec![6, 7])),
            (OLD, 3, 1, false, Some(vec![4])),
            (OLD, 6, 2, true, Some(vec![5, 4])),
            (OLD, 7, 9, false, None),
            (OLD, 7, 9, true, None),
            (OLD, 12, 9, true, None),
            (Epoch(3), 5, 9, false, None),
            (Epoch::NEVER, 5, 9, false, None),
        ] {
            let since = Some(Position { epoch, offset: Offset(offset) });
            let excerpt = Excerpt { since, limit, reverse };
            let page = excerpt.of(read(excerpt.query()));
            let got = page.map(|page| page.publications.iter().map(|it| it.offset().0).collect());
            assert_eq!(got.map_err(|failure| failure.code), expected.ok_or(ErrorCode::Gap), "{excerpt:?}");
        }
        let whole = Excerpt { since: None, limit: 3, reverse: false };
        assert_eq!(whole.of(read(whole.query())).unwrap().publications.len(), 3);
    }
}
