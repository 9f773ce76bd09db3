//! Publications of one channel as many subscribers are written them: their frames in a row, for one write each.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use fanfare_protocol::rules::Overflow;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Form, Publication, SessionId};

use super::{Asleep, BATCH_BYTES, Batch, Outbox};

/// See the [module's note](self).
#[derive(Debug)]
pub(crate) struct Sheaf {
    /// In a row.
    bytes: Bytes,
    /// One by one.
    frames: Vec<Bytes>,
    /// When the first of them entered the gateway.
    oldest: UnixMicros,
    saved_bytes: usize,
}

impl Sheaf {
    /// The frames of these publications in a form; `None` when they are so long that they are better not put in a row.
    pub(crate) fn of(publications: &[Arc<Publication>], form: Form) -> Option<Self> {
        let frames: Vec<_> = publications.iter().map(|it| it.encoded(form).bytes().clone()).collect();
        let length: usize = frames.iter().map(Bytes::len).sum();
        let bytes = match &*frames {
            [] => return None,
            [only] => only.clone(),
            _ if length > BATCH_BYTES => return None,
            _ => frames.concat().into(),
        };
        let saved_bytes = match form.shape() {
            None => 0,
            Some(_) => {
                publications.iter().map(|it| it.encoded(form.encoding()).len()).sum::<usize>() - length
            }
        };
        Some(Self { bytes, frames, oldest: publications[0].received, saved_bytes })
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// One by one.
    pub(super) fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// How many frames it has.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// How many of them are complete in so many bytes.
    pub(crate) fn frames_in(&self, bytes: usize) -> u64 {
        let mut end = 0;
        let ends = self.frames.iter().map(|frame| {
            end += frame.len();
            end
        });
        ends.take_while(|end| *end <= bytes).count() as u64
    }

    /// When its first publication entered the gateway.
    pub(crate) fn oldest(&self) -> UnixMicros {
        self.oldest
    }

    /// By how many bytes it is shorter for being compressed.
    pub(crate) fn saved_bytes(&self) -> usize {
        self.saved_bytes
    }

    /// What is left when so many bytes were written, which does not tell again what was told of the whole.
    pub(super) fn after(&self, written: usize) -> Batch {
        let mut batch = Batch {
            frames: self.frames.iter().cloned().collect(),
            bytes: self.bytes.len(),
            oldest: (written == 0).then_some(self.oldest),
            saved_bytes: if written == 0 { self.saved_bytes } else { 0 },
            watched: None,
        };
        batch.advance(written);
        batch
    }
}

/// The sheaves of a run of publications, each put together for the first subscriber of its form.
#[derive(Debug)]
pub(crate) struct Sheaves<'a> {
    publications: Cow<'a, [Arc<Publication>]>,
    /// The sessions that some of them are not for.
    excluded: Vec<SessionId>,
    known: Vec<(Form, Option<Arc<Sheaf>>)>,
}

impl<'a> Sheaves<'a> {
    pub(crate) fn of(publications: impl Into<Cow<'a, [Arc<Publication>]>>) -> Self {
        let publications = publications.into();
        let excluded = publications.iter().filter_map(|publication| publication.exclude).collect();
        Self { publications, excluded, known: Vec::new() }
    }

    /// Claims the outbox for its sheaf, if it is idle and is to have what all have.
    pub(crate) fn claim(&mut self, outbox: &Arc<Outbox>, overflow: Overflow) -> Option<Asleep> {
        // A conflating channel's are counted for each receiver.
        if overflow == Overflow::Conflate || self.excluded.contains(&outbox.session()) {
            return None;
        }
        let claim = outbox.claim()?;
        match self.get(outbox.form()) {
            Some(sheaf) => Some(Asleep::Claimed(claim, sheaf)),
            None => {
                claim.give_back();
                None
            }
        }
    }

    fn get(&mut self, form: Form) -> Option<Arc<Sheaf>> {
        if let Some((_, sheaf)) = self.known.iter().find(|(known, _)| *known == form) {
            return sheaf.clone();
        }
        let sheaf = Sheaf::of(&self.publications, form).map(Arc::new);
        self.known.push((form, sheaf.clone()));
        sheaf
    }
}
