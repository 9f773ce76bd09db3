//! Tests: what holds of every table that has words of strangers for keys.

use std::collections::HashSet;
use std::hash::BuildHasher;

use fanfare_protocol::Channel;

/// Whoever has found out which names fall into one place of a table knows nothing of the next: each draws keys of its own.
pub(crate) fn names_that_collide_in_one_are_spread_in_another<S: BuildHasher>(hasher: impl Fn() -> S) {
    const PLACES: u64 = 256;
    const NAMES: usize = 200;
    let (one, another) = (hasher(), hasher());
    let names = (0..).map(|number| Channel::parse(&format!("room:{number}")).unwrap());
    let colliding = names.filter(|name| one.hash_one(name) % PLACES == 0).take(NAMES);
    let places: HashSet<_> = colliding.map(|name| another.hash_one(name) % PLACES).collect();
    assert!(places.len() > NAMES / 4, "{NAMES} names come to {} places", places.len());
}
