//! One hop of `X-Forwarded-For`, and of `Forwarded` (RFC 7239).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address with or without a port, quoted or not: proxies differ.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let bracketed = || -> Option<IpAddr> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let address = text.parse().ok().or_else(bracketed);
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()));
    address.map(|it| it.to_canonical())
}

/// The `for` of an element of `Forwarded`. A comma within quotes would have cut the element in two, neither of which is read:
/// none of the values that count has one.
pub(super) fn element(text: &str) -> Option<IpAddr> {
    let mut pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    address(node)
}
