//! What a value may be: raw text to a value of the declared type, or what was expected instead.

use std::fmt;
use std::net::SocketAddr;

use ::config::ValueKind;
use ::http::Uri;
use fanfare_protocol::grant::Pattern;
use tracing_subscriber::EnvFilter;

use super::network::Network;

/// The type of a key, with its bounds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Whole {
        min: u64,
        max: u64,
    },
    Switch,
    Choice(&'static [&'static str]),
    /// Letters, digits and the characters of `also`; at least one byte and at most `max`.
    Text {
        max: usize,
        also: &'static str,
    },
    Address,
    /// A file, by a path that is absolute or begins in the directory that the node was started in.
    File,
    /// Directives of `tracing_subscriber::EnvFilter`.
    Filter,
    Origins,
    RedisUrls,
    Secrets,
    /// One secret, of whatever characters.
    Secret,
    /// A public key in PEM, or the path of a file that holds one.
    PublicKey,
    /// Text of whatever characters.
    Words,
    /// Any of a few words.
    Choices(&'static [&'static str]),
    Networks,
    /// Names of channels, `*` in them standing for any characters.
    Patterns,
    /// Names of headers that may be shown to a backend.
    Headers,
    /// A URL of HTTP, without a user or a password.
    Url,
}

/// A value as a layer has it.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From a variable or a flag: the key decides what it is.
    Untyped(String),
    Text(String),
    /// None for a number that no machine word holds.
    Whole(Option<i128>),
    Switch(bool),
    List(Vec<Self>),
    Table {
        empty: bool,
    },
    /// A fraction or a date: no key is one.
    Other,
}

impl Kind {
    /// Whether the value must not appear in messages.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::Secrets | Self::RedisUrls | Self::Secret | Self::PublicKey)
    }

    fn is_list(self) -> bool {
        matches!(
            self,
            Self::Origins
                | Self::RedisUrls
                | Self::Secrets
                | Self::Choices(_)
                | Self::Networks
                | Self::Patterns
                | Self::Headers
        )
    }

    /// The value with its type, None if it is not one of ours.
    pub(super) fn check(self, raw: &Raw) -> Option<ValueKind> {
        if self.is_list() {
            let items = match raw {
                Raw::List(items) => items.clone(),
                Raw::Untyped(text) => super::layer::list(text)?,
                _ => return None,
            };
            let items: Option<Vec<_>> = items.iter().map(|item| self.check_item(item)).collect();
            return items.map(ValueKind::from);
        }
        self.check_item(raw)
    }

    /// A single value, or one item of a list.
    fn check_item(self, raw: &Raw) -> Option<ValueKind> {
        match (self, raw) {
            (Self::Whole { min, max }, raw) => {
                let number = match raw {
                    Raw::Whole(number) => u64::try_from((*number)?).ok()?,
                    Raw::Untyped(text) if text.bytes().all(|it| it.is_ascii_digit()) => text.parse().ok()?,
                    _ => return None,
                };
                (min..=max).contains(&number).then_some(ValueKind::U64(number))
            }
            (Self::Switch, Raw::Switch(on)) => Some(ValueKind::Boolean(*on)),
            (Self::Switch, Raw::Untyped(text)) => text.parse().ok().map(ValueKind::Boolean),
            (Self::Switch, _) => None,
            (_, Raw::Text(text) | Raw::Untyped(text)) => {
                self.accepts(text).then(|| ValueKind::String(text.clone()))
            }
            _ => None,
        }
    }

    /// Whether a text is one of this kind.
    fn accepts(self, text: &str) -> bool {
        match self {
            Self::Whole { .. } | Self::Switch => false,
            Self::Choice(words) | Self::Choices(words) => words.contains(&text),
            Self::Url => is_url(text),
            Self::Headers => super::hooks::is_forwardable(text),
            Self::Networks => text.parse::<Network>().is_ok(),
            Self::Patterns => Pattern::parse(text).is_some(),
            Self::Text { max, also } => is_name(text, max, also),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::File => !text.is_empty() && !text.contains('\0'),
            Self::Filter => !text.trim().is_empty() && EnvFilter::try_new(text).is_ok(),
            Self::Origins => is_origin(text),
            Self::RedisUrls => {
                let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
                rest.is_some_and(|it| !it.is_empty() && !it.contains(char::is_whitespace))
            }
            Self::Secret | Self::PublicKey => !text.is_empty() && !text.contains('\0'),
            Self::Words => !text.is_empty() && text.len() <= 255 && !text.contains(char::is_control),
            Self::Secrets => !text.is_empty() && text.bytes().all(|it| it.is_ascii_graphic()),
        }
    }
}

/// What is expected, to stand before "is expected" and in the documentation.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Switch => f.write_str("true or false"),
            Self::Choice(words) => {
                let (last, others) = words.split_last().expect("a choice has words");
                write!(f, "\"{}\" or \"{last}\"", others.join("\", \""))
            }
            Self::Choices(words) => write!(f, "a list of any of \"{}\"", words.join("\", \"")),
            Self::Patterns => f.write_str("a list of channels, such as \"news\" or \"room:*\""),
            Self::Networks => {
                f.write_str("a list of networks such as \"10.0.0.0/8\", \"2001:db8::/32\" or \"127.0.0.1\"")
            }
            Self::Url => {
                f.write_str("a URL such as \"https://login.example.com/path\", without a user or a password")
            }
            Self::Text { max, also } => write!(f, "text of 1 to {max} letters, digits and any of \"{also}\""),
            Self::Address => f.write_str("an address and port such as \"127.0.0.1:8000\" or \"[::1]:8000\""),
            Self::File => f.write_str("the path of a file"),
            Self::Filter => {
                f.write_str("a level such as \"info\", or directives such as \"info,fanfare_fanout=debug\"")
            }
            Self::Headers => f.write_str(
                "a list of names of headers such as \"cookie\", of none that speak of a hop or a body",
            ),
            Self::Origins => f.write_str(
                "a list of origins such as \"https://app.example.com\" or \"https://*.example.com\"",
            ),
            Self::RedisUrls => f.write_str("a list of URLs such as \"redis://127.0.0.1:6379\""),
            Self::Secret => f.write_str("a secret that is not empty"),
            Self::PublicKey => f.write_str("a public key in PEM, or the path of a file that holds one"),
            Self::Words => f.write_str("text of 1 to 255 bytes"),
            Self::Secrets => f.write_str("a list of keys, each of printable ASCII without spaces"),
        }
    }
}

/// Whether `text` has only letters, digits and `also`, and 1 to `max` bytes.
pub(super) fn is_name(text: &str, max: usize, also: &str) -> bool {
    (1..=max).contains(&text.len()) && text.chars().all(|it| it.is_ascii_alphanumeric() || also.contains(it))
}

/// `http` or `https`, a host, and perhaps a port, a path and a query.
fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else { return false };
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    let has_host = url.host().is_some_and(|host| !host.is_empty());
    is_http && has_host && !url.authority().is_some_and(|it| it.as_str().contains('@'))
}

/// Scheme, host and perhaps a port, as a browser spells them; `*.` may stand before the host, and `*` alone for all.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(authority) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let host_and_port = authority.strip_prefix("*.").unwrap_or(authority);
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (host_and_port, None),
    };
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host_is_sound = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let sound = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
            host.split('.').all(|label| !label.is_empty() && label.chars().all(sound))
        }
    };
    host_is_sound && port.is_none_or(|it| it.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_spell_them() {
        for good in [
            "*",
            "https://app.example.com",
            "http://localhost:3000",
            "https://*.example.com",
            "https://*.example.com:8443",
            "http://127.0.0.1",
            "http://[::1]:8080",
            "http://[::1]",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "null",
            "app.example.com",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://a..b",
            "https://*.*.example.com",
            "https://a.example:0",
            "https://a.example:x",
            "https://[::g]",
            "wss://a.example",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
