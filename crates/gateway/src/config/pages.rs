//! What the table says to people: the default file and `docs/configuration.md`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::keys::{ANY, Default, Key, SECTIONS, Section};
use super::source::PREFIX;

const WIDTH: usize = 100;

const PAGE_HEAD: &str = "\
# Configuration

Four layers, the later over the earlier: the defaults; the file named by `--config`; environment variables; flags. With none
of them the gateway serves on loopback alone, with the memory broker, to anonymous clients, every channel open.

A variable is called after its key: `limits.connections` is `FANFARE__LIMITS__CONNECTIONS`, with double underscores. A list
is spelt with commas, or as in TOML. An empty variable counts as not set. The name of a namespace is in lower case there.

Unknown keys are refused, and all mistakes are told at once, each with its place. `fanfare check-config` does just that;
`fanfare default-config` prints the file with every key at its default.

On `SIGHUP` a node reads all layers again and takes the keys with a yes under *reload* without dropping anybody; it logs
which keys have changed, and which of them wait for a restart. A configuration with a mistake changes nothing.

This page is generated from `crates/gateway/src/config/keys.rs` and its parts: `FANFARE_WRITE_DOCS=1 cargo test -p fanfare-gateway config`
rewrites it, and a test fails while it is stale.
";

const FILE_HEAD: &str = "\
# Fanfare's configuration, every key at its default. A line in comments shows a key that is not set.
# Environment variables stand over this file: limits.connections is FANFARE__LIMITS__CONNECTIONS.
";

/// A configuration file that says what holds without one, with a comment on every key.
#[must_use]
pub fn default_toml() -> String {
    let mut text = String::from(FILE_HEAD);
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, section.help);
        // A table whose name the operator chooses would change the meaning of the file by being there.
        let named = section.keys[0].named_table().is_some();
        if named {
            let example = match section.name {
                "namespaces" => "room",
                "auth.issuers" => "partner",
                _ => "shop",
            };
            line(&mut text, format_args!("# [{}.{example}]", section.name));
        } else {
            line(&mut text, format_args!("[{}]", section.name));
        }
        for key in section.keys {
            comment(&mut text, key.help);
            let reload = if key.reload { " SIGHUP reloads it." } else { "" };
            comment(&mut text, &format!("Takes {}.{reload}", key.kind));
            match key.default {
                Default::Value(value) if named => {
                    line(&mut text, format_args!("# {} = {value}", key.below_heading()))
                }
                Default::Value(value) => line(&mut text, format_args!("{} = {value}", key.below_heading())),
                Default::Unset { meaning, example } => {
                    comment(&mut text, &format!("Not set: {meaning}."));
                    line(&mut text, format_args!("# {} = {example}", key.below_heading()));
                }
            }
        }
    }
    text
}

/// The same for programs: an object for each key.
#[must_use]
pub fn default_json() -> Value {
    let keys = SECTIONS.iter().flat_map(|section| section.keys);
    let keys = keys.map(|key| {
        let (default, example) = match key.default {
            Default::Value(value) => (value_of(value), Value::Null),
            Default::Unset { example, .. } => (Value::Null, value_of(example)),
        };
        json!({
            "key": key.path.replace(ANY, "<name>"), "default": default, "example": example,
            "takes": key.kind.to_string(), "reload": key.reload, "help": key.help,
        })
    });
    keys.collect()
}

/// A value of the table, where TOML and JSON spell it alike.
fn value_of(toml: &str) -> Value {
    serde_json::from_str(toml).unwrap_or_else(|_| toml.into())
}

/// The text of `docs/configuration.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(PAGE_HEAD);
    for section in SECTIONS {
        let named = if section.keys[0].named_table().is_some() { ".<name>" } else { "" };
        line(&mut text, format_args!("\n## `[{}{named}]`\n\n{}\n", section.name, section.help));
        table(&mut text, section);
    }
    text
}

fn table(text: &mut String, section: &Section) {
    text.push_str("| key | default | takes | reload | what it does |\n| --- | --- | --- | --- | --- |\n");
    for Key { path, kind, default, reload, help } in section.keys {
        let path = path.replace(ANY, "<name>");
        let default = match default {
            Default::Value(value) => format!("`{value}`"),
            Default::Unset { meaning, .. } => format!("not set: {meaning}"),
        };
        let reload = if *reload { "yes" } else { "no" };
        line(text, format_args!("| `{path}` | {default} | {kind} | {reload} | {help} |"));
    }
    let variables = section.keys.iter().map(|key| {
        format!("`{PREFIX}{}`", key.path.replace(ANY, "<NAME>").replace('.', "__").to_ascii_uppercase())
    });
    let variables: Vec<_> = variables.collect();
    line(text, format_args!("\nAs variables: {}.", variables.join(", ")));
}

/// `words` as comment lines of at most [`WIDTH`] characters.
fn comment(text: &mut String, words: &str) {
    let mut length = WIDTH;
    for (place, word) in words.split_whitespace().enumerate() {
        if length + 1 + word.chars().count() > WIDTH {
            text.push_str(if place == 0 { "#" } else { "\n#" });
            length = 1;
        }
        text.push(' ');
        text.push_str(word);
        length += 1 + word.chars().count();
    }
    text.push('\n');
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all that is written to it");
}
