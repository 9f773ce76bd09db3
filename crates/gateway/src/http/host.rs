//! For which host a request is: one, and well spelt. It is what pages of the same host are let in by, so two readers of a request
//! must not disagree on it.
//!
//! RFC 9112 section 3.2 for HTTP/1.1: exactly one `Host`, or 400; where the target is a whole URL, that counts and not `Host`.
//! RFC 9113 section 8.3.1 for HTTP/2: `:authority` takes its place, and a `Host` beside it must say the same.

use std::net::IpAddr;

use ::http::uri::{Authority, Scheme};
use ::http::{Request, Version, header};

/// The host that a request names, with its port if it names one.
pub(super) fn of<B>(request: &Request<B>) -> Option<&str> {
    let authority = request.uri().authority().map(Authority::as_str);
    authority.or_else(|| request.headers().get(header::HOST)?.to_str().ok())
}

/// Whether a page of this very host made the request, or none did: a browser says with every POST and every handshake where the
/// page comes from.
pub(crate) fn is_of_no_other_page<B>(request: &Request<B>) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return true };
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    page.is_some_and(|(_, page)| of(request).is_some_and(|host| host.eq_ignore_ascii_case(page)))
}

/// Whether the host is this machine by an address of its own or as `localhost`: no name that whoever owns it could point here.
pub(crate) fn is_this_machine<B>(request: &Request<B>) -> bool {
    let host = of(request).map(|authority| port_of(authority).0.to_ascii_lowercase()).unwrap_or_default();
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    let is_loopback = address.parse().is_ok_and(|it: IpAddr| it.to_canonical().is_loopback());
    is_loopback || host == "localhost" || host.ends_with(".localhost")
}

/// Whether it is clear which one that is.
///
/// # Errors
/// What is wrong, and what would be right.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let authority = request.uri().authority().map(Authority::as_str);
    if authority.is_some_and(|it| !is_host(it)) {
        return Err("the request's target names no host that can be: host, or host:port");
    }
    let mut named = request.headers().get_all(header::HOST).iter();
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return Err("a request names its host once: there are several Host headers");
    }
    let named = first.map(|it| it.to_str().unwrap_or_default());
    if named.is_some_and(|it| !is_host(it)) {
        return Err("Host is no host that can be: host, or host:port");
    }
    match (request.version(), authority, named) {
        (Version::HTTP_11, _, None) => Err("a request of HTTP/1.1 has a Host header"),
        (Version::HTTP_2, None, None) => Err("a request of HTTP/2 has :authority, or a Host header"),
        (Version::HTTP_2, Some(authority), Some(named)) => {
            let port = default_port(request);
            let is_same = split(authority, port) == split(named, port);
            is_same.then_some(()).ok_or("Host and :authority name different hosts: leave Host out")
        }
        _ => Ok(()),
    }
}

/// That of the scheme, which only a CONNECT without `:protocol` does not have.
fn default_port<B>(request: &Request<B>) -> &'static str {
    match request.uri().scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => "443",
        Some(_) => "80",
        None => "",
    }
}

/// Host and port, so spelt that equal ones are equal.
fn split<'a>(authority: &'a str, default: &'a str) -> (String, &'a str) {
    let (host, port) = port_of(authority);
    (host.to_ascii_lowercase(), port.filter(|port| !port.is_empty()).unwrap_or(default))
}

/// What stands before and after the colon of the port.
fn port_of(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// `uri-host [":" port]` of RFC 9110 section 4.2, which has a host, and nobody's name and password before it.
fn is_host(text: &str) -> bool {
    let (host, port) = port_of(text);
    let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_good = match literal {
        Some(address) => address.bytes().all(|byte| is_of_a_name(byte) || byte == b':'),
        None => host.bytes().all(is_of_a_name) && are_escapes_whole(host),
    };
    is_port && is_good && !literal.unwrap_or(host).is_empty()
}

/// What a registered name may hold: unreserved characters, sub-delims, and escapes.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)
}

fn are_escapes_whole(host: &str) -> bool {
    host.split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|it| it.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in [
            "a",
            "fanfare.example",
            "a:80",
            "a:",
            "gateway_1:8000",
            "10.0.0.1:8",
            "[::1]",
            "[::1]:8000",
            "a%20b",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a:b", "a:80:80", "::1", "[::1", "[]", "a@b", "a?b", "a#b", "é", "a%2",
            "a\\b",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    /// What a request says of its host.
    fn said(version: Version, target: &str, hosts: &[&str]) -> Result<(), &'static str> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn a_request_names_one_host() {
        use Version as V;
        for (version, target, hosts, is_clear) in [
            (V::HTTP_11, "/ws", &["a"][..], true),
            (V::HTTP_11, "/ws", &[], false),
            (V::HTTP_11, "/ws", &["a", "a"], false),
            (V::HTTP_11, "/ws", &["a", "b"], false),
            (V::HTTP_11, "/ws", &[""], false),
            (V::HTTP_11, "/ws", &["a b"], false),
            (V::HTTP_11, "http://a/ws", &["b"], true),
            (V::HTTP_11, "http://a/ws", &[], false),
            (V::HTTP_11, "http://u@a/ws", &["a"], false),
            (V::HTTP_10, "/health", &[], true),
            (V::HTTP_10, "/health", &["a", "a"], false),
            (V::HTTP_2, "http://a/ws", &[], true),
            (V::HTTP_2, "http://a/ws", &["a"], true),
            (V::HTTP_2, "http://a:80/ws", &["A"], true),
            (V::HTTP_2, "https://a/ws", &["a:443"], true),
            (V::HTTP_2, "https://a/ws", &["a:80"], false),
            (V::HTTP_2, "http://a/ws", &["b"], false),
            (V::HTTP_2, "http://a/ws", &["a", "a"], false),
            (V::HTTP_2, "http://u:p@a/ws", &[], false),
            (V::HTTP_2, "/ws", &["a"], true),
            (V::HTTP_2, "/ws", &[], false),
        ] {
            assert_eq!(said(version, target, hosts).is_ok(), is_clear, "{version:?} {target} {hosts:?}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_told_apart_from_ones_own_and_from_none() {
        for (origin, host, is_own) in [
            (None, "127.0.0.1:8001", true),
            (Some("http://127.0.0.1:8001"), "127.0.0.1:8001", true),
            (Some("https://Console.example"), "console.example", true),
            (Some("http://[::1]:8001"), "[::1]:8001", true),
            (Some("http://127.0.0.1:8000"), "127.0.0.1:8001", false),
            (Some("http://127.0.0.1"), "127.0.0.1:8001", false),
            (Some("https://evil.example"), "127.0.0.1:8001", false),
            (Some("null"), "127.0.0.1:8001", false),
            (Some(""), "127.0.0.1:8001", false),
        ] {
            let request = Request::post("/api/publish").header(header::HOST, host);
            let request = match origin {
                Some(origin) => request.header(header::ORIGIN, origin),
                None => request,
            };
            assert_eq!(is_of_no_other_page(&request.body(()).unwrap()), is_own, "{origin:?} {host}");
        }
    }

    #[test]
    fn a_name_that_anyone_could_own_is_not_this_machine() {
        for (host, is_here) in [
            ("127.0.0.1:8001", true),
            ("[::1]:8001", true),
            ("localhost:9", true),
            ("LOCALHOST", true),
            ("node.localhost", true),
            ("192.0.2.1:8001", false),
            ("evil.example:8001", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let request = Request::post("/").header(header::HOST, host).body(()).unwrap();
            assert_eq!(is_this_machine(&request), is_here, "{host}");
        }
    }

    #[test]
    fn a_target_that_is_a_url_counts_more_than_host() {
        let request = Request::get("http://a:1/ws").header(header::HOST, "b").body(()).unwrap();
        assert_eq!(of(&request), Some("a:1"));
        let request = Request::get("/ws").header(header::HOST, "b").body(()).unwrap();
        assert_eq!(of(&request), Some("b"));
    }
}
