//! What is wrong with a configuration, and where.

use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Line { file: String, line: usize },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}, line {line}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Every mistake that was found. `Display` writes one a line, in the order of the layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    lines: Vec<String>,
    /// Keys whose value was refused. Rules between keys leave them alone: one mistake is told once.
    paths: Vec<String>,
}

impl Mistakes {
    /// A mistake in the value of `path`, or in its name.
    pub(super) fn at(&mut self, path: &str, text: impl fmt::Display, place: &Place) {
        self.lines.push(format!("{text} ({place})"));
        self.paths.push(path.into());
    }

    /// A mistake that no key is to blame for.
    pub(super) fn add(&mut self, text: String) {
        self.lines.push(text);
    }

    /// The same, each under a condition.
    pub(super) fn under(mut self, condition: &str) -> Self {
        self.lines.iter_mut().for_each(|line| line.insert_str(0, &format!("{condition}: ")));
        self
    }

    /// Whether the value of `path` was refused in some layer.
    pub(super) fn touch(&self, path: &str) -> bool {
        self.paths.iter().any(|it| it == path)
    }

    /// `value`, unless there are mistakes.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.lines.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The mistakes, one sentence each.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}
