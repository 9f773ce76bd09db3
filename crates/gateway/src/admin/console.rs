//! Two embedded pages: one on which a newcomer sees messages cross, and one by which operators see what a cluster does.
//!
//! They are static files compiled into the binary, served as they are: no build step, nothing fetched from elsewhere. The
//! newcomer's, on the public listener, talks to its own node over `/ws` and `/status` like any other client, so it can do nothing
//! that a client cannot; where a network lets no WebSocket through, over `/sse` and `/publish`. The operators', on the internal
//! listener, asks the server API, and hears channels over that listener's `/ws`: it can do what its user's key can, and
//! offers nothing else ([ADR 0056](../../../../docs/adr/0056-console.md)).
//!
//! **Invariant:** every answer carries [`HEADERS`], whose policy lets a page load from its own origin alone
//! and run nothing inline. The files must therefore hold no inline script, no style attribute and no `data:`
//! address; the tests below read them for that, and the browser tests fail on any violation.
//!
//! What is kept out on purpose: templating. A page that differs per request could not be validated by a
//! tag known at compile time, and what it would say is what `welcome` and `/status` already tell.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// What every answer of a page carries, names in lower case.
///
/// `no-cache` means "ask before you use it": a browser revalidates by [`Asset::etag`], so an upgraded node
/// never serves half of an old page.
pub(crate) const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
];

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asset {
    /// The media type, with its charset where it is text.
    pub(crate) content_type: &'static str,
    /// The file, byte for byte.
    pub(crate) body: &'static [u8],
    hash: u64,
}

/// The file at `path` of the public listener; `None` where the newcomer's page has nothing.
pub(crate) fn asset(path: &str) -> Option<Asset> {
    find(&ASSETS, path)
}

/// The file at `path` of the internal listener; `None` where the operators' page has nothing.
pub(crate) fn operators(path: &str) -> Option<Asset> {
    find(&OPERATORS, path)
}

fn find(assets: &[(&str, Asset)], path: &str) -> Option<Asset> {
    assets.iter().find(|(at, _)| *at == path).map(|(_, asset)| *asset)
}

impl Asset {
    const fn new(content_type: &'static str, body: &'static [u8]) -> Self {
        Self { content_type, body, hash: fnv1a(body) }
    }

    /// The strong validator of this file, quoted as the header has it.
    pub(crate) fn etag(&self) -> String {
        format!("\"{:016x}\"", self.hash)
    }

    /// The whole answer: 304 without a body when `if_none_match` names this very file, else 200 with it.
    pub(crate) fn response(&self, if_none_match: Option<&HeaderValue>) -> Response<Bytes> {
        let etag = self.etag();
        let known = if_none_match.and_then(|tags| tags.to_str().ok()).is_some_and(|tags| names(tags, &etag));
        let (status, body) = match known {
            true => (StatusCode::NOT_MODIFIED, Bytes::new()),
            false => (StatusCode::OK, Bytes::from_static(self.body)),
        };
        let mut response = Response::builder().status(status).header(header::ETAG, etag);
        if !known {
            response = response.header(header::CONTENT_TYPE, self.content_type);
        }
        for (name, value) in HEADERS {
            response = response.header(name, value);
        }
        response.body(body).expect("every header here is a constant or hexadecimal")
    }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The newcomer's page.
const ASSETS: [(&str, Asset); 7] = [
    ("/", Asset::new(HTML, include_bytes!("console/index.html"))),
    ("/console/base.css", BASE),
    ("/console/console.css", Asset::new(CSS, include_bytes!("console/console.css"))),
    ("/console/console.js", Asset::new(SCRIPT, include_bytes!("console/console.js"))),
    ("/console/connection.js", CONNECTION),
    ("/console/fallback.js", Asset::new(SCRIPT, include_bytes!("console/fallback.js"))),
    ("/console/favicon.svg", ICON),
];

/// The operators' page.
const OPERATORS: [(&str, Asset); 20] = [
    ("/", Asset::new(HTML, include_bytes!("console/operators/index.html"))),
    ("/console/base.css", BASE),
    ("/console/operators.css", Asset::new(CSS, include_bytes!("console/operators/operators.css"))),
    ("/console/main.js", Asset::new(SCRIPT, include_bytes!("console/operators/main.js"))),
    ("/console/api.js", Asset::new(SCRIPT, include_bytes!("console/operators/api.js"))),
    ("/console/dom.js", Asset::new(SCRIPT, include_bytes!("console/operators/dom.js"))),
    ("/console/words.js", Asset::new(SCRIPT, include_bytes!("console/operators/words.js"))),
    ("/console/chart.js", Asset::new(SCRIPT, include_bytes!("console/operators/chart.js"))),
    ("/console/cluster.js", Asset::new(SCRIPT, include_bytes!("console/operators/cluster.js"))),
    ("/console/alerts.js", Asset::new(SCRIPT, include_bytes!("console/operators/alerts.js"))),
    ("/console/live.js", Asset::new(SCRIPT, include_bytes!("console/operators/live.js"))),
    ("/console/trace.js", Asset::new(SCRIPT, include_bytes!("console/operators/trace.js"))),
    ("/console/ways.js", Asset::new(SCRIPT, include_bytes!("console/operators/ways.js"))),
    ("/console/log.js", Asset::new(SCRIPT, include_bytes!("console/operators/log.js"))),
    ("/console/overview.js", Asset::new(SCRIPT, include_bytes!("console/operators/overview.js"))),
    ("/console/lists.js", Asset::new(SCRIPT, include_bytes!("console/operators/lists.js"))),
    ("/console/channel.js", Asset::new(SCRIPT, include_bytes!("console/operators/channel.js"))),
    ("/console/client.js", Asset::new(SCRIPT, include_bytes!("console/operators/client.js"))),
    ("/console/connection.js", CONNECTION),
    ("/console/favicon.svg", ICON),
];

/// A conversation with a node, which both pages hold.
const CONNECTION: Asset = Asset::new(SCRIPT, include_bytes!("console/connection.js"));
/// The looks that both pages have.
const BASE: Asset = Asset::new(CSS, include_bytes!("console/base.css"));
const ICON: Asset = Asset::new(SVG, include_bytes!("console/favicon.svg"));

/// Whether the list of an `If-None-Match` names `etag`, by the weak comparison that RFC 9110 asks for there.
fn names(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// FNV-1a of 64 bits. It tells one build's files from another's; nothing here defends against a forger.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.body).unwrap()
    }

    /// Every file of both pages, and the page that it belongs to.
    fn files() -> impl Iterator<Item = (&'static str, &'static Asset, &'static [(&'static str, Asset)])> {
        [&ASSETS[..], &OPERATORS[..]]
            .into_iter()
            .flat_map(|all| all.iter().map(move |(path, file)| (*path, file, all)))
    }

    #[test]
    fn only_their_own_paths_are_answered() {
        for path in [
            "",
            "/index.html",
            "/console",
            "/console/",
            "/console/../main.rs",
            "//",
            "/ws",
            "/status",
            "/console/x.js",
        ] {
            assert_eq!((asset(path), operators(path)), (None, None), "{path}");
        }
        assert_ne!(asset("/"), operators("/"));
        assert_eq!(asset("/console/main.js"), None, "the operators' page is not for everyone");
    }

    #[test]
    fn whatever_a_page_refers_to_is_served() {
        for page in [&ASSETS[..], &OPERATORS[..]] {
            let mut found = 0;
            for attribute in ["src=\"", "href=\""] {
                for rest in text(&find(page, "/").unwrap()).split(attribute).skip(1) {
                    let target = rest.split('"').next().unwrap();
                    if !target.starts_with('#') && target != "/console" {
                        assert!(find(page, target).is_some(), "{target}");
                        found += 1;
                    }
                }
            }
            assert!(found >= 4, "a page refers to its style, script and icon: {found}");
        }
        for (path, file, page) in files() {
            for rest in text(file).split("from './").skip(1) {
                let target = format!("/console/{}", rest.split('\'').next().unwrap());
                assert!(find(page, &target).is_some(), "{path} imports {target}");
            }
        }
    }

    #[test]
    fn no_file_needs_an_exception_from_the_policy() {
        for (path, file, _) in files() {
            for forbidden in
                [" style=", "<style", "javascript:", "data:image", "innerHTML", "insertAdjacent", "eval("]
            {
                assert!(!text(file).contains(forbidden), "{path} holds {forbidden}");
            }
            let elsewhere = text(file).replace("http://www.w3.org/2000/svg", "").contains("://www.");
            assert!(!elsewhere && !text(file).contains("https://"), "{path} names another host");
        }
        for page in [asset("/"), operators("/")] {
            let scripts = text(&page.unwrap()).matches("<script").count();
            assert_eq!(scripts, 1, "one script, and it has a src");
        }
    }

    #[test]
    fn an_answer_carries_the_file_and_every_header() {
        for (path, file, _) in files() {
            let response = file.response(None);
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.body(), file.body, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], file.content_type, "{path}");
            for (name, value) in HEADERS {
                assert_eq!(response.headers()[name], value, "{path}");
            }
        }
    }

    #[test]
    fn a_file_already_there_is_not_sent_again() {
        let page = asset("/").unwrap();
        let etag = page.response(None).headers()[header::ETAG].clone();
        let weak = format!("\"other\", W/{}", etag.to_str().unwrap());
        for same in [etag, HeaderValue::from_str(&weak).unwrap(), HeaderValue::from_static("*")] {
            let response = page.response(Some(&same));
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{same:?}");
            assert!(response.body().is_empty(), "{same:?}");
            assert_eq!(response.headers()["content-security-policy"], HEADERS[0].1, "{same:?}");
        }
        let stale = HeaderValue::from_static("\"0000000000000000\"");
        assert_eq!(page.response(Some(&stale)).status(), StatusCode::OK);
    }

    #[test]
    fn files_that_differ_have_tags_that_differ() {
        let mut tags: Vec<_> = files().map(|(_, file, _)| file.etag()).collect();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), ASSETS.len() + OPERATORS.len() - 3, "three files belong to both pages");
    }
}
