//! A new configuration for a running node: what it can take, it takes; what it cannot, it is told.
//!
//! ```text
//!  in force (merged values) ─┬─► differences ─► by the table: applied, or waiting for a restart
//!  new source ─► load ───────┴─► mixed: reloadable keys as the new source has them, the others as they are
//!                                  └─► typed ─► cross checks ─► in force
//! ```
//!
//! **Invariants.** What is in force has always passed every check: a source with a mistake changes nothing, and the
//! mixture is held to the rules between keys like any source. What waits for a restart is compared with what the node
//! runs on, not with what was read last, so it is named at every reload until the restart. Certificates are read by their
//! paths in force, so their files may change without a word in the configuration.

use std::fmt;

use super::merge::{self, Merged};
use super::mistake::Mistakes;
use super::source::Source;
use super::typed::{self, Config};
use super::{authorities, identity, keys, layer, rules, tokens};

/// A configuration in force, which another can take the place of.
#[derive(Clone)]
pub struct Loaded {
    config: Config,
    merged: Merged,
    /// Drawn at the start, and kept: a node does not change its name.
    default_name: String,
}

/// The keys that differ, by name: their values may be secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that are in force now, and `namespaces.<name>` for a namespace that came or went.
    pub applied: Vec<String>,
    /// Those that stay as they were until the node is started anew.
    pub waiting: Vec<String>,
}

impl Loaded {
    /// Reads the layers like [`load`](super::load).
    ///
    /// # Errors
    ///
    /// All mistakes of all layers at once.
    pub fn of(source: &Source) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let layers = layer::read(source, &mut mistakes);
        let merged = merge::merge(layers, &mut mistakes);
        Self::checked(merged, source.default_name.clone(), mistakes)
    }

    /// What is in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same, for who does not reload.
    #[must_use]
    pub fn into_config(self) -> Config {
        self.config
    }

    /// What is in force once a running node has read `source`, and how that differs.
    ///
    /// # Errors
    ///
    /// The mistakes of `source`; or, where it has none, the rules that its reloadable keys break together with the keys
    /// that need a restart, as they are. Either way nothing is to change.
    pub fn reload(&self, source: &Source) -> Result<(Self, Changes), Mistakes> {
        let new = Self::of(source)?;
        let merged = self.merged.reloaded(&new.merged);
        let next = Self::checked(merged, self.default_name.clone(), Mistakes::default())
            .map_err(|mistakes| mistakes.under("with the keys that need a restart as they are"))?;
        let (waiting, applied) =
            self.merged.differences(&new.merged).into_iter().partition(|path| keys::needs_restart(path));
        Ok((next, Changes { applied, waiting }))
    }

    /// What is in force once the files of the certificates have been read again; None if they say the same as before.
    ///
    /// # Errors
    ///
    /// What is wrong with them. Then nothing is to change.
    pub fn renewed(&self) -> Result<Option<Self>, Mistakes> {
        let next = Self::checked(self.merged.clone(), self.default_name.clone(), Mistakes::default())?;
        Ok((next.config.tls != self.config.tls).then_some(next))
    }

    fn checked(merged: Merged, default_name: String, mut mistakes: Mistakes) -> Result<Self, Mistakes> {
        let mut config = typed::build(&merged, &default_name);
        config.tls.public = identity::read("tls", &merged, &mut mistakes);
        config.tls.internal = identity::read("tls.internal", &merged, &mut mistakes);
        config.authorities = authorities::read(&merged, &mut mistakes);
        config.auth.jwt = tokens::read(&merged, &mut mistakes);
        let is_open = config.is_loopback() && config.auth.jwt.is_none() && config.hooks.connect.is_none();
        config.auth.anonymous = merged.switch("auth.anonymous").unwrap_or(is_open);
        rules::check(&config, &merged, &mut mistakes);
        mistakes.or(Self { config, merged, default_name })
    }
}

// The merged values hold secrets in the open.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loaded").field(&self.config).finish()
    }
}
