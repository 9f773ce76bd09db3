//! Tokens that are good no longer, though their time is not over: by the user they are of, or by their own name.
//!
//! The list is the same on every node, since every node hears the same orders ([`crate::orders`]), and it is as long as the
//! orders that are kept. Until a node has heard those it cannot tell a revoked token from another, and takes none.
//!
//! Where the kept orders have been lost, with a Redis that came back empty, those who still know give them again: each entry
//! knows whether it was heard since the node [listens anew](Revoked::listens_anew).

use std::collections::HashMap;
use std::hash::Hash;

use fanfare_protocol::UserId;
use fanfare_protocol::grant::Grant;
use fanfare_protocol::server_api::Whom;
use parking_lot::RwLock;
use tokio::sync::watch;

/// The most entries of each kind; beyond them those that end first are forgotten.
const ENTRIES_MAX: usize = 100_000;

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    lists: RwLock<Lists>,
    /// Whether the orders that were given before this node has begun to listen have been heard.
    is_complete: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Lists {
    users: HashMap<UserId, Entry>,
    tokens: HashMap<Box<str>, Entry>,
    /// How often the node has begun to listen.
    hearing: u64,
}

/// An order to revoke, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) whom: Whom,
    /// Both in Unix seconds.
    pub(crate) at: u64,
    pub(crate) until: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Both in Unix seconds.
    at: u64,
    until: u64,
    /// The last time of [listening](Lists::hearing) in which it was heard.
    heard: u64,
}

/// What a list says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    Revoked,
    /// The list is not here yet.
    Unknown,
}

impl Revoked {
    /// All that was ordered before has been heard.
    pub(crate) fn complete(&self) {
        self.is_complete.send_replace(true);
    }

    /// Waits until it has been.
    pub(crate) async fn completed(&self) {
        let waiting = self.is_complete.subscribe().wait_for(|it| *it).await.map(drop);
        waiting.expect("the sender is this list's own");
    }

    /// The tokens of a user that were issued up to `at`.
    pub(crate) fn revoke_user(&self, user: UserId, at: u64, until: u64, now: u64) {
        let Lists { users, hearing, .. } = &mut *self.lists.write();
        insert(users, user, Entry { at, until, heard: *hearing }, now);
    }

    /// The token of this name.
    pub(crate) fn revoke_token(&self, token: Box<str>, at: u64, until: u64, now: u64) {
        let Lists { tokens, hearing, .. } = &mut *self.lists.write();
        insert(tokens, token, Entry { at, until, heard: *hearing }, now);
    }

    /// From here on it is noted anew what is heard.
    pub(crate) fn listens_anew(&self) {
        self.lists.write().hearing += 1;
    }

    /// What is in force and has not been heard since the node listens anew.
    pub(crate) fn unheard(&self, now: u64) -> Vec<Revocation> {
        let Lists { users, tokens, hearing } = &*self.lists.read();
        let users = users.iter().map(|(user, entry)| (Whom::User(user.clone()), *entry));
        let tokens = tokens.iter().map(|(token, entry)| (Whom::Token(token.clone()), *entry));
        let unheard = users.chain(tokens).filter(|(_, entry)| entry.heard < *hearing && entry.until > now);
        unheard.map(|(whom, Entry { at, until, .. })| Revocation { whom, at, until }).collect()
    }

    /// Whether it has been heard by now.
    pub(crate) fn is_heard(&self, whom: &Whom) -> bool {
        let Lists { users, tokens, hearing } = &*self.lists.read();
        let entry = match whom {
            Whom::User(user) => users.get(user),
            Whom::Token(token) => tokens.get(token),
            Whom::Session(_) | Whom::Among(_) => None,
        };
        entry.is_none_or(|entry| entry.heard == *hearing)
    }

    pub(crate) fn standing(&self, grant: &Grant, now: u64) -> Standing {
        let lists = self.lists.read();
        let is_old = |entry: &Entry| grant.issued.is_none_or(|issued| issued <= entry.at);
        let user = grant.user.as_ref().and_then(|user| lists.users.get(user)).filter(|it| is_old(it));
        let token = grant.token.as_ref().and_then(|token| lists.tokens.get(token));
        let is_revoked = user.into_iter().chain(token).any(|entry| entry.until > now);
        match (is_revoked, *self.is_complete.borrow()) {
            (true, _) => Standing::Revoked,
            (false, true) => Standing::Good,
            (false, false) => Standing::Unknown,
        }
    }
}

fn insert<K: Hash + Eq + Clone>(entries: &mut HashMap<K, Entry>, key: K, new: Entry, now: u64) {
    if new.until <= now {
        return;
    }
    if entries.len() >= ENTRIES_MAX {
        entries.retain(|_, entry| entry.until > now);
    }
    if entries.len() >= ENTRIES_MAX {
        let first = entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone());
        first.and_then(|key| entries.remove(&key));
    }
    let entry = entries.entry(key).or_insert(new);
    let heard = entry.heard.max(new.heard);
    *entry = Entry { at: entry.at.max(new.at), until: entry.until.max(new.until), heard };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(user: &str, token: Option<&str>, issued: Option<u64>) -> Grant {
        Grant { user: Some(UserId::new(user)), token: token.map(Into::into), issued, ..Grant::default() }
    }

    #[test]
    fn a_users_old_tokens_are_revoked_and_new_ones_are_good() {
        let revoked = Revoked::default();
        revoked.complete();
        revoked.revoke_user(UserId::new("ann"), 100, 200, 100);
        for (user, issued, now, standing) in [
            ("ann", Some(99), 100, Standing::Revoked),
            ("ann", Some(100), 100, Standing::Revoked),
            ("ann", Some(101), 101, Standing::Good),
            ("ann", None, 150, Standing::Revoked),
            ("ann", Some(99), 200, Standing::Good),
            ("bob", Some(99), 100, Standing::Good),
        ] {
            assert_eq!(
                revoked.standing(&grant(user, None, issued), now),
                standing,
                "{user} {issued:?} {now}"
            );
        }
        // Orders may be heard again, and in any order: the longest and the latest count.
        revoked.revoke_user(UserId::new("ann"), 90, 150, 100);
        assert_eq!(revoked.standing(&grant("ann", None, Some(95)), 199), Standing::Revoked);
    }

    #[test]
    fn a_token_is_revoked_by_its_name_whoever_holds_it() {
        let revoked = Revoked::default();
        revoked.complete();
        revoked.revoke_token("t1".into(), 100, 200, 100);
        assert_eq!(revoked.standing(&grant("ann", Some("t1"), Some(150)), 150), Standing::Revoked);
        assert_eq!(revoked.standing(&grant("ann", Some("t2"), Some(50)), 150), Standing::Good);
        assert_eq!(revoked.standing(&grant("ann", None, None), 150), Standing::Good);
    }

    #[test]
    fn before_the_list_is_complete_nothing_is_known_to_be_good() {
        let revoked = Revoked::default();
        revoked.revoke_token("t1".into(), 100, 200, 100);
        assert_eq!(revoked.standing(&grant("ann", Some("t1"), None), 150), Standing::Revoked);
        assert_eq!(revoked.standing(&grant("ann", Some("t2"), None), 150), Standing::Unknown);
    }

    /// Those who listen anew know what nobody has told them since.
    #[test]
    fn what_was_not_heard_again_is_known_until_its_time_is_over() {
        let revoked = Revoked::default();
        let of = |whom: Whom, at, until| Revocation { whom, at, until };
        let (ann, t1) = (Whom::User(UserId::new("ann")), Whom::Token("t1".into()));
        revoked.listens_anew();
        revoked.revoke_user(UserId::new("ann"), 100, 200, 100);
        revoked.revoke_token("t1".into(), 110, 300, 110);
        assert_eq!(revoked.unheard(110), []);
        revoked.listens_anew();
        assert_eq!(revoked.unheard(200), [of(t1.clone(), 110, 300)], "the other is over");
        revoked.revoke_token("t1".into(), 110, 300, 110);
        assert_eq!(revoked.unheard(110), [of(ann.clone(), 100, 200)]);
        assert!(revoked.is_heard(&t1) && !revoked.is_heard(&ann));
    }

    #[test]
    fn the_list_is_bounded_and_forgets_what_ends_first() {
        let revoked = Revoked::default();
        revoked.complete();
        for number in 0..=ENTRIES_MAX as u64 {
            revoked.revoke_token(number.to_string().into(), 0, 1_000 + number, 0);
        }
        assert_eq!(revoked.lists.read().tokens.len(), ENTRIES_MAX);
        assert_eq!(revoked.standing(&grant("a", Some("0"), None), 1), Standing::Good);
        assert_eq!(revoked.standing(&grant("a", Some("1"), None), 1), Standing::Revoked);
        revoked.revoke_token("late".into(), 0, u64::MAX, 50_000);
        assert!(revoked.lists.read().tokens.len() < ENTRIES_MAX, "what is over goes first");
    }
}
