//! Members and notices as bytes, in the book and between nodes.
//!
//! ```text
//!  member:  16  session                            notice:  u8  version = 2 (publications have 1)
//!           u8  flags: 1 user, 2 profile, 4 note            then, for each turn:
//!           u32 length, the user, UTF-8, if flag 1          u8  1 joined, 2 left
//!           u32 length, the note, JSON, if flag 4           u32 length, the member
//!           …   the profile, JSON, to the end, if flag 2    or  u8 3, u32 length = 4, u32 connections
//! ```
//!
//! Numbers are big-endian. The scripts in Redis read the session and the user of a member and write notices, so they know
//! this layout too.

use bytes::Bytes;
use fanfare_protocol::event::Member;
use fanfare_protocol::publication::Payload;
use fanfare_protocol::{Channel, SessionId, UserId};

use crate::presence::{Notice, Turn, TurnKind};

/// What tells a notice from a publication.
const VERSION: u8 = 2;

/// The most bytes of one notice.
const NOTICE_BYTES_MAX: usize = 16 * 1024 * 1024;

const USER: u8 = 1;
const PROFILE: u8 = 2;
const NOTE: u8 = 4;

/// Bytes that nobody of ours has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The bytes of a member.
pub(crate) fn member(member: &Member) -> Vec<u8> {
    let flags = member.user.as_ref().map_or(0, |_| USER)
        | member.profile.as_ref().map_or(0, |_| PROFILE)
        | member.note.as_ref().map_or(0, |_| NOTE);
    let mut out = Vec::with_capacity(64);
    out.extend(member.session.to_bytes());
    out.push(flags);
    let user = member.user.as_ref().map(|user| user.as_str().as_bytes());
    let note = member.note.as_ref().map(Payload::as_bytes);
    for text in [user, note].into_iter().flatten() {
        out.extend(u32::try_from(text.len()).expect("a token is bounded").to_be_bytes());
        out.extend(text);
    }
    out.extend(member.profile.iter().flat_map(|profile| profile.as_bytes()));
    out
}

/// The member that bytes stand for.
pub(crate) fn read_member(mut bytes: &[u8]) -> Result<Member, Malformed> {
    let session = SessionId::from_random(take_array(&mut bytes)?);
    let [flags] = take_array(&mut bytes)?;
    let user = match flags & USER {
        0 => None,
        _ => {
            let length = u32::from_be_bytes(take_array(&mut bytes)?);
            Some(UserId::new(text(take(&mut bytes, length)?)?))
        }
    };
    let note = match flags & NOTE {
        0 => None,
        _ => {
            let length = u32::from_be_bytes(take_array(&mut bytes)?);
            Some(json(take(&mut bytes, length)?)?)
        }
    };
    let profile = match (flags & PROFILE, bytes) {
        (0, []) => None,
        (0, _) => return Err(Malformed),
        (_, rest) => Some(json(rest)?),
    };
    if flags & !(USER | PROFILE | NOTE) != 0 {
        return Err(Malformed);
    }
    Ok(Member { user, session, profile, note })
}

fn json(bytes: &[u8]) -> Result<Payload, Malformed> {
    match text(bytes)? {
        "" => Err(Malformed),
        json => Ok(Payload::from_trusted(Bytes::copy_from_slice(json.as_bytes()))),
    }
}

/// Whether bytes that came on a channel are a notice, as far as their beginning tells.
pub(crate) fn is_notice(bytes: &[u8]) -> bool {
    bytes.first() == Some(&VERSION)
}

/// The notice that bytes stand for.
pub(crate) fn read_notice(channel: Channel, mut bytes: &[u8]) -> Result<Notice, Malformed> {
    let [version] = take_array(&mut bytes)?;
    if version != VERSION || bytes.len() > NOTICE_BYTES_MAX {
        return Err(Malformed);
    }
    let (mut turns, mut connections) = (Vec::new(), None);
    while !bytes.is_empty() {
        let [kind] = take_array(&mut bytes)?;
        let length = u32::from_be_bytes(take_array(&mut bytes)?);
        let what = take(&mut bytes, length)?;
        let kind = match kind {
            1 => TurnKind::Joined,
            2 => TurnKind::Left,
            3 => {
                let count = what.try_into().map_err(|_| Malformed)?;
                connections = Some(u32::from_be_bytes(count).into());
                continue;
            }
            _ => return Err(Malformed),
        };
        turns.push(Turn { kind, member: read_member(what)? });
    }
    Ok(Notice { channel, turns, connections })
}

fn take<'a>(rest: &mut &'a [u8], count: u32) -> Result<&'a [u8], Malformed> {
    let (taken, left) = rest.split_at_checked(count as usize).ok_or(Malformed)?;
    *rest = left;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, left) = rest.split_first_chunk().ok_or(Malformed)?;
    *rest = left;
    Ok(*taken)
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notice(turns: &[(u8, &Member)]) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for (kind, it) in turns {
            let it = member(it);
            bytes.push(*kind);
            bytes.extend(u32::try_from(it.len()).unwrap().to_be_bytes());
            bytes.extend(it);
        }
        bytes
    }

    prop_compose! {
        fn members()(
            session in any::<[u8; 16]>(), user in proptest::option::of(".{0,20}"),
            profile in proptest::option::of("\\{\\}|[0-9]{1,9}"), note in proptest::option::of("[0-9]{1,9}"),
        ) -> Member {
            let json = |json: String| Payload::from_trusted(Bytes::from(json));
            Member {
                user: user.map(|user| UserId::new(&user)),
                session: SessionId::from_random(session),
                profile: profile.map(json),
                note: note.map(json),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_is_read(one in members(), other in members()) {
            let channel = Channel::parse("room:1").unwrap();
            let read = read_notice(channel.clone(), &notice(&[(1, &one), (2, &other)])).unwrap();
            let turns = vec![
                Turn { kind: TurnKind::Joined, member: one },
                Turn { kind: TurnKind::Left, member: other },
            ];
            prop_assert_eq!(read, Notice { channel, turns, connections: None });
        }

        #[test]
        fn how_many_there_are_is_read_beside_who_has_come(it in members(), count in any::<u32>()) {
            let channel = Channel::parse("room:1").unwrap();
            let mut bytes = notice(&[(1, &it)]);
            bytes.push(3);
            bytes.extend(4_u32.to_be_bytes());
            bytes.extend(count.to_be_bytes());
            let turns = vec![Turn { kind: TurnKind::Joined, member: it }];
            let expected = Notice { channel: channel.clone(), turns, connections: Some(count.into()) };
            prop_assert_eq!(read_notice(channel.clone(), &bytes), Ok(expected));
            bytes.pop();
            prop_assert_eq!(read_notice(channel, &bytes), Err(Malformed));
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..200), it in members(),
            at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let channel = Channel::parse("a").unwrap();
            let _ = read_notice(channel.clone(), &noise);
            let mut near = notice(&[(1, &it)]);
            let at = at.index(near.len());
            near[at] = with;
            let _ = read_notice(channel.clone(), &near);
            let _ = read_notice(channel, &near[..cut.index(near.len())]);
        }
    }
}
