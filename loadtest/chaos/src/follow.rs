//! What one subscriber knows of one channel, held against what it was promised.
//!
//! Pure: it is told what is heard and answers with what that means, so that each [`Offence`] can be tested by itself.
//! On a channel with history offsets are consecutive from `subscribed` on, over connections too as long as the answer is
//! `recovered: true`, whatever the epoch; anything that is missing has been owned up to by `recovered: false`. That the
//! place which a client comes back to is the one it left shows in the [`record`](crate::record).

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Position {
    /// The stream's life.
    pub(crate) epoch: String,
    /// The publication's number in it.
    pub(crate) offset: u64,
}

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Offence {
    /// Offsets were skipped, and nobody said so.
    Lost,
    /// The last offset once more, or a publication twice in one life of a stream.
    Doubled,
    /// An offset before the last one; or one publisher's publications out of the order of their numbers.
    Reordered,
    /// Not what was published, or not there; or two who heard the same offset heard different things.
    Altered,
    /// A loss was told of what Redis still had.
    NeedlessGap,
    /// Something that the protocol does not allow here.
    Unexpected,
    /// An acknowledged publication is not in the stream.
    FalseAck,
    /// An acknowledged publication is gone from Redis, and nothing emptied it.
    Forgotten,
    /// A node names one as present who is not.
    Ghost,
    /// A node does not name one who is.
    Missing,
    /// A subscriber is not at the end of the stream when all is quiet, or a publication was never acknowledged.
    Stuck,
    /// A node holds more memory than it has any reason to.
    Memory,
    /// More clients came to a node at once than the pace of a drain allows.
    Storm,
}

/// The entry that `subscribed` grants.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where the stream goes on.
    pub(crate) position: Position,
    /// Whether all since the position asked for follows.
    pub(crate) recovered: bool,
}

/// What an entry means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The first.
    Fresh,
    /// Nothing is missing.
    Recovered,
    /// It was told that something is.
    ToldLoss {
        /// Where it was.
        before: Position,
        /// The stream is another one than before.
        another_epoch: bool,
    },
    /// This should not have been said.
    Offence(Offence),
}

/// One subscriber's place in one channel with history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Follow {
    position: Option<Position>,
}

impl Follow {
    /// Its place; none before the first entry.
    pub(crate) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// It is (again) subscribed, having asked for everything since its position if it had one.
    pub(crate) fn enter(&mut self, entry: Entry) -> Entered {
        let Some(before) = &self.position else {
            self.position = Some(entry.position);
            return Entered::Fresh;
        };
        if entry.recovered {
            if entry.position.offset < before.offset {
                return Entered::Offence(Offence::Reordered);
            }
            // What it asked for follows, so its place is still where it was, if in an epoch that has taken over.
            self.position = Some(Position { offset: before.offset, ..entry.position });
            return Entered::Recovered;
        }
        let (before, another_epoch) = (before.clone(), before.epoch != entry.position.epoch);
        self.position = Some(entry.position);
        Entered::ToldLoss { before, another_epoch }
    }

    /// It hears a publication; the answer is how many were skipped, or what else is wrong.
    pub(crate) fn hear(&mut self, offset: u64) -> Result<(), (Offence, u64)> {
        let Some(position) = &mut self.position else { return Err((Offence::Unexpected, 1)) };
        let last = position.offset;
        if offset > last {
            position.offset = offset;
        }
        match offset {
            it if it == last + 1 => Ok(()),
            it if it > last + 1 => Err((Offence::Lost, it - last - 1)),
            it if it == last => Err((Offence::Doubled, 1)),
            _ => Err((Offence::Reordered, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(epoch: &str, offset: u64, recovered: bool) -> Entry {
        Entry { position: Position { epoch: epoch.into(), offset }, recovered }
    }

    fn at(epoch: &str, offset: u64) -> Follow {
        let mut follow = Follow::default();
        assert_eq!(follow.enter(entry(epoch, offset, false)), Entered::Fresh);
        follow
    }

    #[test]
    fn each_offence_is_told_from_the_others() {
        for (heard, expected) in [
            (&[6, 7, 8][..], vec![]),
            (&[7], vec![(Offence::Lost, 1)]),
            (&[6, 9], vec![(Offence::Lost, 2)]),
            (&[6, 6], vec![(Offence::Doubled, 1)]),
            (&[5], vec![(Offence::Doubled, 1)]),
            (&[6, 7, 6, 8], vec![(Offence::Reordered, 1)]),
            (&[7, 6, 8], vec![(Offence::Lost, 1), (Offence::Reordered, 1)]),
        ] {
            let mut follow = at("a", 5);
            let found: Vec<_> = heard.iter().filter_map(|&offset| follow.hear(offset).err()).collect();
            assert_eq!(found, expected, "{heard:?}");
        }
    }

    #[test]
    fn a_recovery_goes_on_where_it_was_left() {
        let mut follow = at("a", 5);
        assert_eq!(follow.enter(entry("a", 9, true)), Entered::Recovered);
        assert_eq!(follow.hear(6), Ok(()), "what was missed follows");
        let mut follow = at("a", 5);
        assert_eq!(follow.enter(entry("a", 9, true)), Entered::Recovered);
        assert_eq!(follow.hear(10), Err((Offence::Lost, 4)), "it was promised, and did not follow");
        let mut follow = at("a", 5);
        assert_eq!(follow.enter(entry("b", 9, true)), Entered::Recovered);
        assert_eq!(follow.position(), Some(&Position { epoch: "b".into(), offset: 5 }));
        assert_eq!(follow.hear(6), Ok(()), "the same under another epoch");
    }

    #[test]
    fn a_loss_that_is_told_is_no_offence_and_one_that_is_hidden_is() {
        let told = |another_epoch| Entered::ToldLoss {
            before: Position { epoch: "a".into(), offset: 5 },
            another_epoch,
        };
        assert_eq!(at("a", 5).enter(entry("a", 9, false)), told(false));
        assert_eq!(at("a", 5).enter(entry("b", 2, false)), told(true));
        assert_eq!(at("a", 5).enter(entry("b", 4, true)), Entered::Offence(Offence::Reordered));
        assert_eq!(at("a", 5).enter(entry("a", 4, true)), Entered::Offence(Offence::Reordered));
        let mut follow = at("a", 5);
        follow.enter(entry("b", 2, false));
        assert_eq!(follow.hear(3), Ok(()));
    }
}
