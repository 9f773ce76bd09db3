//! What strangers, proxies, key servers and operators write, held to what is true of any of it.
//!
//! Each function takes bytes, whatever they are, and panics where something does not hold. `fuzz/` feeds them by libFuzzer, which is
//! only built where that is asked for; the tests below feed them what is kept in `fuzz/corpus`, and some thousands of changes of it.

use std::net::{IpAddr, Ipv4Addr};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use futures_util::FutureExt;

use crate::auth::keys::Algorithm;
use crate::auth::keys::jwk::{self, KEYS_MAX, KID_BYTES_MAX};
use crate::config::{self, File, ForwardedBy, Source};
use crate::proxy::Proxies;
use crate::proxy::protocol::{self, Introduction};

/// The answer of a key server: keys that are named within bounds, are for some algorithm that a public key can be for, and check
/// any signature without a panic.
pub fn key_set(json: &[u8]) {
    let Ok(keys) = jwk::read_set(json) else { return };
    // What has a number that nobody can hold is JSON as well.
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(json) else { return };
    let offered = value["keys"].as_array().expect("it has a list of keys").len();
    assert!((1..=offered.min(KEYS_MAX)).contains(&keys.len()));
    for jwk in keys {
        assert!(jwk.kid.is_none_or(|kid| kid.len() <= KID_BYTES_MAX));
        let fitting = Algorithm::ALL.into_iter().filter(|algorithm| jwk.key.is_for(*algorithm));
        let fitting: Vec<_> = fitting.collect();
        assert!(!fitting.is_empty() && fitting.iter().all(|algorithm| algorithm.is_public()));
        assert!(jwk.algorithm.is_none_or(|only| fitting.contains(&only)));
        for algorithm in fitting {
            let signature = &json[..json.len().min(64)];
            assert!(!jwk.key.has_signed(algorithm, json, signature), "nobody has signed that");
        }
    }
}

/// What a socket from a trusted proxy begins with: the same is understood wherever the stream is cut, and not a byte is read
/// beyond it.
pub fn introduction(bytes: &[u8]) {
    /// The longest header of either version.
    const BYTES_MAX: usize = 4096;
    let read = |mut stream: &[u8]| {
        let outcome = protocol::read(&mut stream).now_or_never().expect("a slice is always ready");
        (outcome.ok(), stream.len())
    };
    let (outcome, left) = read(bytes);
    let taken = bytes.len() - left;
    assert!(taken <= BYTES_MAX);
    let Some(outcome) = outcome else { return };
    let header = &bytes[..taken];
    assert_eq!(read(header), (Some(outcome), 0), "what follows is not looked at");
    assert_eq!(read(&[header, b"\r\n\0"].concat()), (Some(outcome), 3), "nor read");
    for cut in 0..taken {
        assert_eq!(read(&header[..cut]).0, None, "less than all of it is none");
    }
    if let Introduction::Client(client) = outcome {
        assert_eq!(client, client.to_canonical());
    }
}

/// What stands in the header of a proxy, line by line: whatever it is, it makes nobody somebody else once a trusted proxy has
/// appended whom it was spoken to by, and a peer that is not trusted is itself.
pub fn forwarded(bytes: &[u8]) {
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
    const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
    let trusted = vec!["10.0.0.0/8".parse().expect("a network"), "2001:db8::/32".parse().expect("a network")];
    for (header, name, appended) in [
        (ForwardedBy::XForwardedFor, "x-forwarded-for", "203.0.113.7, 10.0.0.2"),
        (ForwardedBy::Forwarded, "forwarded", "for=203.0.113.7;proto=https, for=10.0.0.2"),
    ] {
        let config = config::Proxy { trusted: trusted.clone(), header, protocol: false };
        let proxies = Proxies::of(&config);
        let lines = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                headers.append(HeaderName::from_static(name), value);
            }
            headers
        };
        let written: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
        assert_eq!(proxies.client(CLIENT, &lines(&written)), Ok(CLIENT), "nobody believes it");
        let last = [written.last().copied().unwrap_or_default(), b", ", appended.as_bytes()].concat();
        let behind = [&written[..written.len().saturating_sub(1)], &[&*last]].concat();
        let is_header = HeaderValue::from_bytes(&last).is_ok_and(|value| value.to_str().is_ok());
        if is_header {
            assert_eq!(proxies.client(PROXY, &lines(&behind)), Ok(CLIENT), "{behind:?}");
        }
    }
}

/// A configuration: the file, and behind a zero byte variables, one a line. It is taken with its rules kept, or refused with
/// reasons; and no secret is in either.
pub fn configuration(bytes: &[u8]) {
    const SECRET: &str = "a-secret-of-this-run-0123456789abcdef";
    let Ok(text) = str::from_utf8(bytes) else { return };
    // Files are named by a configuration, and those of the system may have no end.
    if text.contains("/dev") || text.contains("/proc") || text.contains("/sys") {
        return;
    }
    let (file, variables) = text.split_once('\0').unwrap_or((text, ""));
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut environment: Vec<_> = variables.lines().filter_map(pair).collect();
    environment.push(("FANFARE__HOOKS__SECRET".into(), SECRET.into()));
    let file = File { path: "fanfare.toml".into(), text: file.into() };
    let source = Source { file: Some(file), environment, ..Source::default() };
    assert!(!format!("{source:?}").contains(SECRET));
    match config::load(&source) {
        Err(mistakes) => {
            let told = mistakes.to_string();
            assert!(!told.trim().is_empty(), "whoever is refused is told why");
            assert!(!told.contains(SECRET), "{told}");
        }
        Ok(config) => {
            assert!(!format!("{config:?}").contains(SECRET));
            let is_open = !config.listen.public.ip().to_canonical().is_loopback();
            assert!(
                !is_open
                    || config.auth.jwt.is_some()
                    || text.contains("anonymous")
                    || config.hooks.connect.is_some()
            );
            let is_internal_open = !config.listen.internal.ip().to_canonical().is_loopback();
            assert!(!is_internal_open || !config.api.keys.is_empty(), "the server API takes keys there");
            assert!(config.limits.queue_bytes >= config.limits.message_bytes);
            assert!(config.heartbeat.timeout <= config.heartbeat.interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What is kept of a target's corpus.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// One change: a byte, a piece less, a piece twice, a piece of another.
    fn changed(input: &[u8], others: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut changed = input.to_vec();
        let at = random.usize(..=changed.len());
        let until = random.usize(at..=changed.len());
        match random.u8(..5) {
            0 if at < changed.len() => changed[at] = random.u8(..),
            1 => changed.insert(at, b"\"{}[],:=.\n\0 019"[random.usize(..14)]),
            2 => drop(changed.drain(at..until)),
            3 => changed.extend_from_within(at..until),
            _ => {
                let other = &others[random.usize(..others.len())];
                let from = random.usize(..=other.len());
                drop(changed.splice(at..until, other[from..].iter().copied()));
            }
        }
        changed.truncate(4096);
        changed
    }

    /// Everything that is kept, and so many changes upon changes of it, always the same.
    fn holds(target: &str, check: fn(&[u8]), changes: usize) {
        let corpus = corpus(target);
        corpus.iter().for_each(|input| check(input));
        let mut random = fastrand::Rng::with_seed(46);
        let mut input = Vec::new();
        for number in 0..changes {
            if number % 5 == 0 {
                input.clone_from(&corpus[random.usize(..corpus.len())]);
            }
            input = changed(&input, &corpus, &mut random);
            check(&input);
        }
    }

    #[test]
    fn key_sets_hold() {
        holds("keys", key_set, 4_000);
    }

    #[test]
    fn headers_of_proxies_hold() {
        holds("introduction", introduction, 10_000);
        holds("forwarded", forwarded, 10_000);
    }

    #[test]
    fn configurations_hold() {
        holds("configuration", configuration, 1_500);
    }
}
