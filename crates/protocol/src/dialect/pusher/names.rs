//! What the names of this dialect say: of a channel, by how it begins, who may hear it; and how a session is called.

use crate::id::SessionId;

/// The longest name of a channel, in bytes.
pub const NAME_BYTES_MAX: usize = 164;

/// How the channel begins on which a user who has signed in hears what is meant for that user alone.
pub const PERSONAL_PREFIX: &str = "#server-to-user-";

/// Who may hear a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone who knows the application's key.
    Public,
    /// Who brings a signature.
    Private,
    /// The same, and what is published is encrypted from end to end, so that clients do not publish there.
    Encrypted,
    /// Who brings a signature of who it is; and all are told who is there.
    Presence,
    /// The user whose it is.
    Personal,
}

/// What a channel's name says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Who may hear it.
    pub access: Access,
    /// Whether who subscribes is told what was published last.
    pub is_cache: bool,
}

/// Every way in which a name may begin, the longer before what they begin with.
pub const PREFIXES: [(&str, Kind); 9] = {
    use Access::{Encrypted, Personal, Presence, Private, Public};
    const fn kind(access: Access, is_cache: bool) -> Kind {
        Kind { access, is_cache }
    }
    [
        ("private-encrypted-cache-", kind(Encrypted, true)),
        ("private-encrypted-", kind(Encrypted, false)),
        ("private-cache-", kind(Private, true)),
        ("private-", kind(Private, false)),
        ("presence-cache-", kind(Presence, true)),
        ("presence-", kind(Presence, false)),
        ("cache-", kind(Public, true)),
        (PERSONAL_PREFIX, kind(Personal, false)),
        ("", kind(Public, false)),
    ]
};

impl Kind {
    /// What this name says.
    pub fn of(name: &str) -> Self {
        let known = PREFIXES.into_iter().find(|(prefix, _)| name.starts_with(prefix));
        known.expect("every name begins with nothing").1
    }
}

/// Why a name cannot be a channel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a channel is 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 _ - = @ , . ;")]
pub struct InvalidName;

/// Checks the name of a channel that is neither a user's nor another dialect's.
///
/// # Errors
/// It is too long, empty, or holds another character than the protocol allows.
pub fn check(name: &str) -> Result<(), InvalidName> {
    let name = name.strip_prefix(PERSONAL_PREFIX).unwrap_or(name);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(InvalidName)
}

/// A session's name in this dialect: two numbers, which are its two halves.
pub fn socket_id(session: SessionId) -> String {
    let bits = u128::from_be_bytes(session.to_bytes());
    format!("{}.{}", bits >> 64, bits & u128::from(u64::MAX))
}

/// The session that [`socket_id`] called so; `None` for what it calls nobody.
pub fn session(socket_id: &str) -> Option<SessionId> {
    let half = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u64>().ok()).flatten().map(u128::from)
    };
    let (high, low) = socket_id.split_once('.')?;
    Some(SessionId::from_random(((half(high)? << 64) | half(low)?).to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_prefix_says_what_a_channel_is() {
        use Access::{Encrypted, Personal, Presence, Private, Public};
        for (name, access, is_cache) in [
            ("news", Public, false),
            ("cache-news", Public, true),
            ("private", Public, false),
            ("private-a", Private, false),
            ("private-cache-a", Private, true),
            ("private-cache", Private, false),
            ("private-encrypted-a", Encrypted, false),
            ("private-encrypted-cache-a", Encrypted, true),
            ("presence-a", Presence, false),
            ("presence-cache-a", Presence, true),
            ("a-private-b", Public, false),
            ("#server-to-user-7", Personal, false),
        ] {
            assert_eq!(Kind::of(name), Kind { access, is_cache }, "{name}");
        }
        for (at, (prefix, _)) in PREFIXES.into_iter().enumerate() {
            assert!(!PREFIXES[at + 1..].iter().any(|(later, _)| later.starts_with(prefix)), "{prefix} hides");
        }
    }

    #[test]
    fn a_name_has_the_characters_of_the_protocol_and_no_colon() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        for good in ["a", "private-a_b=c@d,e.f;g", "#server-to-user-7", &longest] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "a:b", "#a", "a/b", "é", "a*", "#server-to-user-", &format!("{longest}x")] {
            assert_eq!(check(bad), Err(InvalidName), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_socket_id_is_two_numbers_and_names_one_session(bytes: [u8; 16]) {
            let session_id = SessionId::from_random(bytes);
            let name = socket_id(session_id);
            let halves: Vec<_> = name.split('.').collect();
            prop_assert!(halves.len() == 2 && halves.iter().all(|half| half.parse::<u64>().is_ok()));
            prop_assert_eq!(session(&name), Some(session_id));
        }
    }

    #[test]
    fn what_is_no_socket_id_names_nobody() {
        for bad in ["", "1", "1.", ".1", "1.2.3", "-1.2", "+1.2", "1.18446744073709551616", "a.b"] {
            assert_eq!(session(bad), None, "{bad}");
        }
    }
}
