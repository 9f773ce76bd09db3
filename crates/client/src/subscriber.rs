//! The far end of a subscription: where it stands in its stream, and what it is to be told.
//!
//! ```text
//!  Idle ─ ask ─► Asked ─ subscribed ─► Live ─ queue full ─► Lagging ─ room again ─► Idle
//!   ▲                                   │
//!   └──── lost, or unsubscribed 4410 ───┘
//! ```
//!
//! **Invariant.** `heard` is the position of what was put into the queue last. While it is asked for again, and nothing has come of what was
//! missed, it stays where it was: whoever is cut off then has missed nothing.

use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::client::{command, field};
use crate::subscription::{Cause, Event, Subscribe};
use crate::wire::{Member, Message, Position};

/// Whether the server has been told, and has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be asked for.
    Idle,
    /// By the command with this id. Whatever comes before the answer is of another life.
    Asked(u64),
    Live,
    /// Left, until there is room in the queue.
    Lagging,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is in the queue, or need not be.
    Yes,
    /// The queue is full: the channel is to be left until it is not.
    Lagged,
    /// Nobody listens any more.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    how: Subscribe,
    events: mpsc::Sender<Event>,
    ready: Option<oneshot::Sender<Result<(), Error>>>,
    state: State,
    heard: Option<Position>,
    /// The stream that it hears, on a channel with history.
    epoch: Option<String>,
}

impl Subscriber {
    pub(crate) fn new(
        mut how: Subscribe,
        events: mpsc::Sender<Event>,
        ready: oneshot::Sender<Result<(), Error>>,
    ) -> Self {
        let heard = how.since.take();
        Self { how, events, ready: Some(ready), state: State::Idle, heard, epoch: None }
    }

    /// Whether anybody listens.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.events.is_closed()
    }

    /// Whether it waits to be asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether this is the answer that it waits for.
    pub(crate) fn has_asked(&self, id: u64) -> bool {
        self.state == State::Asked(id)
    }

    /// The fields of the command that asks for it.
    pub(crate) fn ask(&mut self, id: u64, channel: &str) -> String {
        self.state = State::Asked(id);
        let mut fields = command("subscribe", channel).expect("a name can be written");
        let written = match (&self.heard, self.how.rewind) {
            (Some(since), _) => field(&mut fields, "since", since),
            (None, Some(rewind)) => field(&mut fields, "rewind", &rewind),
            (None, None) => Ok(()),
        };
        written.and_then(|()| field(&mut fields, "presence", &self.how.presence)).expect("so can these");
        fields
    }

    /// It is live. Returns the position that it has reached when nothing more of a `rewind` is to come.
    pub(crate) fn subscribed(
        &mut self,
        position: Option<Position>,
        recovered: Option<bool>,
    ) -> (Told, Option<Position>) {
        self.state = State::Live;
        self.epoch = position.as_ref().map(|it| it.epoch.clone());
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Ok(())); // Whoever has gone will leave.
        }
        let is_first = self.heard.is_none();
        let rewinds = is_first && self.how.rewind.is_some();
        if recovered != Some(true) {
            self.heard.clone_from(&position);
        }
        let recovered = recovered.filter(|_| !is_first || self.how.rewind.is_some());
        let told = self.tell(Event::Subscribed { recovered, position: position.clone() });
        (told, position.filter(|_| rewinds))
    }

    /// It is live without having been asked for by itself: another response goes on where one was given up, for the sake of other channels.
    pub(crate) fn again(&mut self, position: Option<Position>, recovered: Option<bool>) -> Told {
        if self.state != State::Live {
            return Told::Yes; // The server's own subscription, in whose place one has been asked for.
        }
        if recovered == Some(true) {
            self.epoch = position.map(|it| it.epoch);
            return Told::Yes;
        }
        match self.interrupted(Cause::Connection) {
            Told::Yes => self.subscribed(position, recovered).0,
            told => told,
        }
    }

    /// Nothing of a `rewind` is left that could still come.
    pub(crate) fn settled(&mut self, at: Position) {
        if self.heard.is_none() && self.epoch.as_ref() == Some(&at.epoch) {
            self.heard = Some(at);
        }
    }

    pub(crate) fn published(&mut self, message: Message) -> Told {
        if self.state != State::Live {
            return Told::Yes;
        }
        let here = self.epoch.clone().zip(message.offset);
        let here = here.map(|(epoch, offset)| Position { epoch, offset });
        if let (Some(heard), Some(here)) = (&self.heard, &here)
            && heard.epoch == here.epoch
            && here.offset <= heard.offset
        {
            return Told::Yes; // It has been told.
        }
        let told = self.tell(Event::Message(message));
        if told == Told::Yes {
            self.heard = here;
        }
        told
    }

    pub(crate) fn moved(&mut self, member: Member, joined: bool) -> Told {
        match self.state {
            State::Live => self.tell(if joined { Event::Joined(member) } else { Event::Left(member) }),
            _ => Told::Yes,
        }
    }

    /// It hears nothing for a while.
    pub(crate) fn interrupted(&mut self, cause: Cause) -> Told {
        let was_live = self.state == State::Live;
        if self.state != State::Lagging {
            self.state = State::Idle;
        }
        if was_live { self.tell(Event::Interrupted(cause)) } else { Told::Yes }
    }

    /// There is room in the queue again.
    pub(crate) fn has_room(&mut self) -> Told {
        self.state = State::Idle;
        self.tell(Event::Interrupted(Cause::Lagged))
    }

    /// Waits until half of the queue has been read, or nobody reads any more.
    pub(crate) fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let events = self.events.clone();
        async move {
            let places = events.max_capacity() / 2 + 1;
            drop(events.reserve_many(places).await);
        }
    }

    /// It is over, which is the last that is heard of it.
    pub(crate) fn end(mut self, error: Error) {
        match self.ready.take() {
            Some(ready) => drop(ready.send(Err(error))), // Whoever has gone does not want to know.
            None => drop(self.events.try_send(Event::Ended(error))), // It has a place of its own.
        }
    }

    /// Queues an event; the last place is kept for the end.
    fn tell(&mut self, event: Event) -> Told {
        if self.events.is_closed() {
            Told::Gone
        } else if self.events.capacity() < 2 || self.events.try_send(event).is_err() {
            self.state = State::Lagging;
            Told::Lagged
        } else {
            Told::Yes
        }
    }
}
