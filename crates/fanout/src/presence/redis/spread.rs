//! Which server has what: members lie with their channel, seats where all who look for them know to look.
//!
//! - A *page* lists for each seat the channels on which it holds members. It lies beside those channels, so that one script
//!   changes both: a slot of a Redis Cluster has a page, and elsewhere a server has one.
//! - A *hall* lists the seats that may hold members, which of them are warm, and their pages. A Redis Cluster has one hall, in
//!   whatever shard has its slot; elsewhere a server has one.

use std::sync::LazyLock;

use fanfare_protocol::Channel;

use crate::broker::redis::keys::{Key, Keys, slot};
use crate::broker::redis::line::{Lines, PlaceId};

/// What halls are called: a channel of that name lies in the same slot.
static HALL: LazyLock<u16> = LazyLock::new(|| slot(&Channel::parse("seats").expect("it is one")));

/// Where a seat lists channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Page {
    /// Of a slot.
    Slot(u16),
    /// Of a server without slots.
    Server(PlaceId),
}

impl Page {
    /// The page of a channel that the server `at` has.
    pub(super) fn of(lines: &Lines, at: usize, channel: &Channel) -> Self {
        match lines.slots() {
            Some(_) => Self::Slot(slot(channel)),
            None => Self::Server(lines.all()[at].place()),
        }
    }

    /// As a hall lists it.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Slot(slot) => slot,
            Self::Server(_) => 0,
        }
    }

    /// The same, read from the hall of the server `hall`.
    pub(super) fn read(lines: &Lines, hall: usize, number: u16) -> Self {
        match lines.slots() {
            Some(_) => Self::Slot(number),
            None => Self::Server(lines.all()[hall].place()),
        }
    }

    /// Something on it.
    pub(super) fn key<'a>(self, keys: &'a Keys, name: &'a str) -> Key<'a> {
        match self {
            Self::Slot(slot) => keys.in_slot(slot, name),
            Self::Server(_) => keys.seats(name),
        }
    }

    /// Which server has it.
    pub(super) fn at(self, lines: &Lines) -> Option<usize> {
        match self {
            Self::Slot(slot) => place(lines.slots()?, slot),
            Self::Server(id) => lines.all().iter().position(|line| line.place() == id),
        }
    }

    /// All pages of a server.
    pub(super) fn all_of(lines: &Lines, at: usize) -> Vec<Self> {
        match lines.slots() {
            Some(slots) => {
                let here =
                    (0..).zip(slots).filter(|(_, place)| place.is_some_and(|it| usize::from(it) == at));
                here.map(|(slot, _)| Self::Slot(slot)).collect()
            }
            None => vec![Self::Server(lines.all()[at].place())],
        }
    }
}

/// Which server has the hall for members of channels at the server `at`.
pub(super) fn hall_of(lines: &Lines, at: usize) -> Option<usize> {
    match lines.slots() {
        Some(slots) => place(slots, *HALL),
        None => Some(at),
    }
}

/// Which servers have a hall.
pub(super) fn halls(lines: &Lines) -> Vec<usize> {
    match lines.slots() {
        Some(slots) => Vec::from_iter(place(slots, *HALL)),
        None => (0..lines.all().len()).collect(),
    }
}

fn place(slots: &[Option<u16>], slot: u16) -> Option<usize> {
    slots[usize::from(slot)].map(usize::from)
}
