//! What clients show, and what it is worth: signatures of the application that they belong to.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::names::{self, Access, Kind, PERSONAL_PREFIX};
use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::grant::claims::ID_BYTES_MAX;
use crate::grant::{Acquaintance, Grant, Pass, Signed, Token};
use crate::id::{SessionId, UserId};
use crate::publication::Payload;
use crate::realm::Realm;

/// What is said of a member of a presence channel.
#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

/// What is said of a user who signs in.
#[derive(Deserialize)]
struct UserData<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow)]
    watchlist: Option<Vec<&'a RawValue>>,
}

/// Both parts of a sign-in as one token; [`recognise`] takes them apart. A signature holds no line break.
pub(super) fn sealed(auth: &str, user_data: &str) -> String {
    format!("{auth}\n{user_data}")
}

/// Lets a client on a channel for which the application has signed.
pub(super) fn admit(
    realm: &Realm,
    session: SessionId,
    channel: &Channel,
    Signed { token, statement }: &Signed,
) -> Result<Pass, Failure> {
    let name = super::encode::local(channel);
    let socket_id = names::socket_id(session);
    let statement = statement.as_deref();
    let parts = [socket_id.as_str(), name].into_iter().chain(statement).collect::<Vec<_>>();
    if !realm.credentials.admit(token.expose(), &parts) {
        let text = "`auth` must be <key>:<HMAC-SHA256 of \"<socket id>:<channel>\", with \":<channel_data>\" behind it on a \
                    presence channel>, made with the secret of this application";
        return Err(Failure::new(ErrorCode::Unauthorized, text));
    }
    if Kind::of(name).access != Access::Presence {
        return Ok(Pass::default());
    }
    let wrong = || {
        let text =
            "`channel_data` of a presence channel must be {\"user_id\": string, \"user_info\": object}";
        Failure::new(ErrorCode::BadRequest, text)
    };
    let said: ChannelData<'_> = statement.and_then(|it| serde_json::from_str(it).ok()).ok_or_else(wrong)?;
    let user = identifier(said.user_id).ok_or_else(wrong)?;
    Ok(Pass {
        user: Some(UserId::new(&user)),
        profile: said.user_info.map(Payload::from_raw),
        ..Pass::default()
    })
}

/// Finds out who signs in. Outside of the application the user is called by both names, so that no two meet.
pub(super) fn recognise(realm: &Realm, session: SessionId, token: &Token) -> Result<Grant, Failure> {
    let (auth, user_data) = token.expose().split_once('\n').unwrap_or_default();
    let socket_id = names::socket_id(session);
    if !realm.credentials.admit(auth, &[&socket_id, "", "user", "", user_data]) {
        let text = "`auth` must be <key>:<HMAC-SHA256 of \"<socket id>::user::<user_data>\">, made with the secret of this \
                    application";
        return Err(Failure::new(ErrorCode::Unauthorized, text));
    }
    let wrong = || {
        let text =
            "`user_data` must be a JSON object with an `id`, and a list of ids where it has a `watchlist`";
        Failure::new(ErrorCode::BadRequest, text)
    };
    let said: UserData<'_> = serde_json::from_str(user_data).map_err(|_| wrong())?;
    let id = identifier(said.id).ok_or_else(wrong)?;
    let personal = personal(realm, &id).ok_or_else(|| {
        let text =
            "the `id` of a user is printable ASCII without spaces here, since a channel is named after it";
        Failure::new(ErrorCode::BadRequest, text)
    })?;
    Ok(Grant {
        user: Some(realm.user(&id)),
        profile: said.user_info.map(Payload::from_raw),
        channels: vec![personal],
        acquaintances: acquaintances(realm, said.watchlist.unwrap_or_default()).ok_or_else(wrong)?,
        ..Grant::default()
    })
}

/// Those on a watchlist, each once. Who can have no channel cannot sign in, and so will never be there: it is left out.
fn acquaintances(realm: &Realm, watchlist: Vec<&RawValue>) -> Option<Vec<Acquaintance>> {
    let mut known = HashSet::new();
    let ids: Vec<_> = watchlist.into_iter().map(identifier).collect::<Option<_>>()?;
    let of = |id: String| Some(Acquaintance { channel: personal(realm, &id)?, user: realm.user(&id) });
    Some(ids.into_iter().filter(|id| known.insert(id.clone())).filter_map(of).collect())
}

/// The channel that a user alone hears.
pub(super) fn personal(realm: &Realm, user: &str) -> Option<Channel> {
    let name = format!("{PERSONAL_PREFIX}{user}");
    names::check(&name).ok()?;
    realm.channel(&name)
}

/// An id is a string; numbers are let pass for their digits, as the client libraries do.
fn identifier(raw: &RawValue) -> Option<String> {
    let text = match raw.get().as_bytes().first()? {
        b'"' => serde_json::from_str(raw.get()).ok()?,
        b'0'..=b'9' | b'-' => raw.get().to_owned(),
        _ => return None,
    };
    (1..=ID_BYTES_MAX).contains(&text.len()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realm::Credentials;

    const SESSION: SessionId = SessionId::from_random([7; 16]);

    fn realm() -> Realm {
        Realm { namespace: "shop".into(), credentials: Credentials::new("key", "secret") }
    }

    fn signed(parts: &[&str], statement: Option<&str>) -> Signed {
        let token = Token::new(format!("key:{}", realm().credentials.sign(parts)));
        Signed { token, statement: statement.map(Into::into) }
    }

    fn channel(name: &str) -> Channel {
        realm().channel(name).unwrap()
    }

    #[test]
    fn a_signature_is_good_for_one_socket_one_channel_and_one_statement() {
        let socket = names::socket_id(SESSION);
        let ann = r#"{"user_id":"ann","user_info":{"name":"Ann"}}"#;
        let judge = |name: &str, proof: &Signed| {
            admit(&realm(), SESSION, &channel(name), proof).map_err(|failure| failure.code)
        };
        let private = signed(&[&socket, "private-a"], None);
        assert_eq!(judge("private-a", &private), Ok(Pass::default()));
        assert_eq!(judge("private-b", &private), Err(ErrorCode::Unauthorized));
        let another = signed(&["1.2", "private-a"], None);
        assert_eq!(judge("private-a", &another), Err(ErrorCode::Unauthorized));

        let presence = signed(&[&socket, "presence-a", ann], Some(ann));
        let pass = judge("presence-a", &presence).unwrap();
        assert_eq!(pass.user, Some(UserId::new("ann")));
        assert_eq!(pass.profile.unwrap().as_bytes(), br#"{"name":"Ann"}"#);
        let bob = Signed { statement: Some(ann.replace("ann", "bob").into()), ..presence };
        assert_eq!(judge("presence-a", &bob), Err(ErrorCode::Unauthorized));
    }

    #[test]
    fn who_is_on_a_presence_channel_has_to_say_who_it_is() {
        let socket = names::socket_id(SESSION);
        for (statement, user) in [
            (None, None),
            (Some("{}"), None),
            (Some(r#"{"user_id":""}"#), None),
            (Some(r#"{"user_id":{}}"#), None),
            (Some(r#"{"user_id":7}"#), Some("7")),
            (Some(r#"{"user_id":"a b"}"#), Some("a b")),
        ] {
            let parts: Vec<_> = [socket.as_str(), "presence-a"].into_iter().chain(statement).collect();
            let pass = admit(&realm(), SESSION, &channel("presence-a"), &signed(&parts, statement));
            let found = pass.map(|pass| pass.user).map_err(|failure| failure.code);
            let expected = user.map(|user| Some(UserId::new(user))).ok_or(ErrorCode::BadRequest);
            assert_eq!(found, expected, "{statement:?}");
        }
    }

    #[test]
    fn a_user_signs_in_by_a_signature_of_its_own_and_may_hear_its_channel() {
        let socket = names::socket_id(SESSION);
        let judge = |user_data: &str, parts: &[&str]| {
            let auth = format!("key:{}", realm().credentials.sign(parts));
            recognise(&realm(), SESSION, &Token::new(sealed(&auth, user_data)))
        };
        let ann = r#"{"id":"ann","user_info":{}}"#;
        let grant = judge(ann, &[&socket, "", "user", "", ann]).unwrap();
        assert_eq!(grant.user, Some(realm().user("ann")));
        assert_eq!(grant.channels, [channel("#server-to-user-ann")]);
        assert_eq!(grant.profile.unwrap().as_bytes(), b"{}");
        for (user_data, parts, code) in [
            (ann, &["1.2", "", "user", "", ann][..], ErrorCode::Unauthorized),
            (ann, &[&socket, ann], ErrorCode::Unauthorized),
            ("{}", &[&socket, "", "user", "", "{}"], ErrorCode::BadRequest),
            (r#"{"id":"a b"}"#, &[&socket, "", "user", "", r#"{"id":"a b"}"#], ErrorCode::BadRequest),
        ] {
            assert_eq!(judge(user_data, parts).unwrap_err().code, code, "{user_data}");
        }
        let refused = recognise(&realm(), SESSION, &Token::new("no line break")).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthorized);
    }

    #[test]
    fn a_watchlist_names_users_once_each() {
        let socket = names::socket_id(SESSION);
        let judge = |watchlist: &str| {
            let ann = format!(r#"{{"id":"ann","watchlist":{watchlist}}}"#);
            let auth = format!("key:{}", realm().credentials.sign(&[&socket, "", "user", "", &ann]));
            recognise(&realm(), SESSION, &Token::new(sealed(&auth, &ann)))
        };
        let of = |id: &str| Acquaintance {
            user: realm().user(id),
            channel: channel(&format!("#server-to-user-{id}")),
        };
        let named = |watchlist| judge(watchlist).unwrap().acquaintances;
        assert_eq!(named(r#"["bob","eve","bob",7,"a b"]"#), [of("bob"), of("eve"), of("7")]);
        assert_eq!((named("[]"), named("null")), (Vec::new(), Vec::new()));
        for bad in [r#""bob""#, "{}", r#"["bob",{}]"#, r#"[""]"#] {
            assert_eq!(judge(bad).unwrap_err().code, ErrorCode::BadRequest, "{bad}");
        }
        let refused = recognise(&realm(), SESSION, &Token::new("")).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthorized);
    }
}
