//! What is asked of a channel's past, and what comes of it.

use std::sync::Arc;

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
}
