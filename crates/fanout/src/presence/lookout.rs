//! Telling clients of users whether they are there, without their hearing what those hear.
//!
//! ```text
//!  Desk::look_out ─► sought ─► surveyor: the node overhears the channel, and reads who is on it ─┐
//!                      ▲                                                                        ▼
//!                      └── notices of the book, as they come ──────────────► level ──► teller ──► sockets
//! ```
//!
//! A user is there while it is on the channel that is its own: the book of presence says so, and nothing beside it. Here is only
//! kept what it said last, its *level*, and what of that each client was told. So whatever is lost on the way costs time and nothing
//! else: a read of the book puts the level right, and a client is told what differs from what it knows.
//!
//! A user who is back before it was told that it was gone has not been away. What is news to a client within [`GATHER`] it is told
//! at once: so often at most does it hear of all its acquaintances, however fast they come and go.
//!
//! **Invariants.** A channel is overheard while somebody here looks out for its user. What a read finds counts only if the book has
//! told nothing of the user since the read began: what it tells is never older than the answer to an earlier question, and the
//! last that it tells is true. After a lost link the book is read again, once everybody has had the time to write to it what it
//! may have lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fanfare_metrics::Metrics;
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::grant::Acquaintance;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, SessionId, UserId};
use futures_util::{StreamExt, stream};
use indexmap::IndexSet;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::hub::{Hub, Overheard};
use crate::outbox::{Outbox, Queued};
use crate::presence::{Desk, Notice, TurnKind};

/// How long news waits for more of its kind.
const GATHER: Duration = Duration::from_millis(250);

/// How long to wait before what could not be asked is asked again, and how often it is looked whether a link was lost.
const RETRY: Duration = Duration::from_secs(1);

/// The most users of whom it is asked at the same time.
const SURVEYS_AT_ONCE: usize = 32;

/// The most clients that are told before others have their turn.
const TOLD_AT_ONCE: usize = 32;

/// What a node's clients are told of users. See the [module's essay](self).
#[derive(Debug, Default)]
pub(super) struct Lookout {
    state: Mutex<State>,
    /// Somebody is to be surveyed.
    work: Notify,
    /// Somebody is to be told.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the channel on which a user is heard of.
    sought: HashMap<Channel, Sought>,
    seekers: HashMap<SessionId, Seeker>,
    /// Of whom the book is to be asked: each once.
    unsurveyed: VecDeque<Channel>,
    /// Of whom somebody may have to be told.
    changed: IndexSet<Channel>,
}

/// A user for whom somebody looks out.
#[derive(Debug)]
struct Sought {
    user: UserId,
    /// Whether it is there, once that is known.
    level: Option<bool>,
    /// How often the book has told of it.
    told: u64,
    overheard: Option<Overheard>,
    is_queued: bool,
    /// Who looks out for it, and what it was told.
    seekers: HashMap<SessionId, Option<bool>>,
}

/// A client that looks out for users.
#[derive(Debug)]
struct Seeker {
    outbox: Arc<Outbox>,
    channels: Vec<Channel>,
}

/// A user of whom the book is asked.
struct Question {
    channel: Channel,
    user: UserId,
    /// What [`Sought::told`] was.
    told: u64,
    is_overheard: bool,
}

impl Lookout {
    /// Tells this client of these users from now on, and of no others.
    pub(super) fn look_out(&self, outbox: &Arc<Outbox>, acquaintances: Vec<Acquaintance>) {
        let session = outbox.session();
        let mut state = self.state.lock();
        let gone = state.look_away(session);
        if !acquaintances.is_empty() {
            let channels = acquaintances.iter().map(|it| it.channel.clone()).collect();
            state.seekers.insert(session, Seeker { outbox: outbox.clone(), channels });
            acquaintances.into_iter().for_each(|it| state.seek(session, it));
        }
        drop(state);
        drop(gone);
        self.work.notify_one();
        self.news.notify_one();
    }

    /// Tells this client no more. What is queued for it by then it may still be told.
    pub(super) fn look_away(&self, session: SessionId) {
        let gone = self.state.lock().look_away(session);
        drop(gone); // Not under the lock: it gives up stakes.
    }

    /// The book has told something.
    pub(super) fn noticed(&self, notice: &Notice) {
        let mut state = self.state.lock();
        let State { sought, changed, .. } = &mut *state;
        let Some(its) = sought.get_mut(&notice.channel) else { return };
        let of_user = notice.turns.iter().rfind(|turn| turn.member.user.as_ref() == Some(&its.user));
        let Some(turn) = of_user else { return };
        its.told += 1;
        its.level = Some(turn.kind == TurnKind::Joined);
        changed.insert(notice.channel.clone());
        drop(state);
        self.news.notify_one();
    }

    /// Whom to ask about next.
    fn question(&self) -> Option<Question> {
        let mut state = self.state.lock();
        while let Some(channel) = state.unsurveyed.pop_front() {
            // Nobody may look out for it any more.
            if let Some(its) = state.sought.get_mut(&channel) {
                its.is_queued = false;
                let (user, told, is_overheard) = (its.user.clone(), its.told, its.overheard.is_some());
                return Some(Question { channel, user, told, is_overheard });
            }
        }
        None
    }

    fn overhears(&self, channel: &Channel, overheard: Overheard) {
        let mut state = self.state.lock();
        let unneeded = match state.sought.get_mut(channel) {
            Some(its) => its.overheard.replace(overheard),
            None => Some(overheard),
        };
        drop(state);
        drop(unneeded);
    }

    fn found(&self, question: &Question, is_there: bool) {
        let mut state = self.state.lock();
        let State { sought, changed, .. } = &mut *state;
        let Some(its) = sought.get_mut(&question.channel).filter(|its| its.told == question.told) else {
            return;
        };
        its.level = Some(is_there);
        changed.insert(question.channel.clone());
        drop(state);
        self.news.notify_one();
    }

    fn ask_again(&self, channel: Channel) {
        self.state.lock().queue(channel);
    }

    fn ask_about_all(&self) {
        let mut state = self.state.lock();
        let all: Vec<_> = state.sought.keys().cloned().collect();
        all.into_iter().for_each(|channel| state.queue(channel));
    }

    fn is_idle(&self) -> bool {
        self.state.lock().sought.is_empty()
    }

    /// What each client is to be told now. It knows it from then on.
    fn take_news(&self) -> Vec<(Arc<Outbox>, Event)> {
        let mut state = self.state.lock();
        let State { sought, seekers, changed, .. } = &mut *state;
        let mut news: HashMap<SessionId, (Vec<UserId>, Vec<UserId>)> = HashMap::new();
        for channel in changed.drain(..) {
            let Some(its) = sought.get_mut(&channel) else { continue };
            let Some(level) = its.level else { continue };
            for (session, told) in &mut its.seekers {
                if told.replace(level) != Some(level) {
                    let (there, gone) = news.entry(*session).or_default();
                    if level { there.push(its.user.clone()) } else { gone.push(its.user.clone()) }
                }
            }
        }
        let with_outbox = |(session, (there, gone))| {
            let seeker: &Seeker = seekers.get(&session)?;
            Some((seeker.outbox.clone(), Event::Sighted { there, gone }))
        };
        news.into_iter().filter_map(with_outbox).collect()
    }
}

impl State {
    fn seek(&mut self, session: SessionId, Acquaintance { user, channel }: Acquaintance) {
        let its = self.sought.entry(channel.clone()).or_insert_with(|| Sought {
            user,
            level: None,
            told: 0,
            overheard: None,
            is_queued: false,
            seekers: HashMap::new(),
        });
        its.seekers.insert(session, None);
        if its.level.is_some() {
            self.changed.insert(channel);
        } else {
            self.queue(channel);
        }
    }

    fn queue(&mut self, channel: Channel) {
        if let Some(its) = self.sought.get_mut(&channel)
            && !std::mem::replace(&mut its.is_queued, true)
        {
            self.unsurveyed.push_back(channel);
        }
    }

    /// Answers those for whom nobody looks out any more.
    #[must_use]
    fn look_away(&mut self, session: SessionId) -> Vec<Sought> {
        let Some(seeker) = self.seekers.remove(&session) else { return Vec::new() };
        let mut gone = Vec::new();
        for channel in seeker.channels {
            let Some(its) = self.sought.get_mut(&channel) else { continue };
            its.seekers.remove(&session);
            if its.seekers.is_empty() {
                gone.extend(self.sought.remove(&channel));
            }
        }
        gone
    }
}

/// The surveyor: asks the book of those of whom nothing is known, and of all when something may have been lost.
pub(super) async fn survey(lookout: Arc<Lookout>, desk: Weak<Desk>, hub: Weak<Hub>) {
    let (mut losses, mut all_at) = (None, None);
    loop {
        {
            let (Some(desk), Some(hub)) = (desk.upgrade(), hub.upgrade()) else { return };
            let known = *losses.get_or_insert(hub.losses());
            if known != hub.losses() {
                losses = Some(hub.losses());
                all_at = Some(Instant::now() + desk.heartbeat());
            }
            if all_at.take_if(|at| *at <= Instant::now()).is_some() {
                lookout.ask_about_all();
            }
            let questions = stream::iter(std::iter::from_fn(|| lookout.question()));
            let asked = questions.map(|question| ask(&lookout, &desk, &hub, question));
            let failed = asked.buffer_unordered(SURVEYS_AT_ONCE).filter_map(std::future::ready);
            let failed: Vec<_> = failed.collect().await;
            failed.into_iter().for_each(|channel| lookout.ask_again(channel));
        }
        if lookout.is_idle() {
            lookout.work.notified().await;
            continue;
        }
        tokio::select! {
            () = lookout.work.notified() => {}
            () = sleep(RETRY) => {}
        }
    }
}

/// Asks of one; answers the channel where that has to be done again.
async fn ask(lookout: &Lookout, desk: &Desk, hub: &Hub, question: Question) -> Option<Channel> {
    if !question.is_overheard {
        match hub.overhear(&question.channel).await {
            Ok(overheard) => lookout.overhears(&question.channel, overheard),
            Err(_) => return Some(question.channel),
        }
    }
    let Ok(crowd) = desk.crowd(&question.channel, true).await else { return Some(question.channel) };
    let is_user = |user: &Option<UserId>| user.as_ref() == Some(&question.user);
    // Of a crowd too large to be named it is taken to be one.
    let is_there = crowd.members.as_ref().is_none_or(|them| them.iter().any(|it| is_user(&it.user)));
    lookout.found(&question, is_there);
    None
}

/// The teller: queues news for the clients.
pub(super) async fn tell(lookout: Arc<Lookout>, metrics: Arc<Metrics>) {
    loop {
        lookout.news.notified().await;
        sleep(GATHER).await;
        let mut last: Option<(Event, Encoding, Option<Frame>)> = None;
        for (place, (outbox, event)) in lookout.take_news().into_iter().enumerate() {
            let encoding = outbox.encoding();
            // A user whom many know is the same news to all of them.
            let known = last.take_if(|(known, its, _)| *known == event && *its == encoding);
            let (event, encoding, frame) = known.unwrap_or_else(|| {
                let reply = Reply::unasked(event);
                let frame = encoding.dialect().encode(&reply);
                (reply.event, encoding, frame)
            });
            if let Some(frame) = &frame {
                outbox.push(frame.clone()).unwrap_or_else(Queued::from).count(&metrics);
            }
            last = Some((event, encoding, frame));
            if place % TOLD_AT_ONCE == TOLD_AT_ONCE - 1 {
                yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_protocol::event::Member;

    use super::*;
    use crate::presence::Turn;

    fn acquaintance(name: &str) -> Acquaintance {
        let channel = Channel::parse(&format!("shop:#server-to-user-{name}")).unwrap();
        Acquaintance { user: UserId::new(name), channel }
    }

    fn outbox(session: u8) -> Arc<Outbox> {
        Outbox::new(SessionId::from_random([session; 16]), Encoding::NativeJson, 1024 * 1024)
    }

    fn notice(name: &str, kind: TurnKind) -> Notice {
        let Acquaintance { user, channel } = acquaintance(name);
        let member =
            Member { user: Some(user), session: SessionId::from_random([9; 16]), profile: None, note: None };
        Notice { channel, turns: vec![Turn { kind, member }], connections: None }
    }

    /// The names that each client is told of: those who are there, and those who are gone.
    fn told(lookout: &Lookout) -> Vec<(u8, String, String)> {
        let names = |users: &[UserId]| users.iter().map(UserId::as_str).collect::<Vec<_>>().join(" ");
        let news = lookout.take_news().into_iter().map(|(outbox, event)| {
            let Event::Sighted { there, gone } = event else { panic!("{event:?}") };
            (outbox.session().to_bytes()[0], names(&there), names(&gone))
        });
        let mut news: Vec<_> = news.collect();
        news.sort();
        news
    }

    fn answer_all(lookout: &Lookout, there: &[&str]) {
        while let Some(question) = lookout.question() {
            lookout.found(&question, there.contains(&question.user.as_str()));
        }
    }

    #[test]
    fn each_client_is_told_what_differs_from_what_it_knows() {
        let lookout = Lookout::default();
        let (ann, bob) = (outbox(1), outbox(2));
        lookout.look_out(&ann, ["kim", "eve"].map(acquaintance).into());
        assert_eq!(told(&lookout), [], "nothing is known");
        answer_all(&lookout, &["kim"]);
        assert_eq!(told(&lookout), [(1, "kim".into(), "eve".into())]);
        assert_eq!(told(&lookout), []);
        lookout.look_out(&bob, vec![acquaintance("kim")]);
        assert_eq!(told(&lookout), [(2, "kim".into(), String::new())], "it was known by then");
        lookout.noticed(&notice("kim", TurnKind::Left));
        lookout.noticed(&notice("kim", TurnKind::Joined));
        assert_eq!(told(&lookout), [], "back before it was told");
        lookout.noticed(&notice("kim", TurnKind::Left));
        lookout.look_away(ann.session());
        assert_eq!(told(&lookout), [(2, String::new(), "kim".into())]);
        lookout.look_away(bob.session());
        lookout.noticed(&notice("kim", TurnKind::Joined));
        let state = lookout.state.lock();
        assert!(state.sought.is_empty() && state.seekers.is_empty() && state.changed.is_empty());
    }

    /// What the book tells while it is asked is newer than the answer, or the next that it tells will be.
    #[test]
    fn an_answer_does_not_undo_what_was_told_since_the_question() {
        let lookout = Lookout::default();
        let ann = outbox(1);
        lookout.look_out(&ann, vec![acquaintance("kim")]);
        let question = lookout.question().unwrap();
        lookout.noticed(&notice("kim", TurnKind::Joined));
        lookout.found(&question, false);
        assert_eq!(told(&lookout), [(1, "kim".into(), String::new())]);
        // What was told last was lost, and the book is asked again.
        lookout.ask_about_all();
        lookout.ask_about_all();
        answer_all(&lookout, &[]);
        assert_eq!(told(&lookout), [(1, String::new(), "kim".into())]);
        assert!(lookout.question().is_none(), "asked once");
    }

    /// Somebody else on a user's channel is not that user.
    #[test]
    fn others_on_its_channel_are_not_the_user() {
        let lookout = Lookout::default();
        lookout.look_out(&outbox(1), vec![acquaintance("kim")]);
        answer_all(&lookout, &[]);
        assert_eq!(told(&lookout), [(1, String::new(), "kim".into())]);
        let mut other = notice("kim", TurnKind::Joined);
        other.turns[0].member.user = Some(UserId::new("eve"));
        lookout.noticed(&other);
        assert_eq!(told(&lookout), []);
    }

    #[test]
    fn another_list_takes_the_place_of_the_one_before() {
        let lookout = Lookout::default();
        let ann = outbox(1);
        lookout.look_out(&ann, vec![acquaintance("kim"), acquaintance("eve")]);
        answer_all(&lookout, &[]);
        told(&lookout);
        lookout.look_out(&ann, vec![acquaintance("eve"), acquaintance("bob")]);
        answer_all(&lookout, &["bob"]);
        assert_eq!(told(&lookout), [(1, "bob".into(), "eve".into())], "told anew of the whole list");
        lookout.noticed(&notice("kim", TurnKind::Joined));
        assert_eq!(told(&lookout), []);
    }
}
