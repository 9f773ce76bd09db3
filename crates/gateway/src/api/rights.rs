//! Who calls, and what the holder of a key may ask.
//!
//! The keys of `api.keys` open everything. Those of `api.callers.<name>` open what their scopes say, on the channels that they are
//! limited to. A caller has as many keys as it likes: for as long as one is exchanged for another it has two.

use std::net::IpAddr;
use std::sync::Arc;

use ::http::{Request, header};
use fanfare_protocol::Channel;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::grant::{Allowance, Grant, Pattern, Verb};
use fanfare_protocol::server_api::{ApiCall, ApiReply};
use fanfare_protocol::time::UnixMicros;
use serde_json::json;

use crate::config::{Api, Scope, Secret};
use crate::http::host;

/// Every key there is.
#[derive(Debug)]
pub(crate) struct Keys(Vec<(Secret, Arc<Rights>)>);

/// What a caller may do.
#[derive(Debug)]
pub(crate) struct Rights {
    /// Whose they are; none where they are everybody's, or those of `api.keys`.
    caller: Option<Box<str>>,
    scopes: Vec<Scope>,
    /// None: all channels.
    channels: Option<Vec<Pattern>>,
}

impl Keys {
    pub(crate) fn of(api: &Api) -> Self {
        let all = Arc::new(Rights::all());
        let of_everything = api.keys.iter().map(|key| (key.clone(), all.clone()));
        let of_callers = api.callers.iter().flat_map(|(name, caller)| {
            let patterns = caller.channels.iter().filter_map(|text| Pattern::parse(text)).collect();
            let rights = Arc::new(Rights {
                caller: Some(name.as_str().into()),
                scopes: caller.scopes.clone(),
                channels: Some(patterns).filter(|_| !caller.channels.is_empty()),
            });
            caller.keys.iter().map(move |key| (key.clone(), rights.clone())).collect::<Vec<_>>()
        });
        Self(of_everything.chain(of_callers).collect())
    }

    /// Whether a request is one that its sender meant. Without keys it takes no more than to be on this machine, and any page can have a
    /// browser on it send a POST: so it must be a page of this listener, and opened by an address, since a name can be pointed here by
    /// whoever owns it.
    ///
    /// # Errors
    /// 4403 to other pages.
    pub(crate) fn examine<B>(&self, request: &Request<B>) -> Result<(), Failure> {
        let is_page = request.headers().contains_key(header::ORIGIN);
        let is_own = || host::is_of_no_other_page(request) && host::is_this_machine(request);
        if !self.0.is_empty() || !is_page || is_own() {
            return Ok(());
        }
        let text = "without api.keys the pages that may call are this listener's own, opened by its address or as localhost";
        Err(Failure::new(ErrorCode::Forbidden, text))
    }

    /// What the caller may do: the holder of a key, or, where there are none, whoever calls from this machine.
    ///
    /// # Errors
    /// 4403 to other machines where there are no keys, 4401 to who presents none that is known.
    pub(crate) fn authorise(&self, peer: IpAddr, presented: Option<&str>) -> Result<Arc<Rights>, Failure> {
        if self.0.is_empty() {
            return if peer.to_canonical().is_loopback() {
                Ok(Arc::new(Rights::all()))
            } else {
                let text = "without api.keys the server API answers callers on this machine alone";
                Err(Failure::new(ErrorCode::Forbidden, text))
            };
        }
        // Every key is compared, each in the same time wherever it differs: what is learnt from the clock is their lengths.
        let presented = presented.unwrap_or_default().as_bytes();
        let compared = |known: Option<&Arc<Rights>>, (key, rights): &(Secret, Arc<Rights>)| {
            let is_it = equal(key.expose().as_bytes(), presented);
            if is_it { Some(rights.clone()) } else { known.cloned() }
        };
        let known = self.0.iter().fold(None, |known, entry| compared(known.as_ref(), entry));
        known.ok_or_else(|| {
            Failure::new(
                ErrorCode::Unauthorized,
                "send Authorization: Bearer with one of the keys of the API",
            )
        })
    }
}

/// Why a caller that is limited to channels may not ask something.
const MORE_THAN_A_CHANNEL: &str = "is limited to some channels, and this is about more than a channel";

impl Rights {
    fn all() -> Self {
        Self { caller: None, scopes: vec![Scope::Admin], channels: None }
    }

    /// Whether this may be asked.
    ///
    /// # Errors
    /// 4403, and which scope it takes.
    pub(super) fn check(&self, call: &ApiCall) -> Result<(), Failure> {
        let (scope, about) = meaning(call);
        self.takes(scope)?;
        let Some(patterns) = &self.channels else { return Ok(()) };
        match about {
            About::Channel(channel) if !is_within(patterns, channel) => {
                Err(self.refusal(&format!("is limited to other channels than {:?}", channel.as_str())))
            }
            About::Channel(_) | About::Listed => Ok(()),
            About::Cluster => Err(self.refusal(MORE_THAN_A_CHANNEL)),
        }
    }

    /// Whether the node itself may be told something.
    ///
    /// # Errors
    /// 4403, and what it takes.
    pub(super) fn check_node(&self) -> Result<(), Failure> {
        self.takes(Scope::Admin)?;
        match &self.channels {
            None => Ok(()),
            Some(_) => Err(self.refusal(MORE_THAN_A_CHANNEL)),
        }
    }

    /// Whether it may look on while a channel is served, or while anybody is.
    ///
    /// # Errors
    /// 4403, and what it takes.
    pub(crate) fn check_looking_on(&self, channel: Option<&Channel>) -> Result<(), Failure> {
        self.takes(Scope::Admin)?;
        match (&self.channels, channel) {
            (None, _) => Ok(()),
            (Some(patterns), Some(channel)) if is_within(patterns, channel) => Ok(()),
            (Some(_), Some(channel)) => {
                Err(self.refusal(&format!("is limited to other channels than {:?}", channel.as_str())))
            }
            (Some(_), None) => Err(self.refusal(MORE_THAN_A_CHANNEL)),
        }
    }

    /// What a conversation with these rights may do, until this moment.
    ///
    /// # Errors
    /// 4403 to who may not read.
    pub(crate) fn grant(&self, ends: UnixMicros) -> Result<Grant, Failure> {
        self.takes(Scope::Read)?;
        let mut verbs = vec![Verb::Subscribe, Verb::Presence, Verb::History];
        verbs.extend(self.takes(Scope::Publish).is_ok().then_some(Verb::Publish));
        verbs.extend(self.channels.is_none().then_some(Verb::Figures));
        let all = || vec![Pattern::parse("*").expect("a name of one character")];
        let channels = self.channels.clone().unwrap_or_else(all);
        let (allowances, expires) = (vec![Allowance { channels, verbs }], Some(ends.0 / 1_000_000));
        Ok(Grant { allowances, expires, ends: Some(ends), ..Grant::default() })
    }

    /// Says what they are.
    pub(super) fn told(&self) -> Vec<u8> {
        let patterns = self.channels.as_ref().map(|all| all.iter().map(Pattern::as_str).collect::<Vec<_>>());
        let told =
            json!({ "type": "rights", "caller": self.caller, "scopes": self.words(), "channels": patterns });
        serde_json::to_vec(&told).expect("words are JSON")
    }

    fn takes(&self, scope: Scope) -> Result<(), Failure> {
        if self.scopes.contains(&Scope::Admin) || self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(self.refusal(&format!("takes the scope {}, and has {}", scope.as_str(), self.words().join(", "))))
    }

    fn words(&self) -> Vec<&'static str> {
        self.scopes.iter().map(|scope| scope.as_str()).collect()
    }

    /// Leaves out of an answer what is none of the caller's business.
    pub(super) fn redact(&self, reply: &mut ApiReply) {
        if let (Some(patterns), ApiReply::Channels { channels }) = (&self.channels, reply) {
            channels.retain(|(channel, _)| is_within(patterns, channel));
        }
    }

    fn refusal(&self, why: &str) -> Failure {
        let whose = self.caller.as_deref().unwrap_or_default();
        Failure::new(ErrorCode::Forbidden, format!("this call {why}: see api.callers.{whose}"))
    }
}

/// What a call is about.
enum About<'a> {
    Channel(&'a Channel),
    /// Channels, of which the caller is shown some.
    Listed,
    /// Users, connections and nodes.
    Cluster,
}

/// What a call takes, and what it is about.
fn meaning(call: &ApiCall) -> (Scope, About<'_>) {
    match call {
        ApiCall::Publish { channel, .. } => (Scope::Publish, About::Channel(channel)),
        ApiCall::History { channel, .. } | ApiCall::Presence { channel, .. } => {
            (Scope::Read, About::Channel(channel))
        }
        ApiCall::Channels { .. } => (Scope::Read, About::Listed),
        ApiCall::Connections { filter, .. } => {
            (Scope::Read, filter.channel.as_ref().map_or(About::Cluster, About::Channel))
        }
        ApiCall::Nodes => (Scope::Read, About::Cluster),
        ApiCall::Subscribe { channel, .. }
        | ApiCall::Unsubscribe { channel, .. }
        | ApiCall::RemoveHistory { channel } => (Scope::Admin, About::Channel(channel)),
        ApiCall::Disconnect { .. }
        | ApiCall::Revoke { .. }
        | ApiCall::Refresh { .. }
        | ApiCall::Call { .. } => (Scope::Admin, About::Cluster),
    }
}

fn is_within(patterns: &[Pattern], channel: &Channel) -> bool {
    patterns.iter().any(|pattern| pattern.matches(channel))
}

fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Caller;

    fn keys(scopes: &[Scope], channels: &[&str]) -> Keys {
        let caller = Caller {
            keys: vec![Secret::new("new"), Secret::new("old")],
            scopes: scopes.to_vec(),
            channels: channels.iter().map(|it| (*it).to_owned()).collect(),
        };
        let keys = vec![Secret::new("root")];
        Keys::of(&Api { keys, callers: [("shop".to_owned(), caller)].into() })
    }

    fn authorise(keys: &Keys, presented: Option<&str>) -> Result<Arc<Rights>, ErrorCode> {
        keys.authorise([127, 0, 0, 1].into(), presented).map_err(|failure| failure.code)
    }

    #[test]
    fn without_keys_callers_of_this_machine_alone_may_call() {
        let none = Keys::of(&Api { keys: Vec::new(), callers: [].into() });
        for (peer, outcome) in [
            ("127.0.0.1", Ok(())),
            ("127.9.9.9", Ok(())),
            ("::1", Ok(())),
            ("::ffff:127.0.0.1", Ok(())),
            ("192.0.2.1", Err(ErrorCode::Forbidden)),
            ("2001:db8::1", Err(ErrorCode::Forbidden)),
            ("::ffff:192.0.2.1", Err(ErrorCode::Forbidden)),
        ] {
            let judged = none.authorise(peer.parse().unwrap(), None);
            assert_eq!(judged.map(drop).map_err(|failure| failure.code), outcome, "{peer}");
        }
    }

    #[test]
    fn keys_are_equal_only_when_all_of_them_is() {
        assert!(equal(b"secret", b"secret"));
        for other in ["", "secre", "secrets", "Secret", "secreT"] {
            assert!(!equal(b"secret", other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_key_opens_what_its_caller_may_do_and_so_does_the_one_that_takes_its_place() {
        let keys = keys(&[Scope::Publish], &[]);
        for key in ["new", "old"] {
            assert_eq!(authorise(&keys, Some(key)).unwrap().scopes, [Scope::Publish], "{key}");
        }
        assert_eq!(authorise(&keys, Some("root")).unwrap().scopes, [Scope::Admin]);
        for presented in [None, Some(""), Some("ne"), Some("newer")] {
            assert_eq!(authorise(&keys, presented).err(), Some(ErrorCode::Unauthorized), "{presented:?}");
        }
    }

    #[test]
    fn each_scope_opens_its_calls_and_the_refusal_names_the_one_that_is_wanted() {
        let channel = |name| Channel::parse(name).unwrap();
        let calls = [
            (Scope::Read, ApiCall::Presence { channel: channel("room:1"), members: true }),
            (Scope::Read, ApiCall::Channels { within: Pattern::parse("*").unwrap() }),
            (Scope::Read, ApiCall::Nodes),
            (Scope::Admin, ApiCall::RemoveHistory { channel: channel("room:1") }),
        ];
        for scope in [Scope::Publish, Scope::Read, Scope::Admin] {
            let rights = authorise(&keys(&[scope], &[]), Some("new")).unwrap();
            for (wanted, call) in &calls {
                let outcome = rights.check(call);
                assert_eq!(outcome.is_ok(), scope == *wanted || scope == Scope::Admin, "{scope:?} {call:?}");
                if let Err(failure) = outcome {
                    let (word, code) = (format!("scope {}", wanted.as_str()), failure.code);
                    assert!(failure.explanation.contains(&word), "{}", failure.explanation);
                    assert_eq!(code, ErrorCode::Forbidden);
                }
            }
        }
    }

    #[test]
    fn who_is_limited_to_channels_touches_and_sees_no_others() {
        let channel = |name| Channel::parse(name).unwrap();
        let rights = authorise(&keys(&[Scope::Admin], &["room:*", "news"]), Some("old")).unwrap();
        let remove = |name| rights.check(&ApiCall::RemoveHistory { channel: channel(name) }).is_ok();
        assert!(remove("room:1") && remove("news") && !remove("shop:1") && !remove("newsy"));
        assert!(rights.check(&ApiCall::Nodes).is_err() && rights.check_node().is_err());
        let crowd = Arc::new(fanfare_protocol::event::Crowd { users: 1, connections: 1, members: None });
        let channels = ["room:1", "shop:1"].map(|name| (channel(name), crowd.clone())).to_vec();
        let mut reply = ApiReply::Channels { channels };
        rights.redact(&mut reply);
        let ApiReply::Channels { channels } = reply else { panic!() };
        assert_eq!(channels.len(), 1);
    }
}
