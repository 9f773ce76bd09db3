//! Where to connect to, and as whom.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::OptionsError;

/// Why there is no token, in a sentence for the log. It must not hold the token.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

/// Makes tokens.
type Fresh = Arc<dyn Fn() -> BoxFuture<'static, Result<String, TokenError>> + Send + Sync>;

/// Who the client is.
#[derive(Clone, Default)]
pub enum Token {
    /// Nobody.
    #[default]
    None,
    /// One token. When that has expired the client ends.
    Fixed(String),
    /// Asked for one when connecting, and again before it ends.
    Fresh(Fresh),
}

impl Token {
    /// Asks this function for a token whenever one is needed. Where it fails the client tries again later.
    pub fn fresh<F, R>(make: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self::Fresh(Arc::new(move || Box::pin(make())))
    }

    pub(crate) async fn get(&self) -> Result<Option<String>, TokenError> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::Fresh(make) => make().await.map(Some),
        }
    }

    /// Whether asking again may bring another one.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(_))
    }
}

/// A token has no business in a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed(…)",
            Self::Fresh(_) => "Fresh(…)",
        })
    }
}

/// How events come and commands go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Server-Sent Events, and a request for each publication: where a network lets no WebSocket through.
    Sse,
    /// Long polls, and a request for each publication: where a proxy holds responses back until they end.
    Poll,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// `ws://` or `wss://`, with the path: `ws://127.0.0.1:8000/ws`. The other transports are beside it.
    pub url: String,
    /// Which transports, in the order in which they are tried: another one where somebody answers and does not let one through. All of them
    /// unless changed.
    pub transports: Vec<Transport>,
    /// Where a WebSocket comes first, how often it is tried meanwhile whether one is let through by now, give or take a half; a minute unless
    /// changed.
    pub probe: Duration,
    /// Who the client is.
    pub token: Token,
    /// How many events a [`Subscription`](crate::Subscription) holds that have not been read; at least 1, 1,024 unless changed.
    pub queue: usize,
    /// How long a call waits for its answer, over as many connections as that takes; 10 seconds unless changed.
    pub timeout: Duration,
    /// Whom to trust with `wss://`; the authorities that browsers trust unless changed.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Options {
    /// An anonymous client of the server at this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            transports: vec![Transport::WebSocket, Transport::Sse, Transport::Poll],
            probe: Duration::from_secs(60),
            token: Token::None,
            queue: 1024,
            timeout: Duration::from_secs(10),
            tls: None,
        }
    }

    /// The same as somebody.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = token;
        self
    }

    /// Where to connect to.
    pub(crate) fn target(&self) -> Result<Target, OptionsError> {
        let bad = || OptionsError::Url(self.url.clone());
        if self.queue == 0 {
            return Err(OptionsError::Queue);
        }
        if self.transports.is_empty() {
            return Err(OptionsError::Transports);
        }
        // Only to be sure that it will do for a request later.
        let request = self.url.as_str().into_client_request().map_err(|_| bad())?;
        let uri: &Uri = request.uri();
        let tls = match uri.scheme_str() {
            Some("ws") => None,
            Some("wss") => Some(self.tls.clone().unwrap_or_else(browsers)),
            _ => return Err(bad()),
        };
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let authority =
            uri.authority().ok_or_else(bad)?.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        let path = uri.path().trim_end_matches('/');
        let base = path.strip_suffix("/ws").unwrap_or(path).to_owned();
        Ok(Target { host, port, tls, authority, base })
    }
}

/// Where to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// For `Host`.
    pub(crate) authority: String,
    /// What stands before `/ws`, `/sse` and the others.
    pub(crate) base: String,
}

/// Trusts whom browsers trust.
fn browsers() -> Arc<ClientConfig> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("the provider has the suites of both versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_of_a_websocket() {
        let target = |url: &str| Options::new(url).target().map(|it| (it.host, it.port, it.tls.is_some()));
        assert_eq!(target("ws://a.example/ws"), Ok(("a.example".into(), 80, false)));
        assert_eq!(target("ws://127.0.0.1:8000/ws"), Ok(("127.0.0.1".into(), 8000, false)));
        assert_eq!(target("wss://[::1]:8443/ws"), Ok(("::1".into(), 8443, true)));
        assert_eq!(target("wss://a.example/ws"), Ok(("a.example".into(), 443, true)));
        for bad in ["", "a.example", "http://a.example/ws", "ws://", "ws:///ws"] {
            assert_eq!(target(bad), Err(OptionsError::Url(bad.into())), "{bad}");
        }
        let base = |url: &str| Options::new(url).target().map(|it| (it.authority, it.base));
        assert_eq!(base("ws://a.example:81/ws"), Ok(("a.example:81".into(), String::new())));
        assert_eq!(base("wss://a.example/live/ws"), Ok(("a.example".into(), "/live".into())));
        let none = Options { transports: Vec::new(), ..Options::new("ws://a.example/ws") };
        assert_eq!(none.target().unwrap_err(), OptionsError::Transports);
        let none = Options { queue: 0, ..Options::new("ws://a.example/ws") };
        assert_eq!(none.target().unwrap_err(), OptionsError::Queue);
    }

    #[test]
    fn a_token_is_not_printed() {
        let options = Options::new("ws://a.example/ws").token(Token::Fixed("secret".into()));
        assert!(!format!("{options:?}").contains("secret"));
    }
}
