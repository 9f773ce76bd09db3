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

    /// The page, if it is of the stream that the asker's position is of.
    ///
    /// # Errors
    /// 4410 when that stream is lost: then its offsets say nothing about this one.
    pub fn continuing(self, since: Option<Position>) -> Result<Self, Failure> {
        if since.is_none_or(|since| since.epoch == self.epoch) {
            return Ok(self);
        }
        Err(Failure::new(ErrorCode::Gap, "`since` is of a stream that is lost: read without it"))
    }

    /// Keeps its first publications: as many as have at most so many bytes of data together, and at least one.
    pub fn shorten(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        let fitting = self.publications.iter().take_while(|publication| {
            bytes += publication.payload.as_bytes().len();
            bytes <= bytes_max
        });
        let fitting = fitting.count().max(1);
        self.publications.truncate(fitting);
    }
}
