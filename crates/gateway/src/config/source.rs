//! The raw layers as plain data, and the one function that gathers them from the machine.

use std::ffi::OsString;
use std::path::Path;
use std::{env, fs, iter};

use super::Mistakes;

/// What begins the name of every variable that we read. A single underscore would not do: Kubernetes sets
/// `FANFARE_PORT` and its like in every pod beside a service called `fanfare`.
pub(super) const PREFIX: &str = "FANFARE__";

/// Everything a configuration is made of. Tests write it down; `main` takes [`Source::of_process`].
#[derive(Clone)]
pub struct Source {
    /// The file that was named, if one was.
    pub file: Option<File>,
    /// Names and values of environment variables. Those without our prefix are ignored.
    pub environment: Vec<(String, String)>,
    /// What flags of the command line say, over everything else.
    pub flags: Vec<Flag>,
    /// The node's name where none is configured.
    pub default_name: String,
}

/// A configuration file that was read.
#[derive(Clone)]
pub struct File {
    /// Its path as the operator wrote it, for messages.
    pub path: String,
    /// What it contains.
    pub text: String,
}

/// A flag that sets a key.
#[derive(Clone)]
pub struct Flag {
    /// As the operator spelt it, `--listen`, for messages.
    pub name: String,
    /// The key it sets, `listen.public`.
    pub path: String,
    /// The value, spelt as in an environment variable.
    pub value: String,
}

impl Default for Source {
    fn default() -> Self {
        Self { file: None, environment: Vec::new(), flags: Vec::new(), default_name: "node".into() }
    }
}

// Any of the layers may hold secrets, so what they say is not shown.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variables: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Source")
            .field("file", &self.file)
            .field("environment", &variables)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("File").field(&self.path).finish()
    }
}

impl std::fmt::Debug for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Flag").field(&self.name).field(&self.path).finish()
    }
}

impl Source {
    /// Reads `file`, this process's environment and the machine's host name.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not UTF-8; a variable of ours is not UTF-8.
    pub fn of_process(file: Option<&Path>, flags: Vec<Flag>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let file = file.and_then(|path| {
            let shown = path.display().to_string();
            match fs::read_to_string(path) {
                Ok(text) => Some(File { path: shown, text }),
                Err(error) => {
                    mistakes.add(format!("{shown}: the configuration file cannot be read: {error}"));
                    None
                }
            }
        });
        let environment = ours(env::vars_os(), &mut mistakes);
        mistakes.or(Self { file, environment, flags, default_name: default_name() })
    }
}

fn ours(
    variables: impl Iterator<Item = (OsString, OsString)>,
    mistakes: &mut Mistakes,
) -> Vec<(String, String)> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        match value.into_string() {
            Ok(value) => ours.push((name, value)),
            Err(_) => mistakes.add(format!("the value is not UTF-8 (variable {name})")),
        }
    }
    // The system's order is arbitrary; messages keep theirs.
    ours.sort();
    ours
}

/// The host's name, cut to what a node's name may be, and four letters that tell two nodes of one host apart.
fn default_name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .chars()
        .take_while(|it| *it != '.')
        .filter(|it| it.is_ascii_alphanumeric() || *it == '-')
        .collect();
    let host = if host.is_empty() { "node" } else { &host[..host.len().min(48)] };
    let suffix: String = iter::repeat_with(fastrand::lowercase).take(4).collect();
    format!("{host}-{suffix}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_named_file_that_is_missing_is_a_mistake() {
        let mistakes = Source::of_process(Some(Path::new("no/such/fanfare.toml")), Vec::new()).unwrap_err();
        assert!(
            mistakes.to_string().starts_with("no/such/fanfare.toml: the configuration file cannot be read:"),
            "{mistakes}"
        );
    }

    #[test]
    fn only_our_variables_are_kept_and_they_are_text() {
        let mut mistakes = Mistakes::default();
        let odd = OsString::from_vec(vec![0xff]);
        let variables = [
            ("FANFARE__B__C".into(), "2".into()),
            ("FANFARE_PORT".into(), odd.clone()),
            ("FANFARE__API__KEYS".into(), odd),
            ("FANFARE__A__B".into(), "1".into()),
        ];
        let kept = ours(variables.into_iter(), &mut mistakes);
        assert_eq!(kept, [("FANFARE__A__B".into(), "1".into()), ("FANFARE__B__C".into(), "2".into())]);
        assert_eq!(mistakes.to_string(), "the value is not UTF-8 (variable FANFARE__API__KEYS)");
    }

    #[test]
    fn the_default_name_is_a_valid_name() {
        let source = Source::of_process(None, Vec::new()).unwrap();
        let config = super::super::load(&Source { environment: Vec::new(), ..source }).unwrap();
        assert!(config.node.name.len() > 5, "{}", config.node.name);
    }
}
