//! Where a request may carry a token: one function over its headers and its query, whatever it asks for.

use ::http::{HeaderMap, HeaderName, header};
use fanfare_protocol::grant::Token;

use crate::config::TokenPlaces;

/// What an offered subprotocol begins with that is a token.
const SUBPROTOCOL: &str = "bearer.";

/// What a query begins a token with.
const PARAMETER: &str = "token=";

/// A token that was found.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) token: Token,
    /// It came in a cookie, which a browser sends for any page.
    pub(super) needs_origin: bool,
}

/// The first token that a request carries. One that is empty is none: that is how a cookie is taken away.
pub(super) fn find(places: &TokenPlaces, headers: &HeaderMap, query: Option<&str>) -> Option<Presented> {
    let presented = |token: &str, needs_origin| Presented { token: Token::new(token), needs_origin };
    let cookie = || places.cookie.as_deref().and_then(|name| cookie(headers, name));
    let query = query.filter(|_| places.url);
    let parameter =
        || query?.split('&').find_map(|it| it.strip_prefix(PARAMETER)).filter(|it| !it.is_empty());
    (authorization(headers).map(|token| presented(token, false)))
        .or_else(|| cookie().map(|token| presented(token, true)))
        .or_else(|| subprotocol(headers).map(|token| presented(token, false)))
        .or_else(|| parameter().map(|token| presented(token, false)))
}

/// Whether an offered subprotocol is a token in disguise, which is never chosen.
pub(crate) fn is_bearer(subprotocol: &str) -> bool {
    subprotocol.starts_with(SUBPROTOCOL)
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    lines(headers, &header::AUTHORIZATION).find_map(|line| {
        let (scheme, token) = line.split_once(' ')?;
        Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
    })
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = lines(headers, &header::COOKIE).flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find_map(|(theirs, value)| {
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some(quoted.unwrap_or(value)).filter(|value| theirs == name && !value.is_empty())
    })
}

fn subprotocol(headers: &HeaderMap) -> Option<&str> {
    let offered = lines(headers, &header::SEC_WEBSOCKET_PROTOCOL).flat_map(|line| line.split(','));
    offered.filter_map(|it| it.trim().strip_prefix(SUBPROTOCOL)).find(|token| !token.is_empty())
}

/// The lines of a header that are text.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok())
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn found(
        places: &TokenPlaces,
        headers: &[(&'static str, &str)],
        query: Option<&str>,
    ) -> Option<(String, bool)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        find(places, &map, query).map(|it| (it.token.expose().to_owned(), it.needs_origin))
    }

    #[test]
    fn a_token_is_found_wherever_it_may_be() {
        let places = TokenPlaces { cookie: Some("session".into()), url: true };
        let header = |token: &str| Some((token.to_owned(), false));
        for (name, value, token) in [
            ("authorization", "Bearer a.b.c", header("a.b.c")),
            ("authorization", "bearer   a.b.c ", header("a.b.c")),
            ("authorization", "Bearer", None),
            ("authorization", "Bearer ", None),
            ("authorization", "Basic a.b.c", None),
            ("cookie", "session=a.b.c", Some(("a.b.c".into(), true))),
            ("cookie", "x=1; session=\"a.b.c\"; y=2", Some(("a.b.c".into(), true))),
            ("cookie", "session=", None),
            ("cookie", "xsession=a.b.c; Session=a.b.c", None),
            ("sec-websocket-protocol", "fanfare.v1.json, bearer.a.b.c", header("a.b.c")),
            ("sec-websocket-protocol", "bearer.", None),
            ("sec-websocket-protocol", "Bearer.a.b.c", None),
        ] {
            assert_eq!(found(&places, &[(name, value)], None), token, "{name}: {value}");
        }
        assert_eq!(found(&places, &[], Some("a=1&token=a.b.c&b=2")), header("a.b.c"));
        assert_eq!(found(&places, &[], Some("xtoken=a.b.c&token=")), None);
    }

    #[test]
    fn places_that_are_not_configured_are_not_looked_at() {
        let places = TokenPlaces { cookie: None, url: false };
        assert_eq!(found(&places, &[("cookie", "session=a.b.c; =a.b.c")], Some("token=a.b.c")), None);
    }

    #[test]
    fn the_first_place_counts() {
        let places = TokenPlaces { cookie: Some("session".into()), url: true };
        let headers =
            [("sec-websocket-protocol", "bearer.3"), ("cookie", "session=2"), ("authorization", "Bearer 1")];
        for (from, token) in [(0, "1"), (1, "2"), (2, "3"), (3, "4")] {
            let rest = &headers[..3 - from];
            assert_eq!(found(&places, rest, Some("token=4")).unwrap().0, token);
        }
    }
}
