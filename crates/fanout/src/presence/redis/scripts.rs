//! The steps that Redis performs by itself, and what it says to them.

use redis::{Pipeline, Script, Value};

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    /// To be loaded.
    codes: [String; 6],
    pub(super) write: Script,
    pub(super) clear: Script,
    pub(super) crowd: Script,
    pub(super) beat: Script,
    pub(super) enlist: Script,
    pub(super) cold: Script,
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
        ];
        let [write, clear, crowd, beat, enlist, cold] = codes.each_ref().map(|code| Script::new(code));
        Self { codes, write, clear, crowd, beat, enlist, cold }
    }

    pub(super) fn teach(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.codes.len());
        for code in &self.codes {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(code);
        }
        pipeline
    }
}

/// What `write.lua` has answered; `None` when Redis refused it.
pub(super) fn letters(answer: Value) -> Option<Vec<u8>> {
    match answer {
        Value::BulkString(letters) => Some(letters),
        _ => None,
    }
}
