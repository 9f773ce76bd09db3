//! The steps that Redis performs by itself, and what it says to them.

use redis::{Pipeline, Script, Value};

use crate::presence::debts::Word;

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    /// To be loaded.
    codes: [String; 8],
    pub(super) write: Script,
    pub(super) clear: Script,
    pub(super) crowd: Script,
    pub(super) beat: Script,
    pub(super) enlist: Script,
    pub(super) cold: Script,
    pub(super) settle: Script,
    pub(super) inherit: Script,
}

impl Scripts {
    /// `publish` is the command that tells notices.
    pub(super) fn new(publish: &str) -> Self {
        let publish = format!("local PUBLISH = '{publish}'\n");
        let roll = include_str!("roll.lua");
        let codes = [
            [&publish, roll, include_str!("write.lua")].concat(),
            [&publish, roll, include_str!("clear.lua")].concat(),
            [&publish, roll, include_str!("crowd.lua")].concat(),
            include_str!("beat.lua").to_owned(),
            include_str!("enlist.lua").to_owned(),
            include_str!("cold.lua").to_owned(),
            [&publish, roll, include_str!("settle.lua")].concat(),
            include_str!("inherit.lua").to_owned(),
        ];
        let [write, clear, crowd, beat, enlist, cold, settle, inherit] =
            codes.each_ref().map(|code| Script::new(code));
        Self { codes, write, clear, crowd, beat, enlist, cold, settle, inherit }
    }

    pub(super) fn teach(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.codes.len());
        for code in &self.codes {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(code);
        }
        pipeline
    }
}

/// What `write.lua` has answered: a letter for each change, and what is owed from now on; `None` when Redis refused it.
pub(super) fn letters(answer: Value) -> Option<(Vec<u8>, Vec<Word>)> {
    let Value::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    match parts.next()? {
        Value::BulkString(letters) => Some((letters, words(parts))),
        _ => None,
    }
}

/// What `clear.lua` has answered: that it has cleared something, and what is owed from now on.
pub(super) fn cleared(answer: Value) -> Option<Vec<Word>> {
    let Value::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    matches!(parts.next(), Some(Value::Int(_))).then(|| words(parts))
}

fn words(parts: impl Iterator<Item = Value>) -> Vec<Word> {
    parts.filter_map(|part| Word::read(&redis::from_redis_value::<String>(part).ok()?)).collect()
}
