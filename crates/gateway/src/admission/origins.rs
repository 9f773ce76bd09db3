//! Which pages may connect.

/// The origins that pages may come from.
#[derive(Debug)]
pub(crate) struct Origins(Vec<OriginPattern>);

impl Origins {
    /// These; where none is named, the host that a page connects to. `*` is every origin.
    pub(crate) fn new(allowed: &[String]) -> Self {
        Self(allowed.iter().map(|origin| OriginPattern::new(origin)).collect())
    }

    /// Whether a page of this origin may connect to the host that its request names. Clients that are not browsers send
    /// no origin; they are not asked.
    pub(crate) fn allow(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        let origin = origin.to_ascii_lowercase();
        if self.0.is_empty() {
            let page = origin.split_once("://").map(|(_, authority)| without_port(authority));
            return page.is_some_and(|page| page.eq_ignore_ascii_case(without_port(host)));
        }
        self.0.iter().any(|pattern| pattern.matches(&origin))
    }
}

/// The host of `host[:port]`, where an IPv6 address stands in brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

#[derive(Debug)]
enum OriginPattern {
    /// `*`
    Every,
    /// `scheme://host[:port]`
    Exactly(String),
    /// `scheme://*.host[:port]`
    Subdomains { scheme: String, host: String },
}

impl OriginPattern {
    fn new(pattern: &str) -> Self {
        match pattern.split_once("://*.") {
            _ if pattern == "*" => Self::Every,
            Some((scheme, host)) => Self::Subdomains { scheme: scheme.into(), host: host.into() },
            None => Self::Exactly(pattern.into()),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Exactly(allowed) => origin == allowed,
            Self::Subdomains { scheme, host } => {
                origin.split_once("://").is_some_and(|(theirs, authority)| {
                    let sub = authority.strip_suffix(host.as_str());
                    theirs == scheme && sub.is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_exactly_or_by_subdomain() {
        let allowed = ["https://app.example.com".to_owned(), "https://*.example.org:8443".to_owned()];
        let origins = Origins::new(&allowed);
        for (origin, expected) in [
            (None, true),
            (Some("https://app.example.com"), true),
            (Some("HTTPS://App.Example.Com"), true),
            (Some("http://app.example.com"), false),
            (Some("https://app.example.com.evil.net"), false),
            (Some("https://evilapp.example.com"), false),
            (Some("https://a.example.org:8443"), true),
            (Some("https://a.b.example.org:8443"), true),
            (Some("https://example.org:8443"), false),
            (Some("https://.example.org:8443"), false),
            (Some("https://evilexample.org:8443"), false),
            (Some("https://a.example.org"), false),
            (Some("null"), false),
        ] {
            assert_eq!(origins.allow(origin, "example.org:8443"), expected, "{origin:?}");
        }
        let everyone = Origins::new(&["*".to_owned()]);
        assert!(everyone.allow(Some("https://anywhere"), "here"));
    }

    #[test]
    fn where_no_origin_is_named_a_page_connects_to_its_own_host() {
        let origins = Origins::new(&[]);
        for (origin, host, expected) in [
            (None, "localhost:8000", true),
            (Some("http://localhost:3000"), "localhost:8000", true),
            (Some("https://Example.com"), "example.com", true),
            (Some("http://[::1]:3000"), "[::1]:8000", true),
            (Some("http://[::1]"), "[::1]", true),
            (Some("http://[::2]"), "[::1]", false),
            (Some("https://evil.net"), "localhost:8000", false),
            (Some("https://localhost.evil.net"), "localhost:8000", false),
            (Some("null"), "localhost:8000", false),
        ] {
            assert_eq!(origins.allow(origin, host), expected, "{origin:?} {host}");
        }
    }
}
