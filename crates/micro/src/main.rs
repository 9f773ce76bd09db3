//! What the hot paths do, over and over, for callgrind to count their instructions.
//!
//! `fanfare-micro` lists the cases; `fanfare-micro CASE` prepares one, does it until everything that grows has grown, then
//! [`OPERATIONS`] times more inside [`fanfare_micro_counted`], by whose name callgrind is told when to count.
//! `scripts/micro` does that for every case and compares with `baseline.txt`.
//!
//! **Invariant.** A case does the same whenever and wherever it runs: no clock is read that decides anything, no thread is
//! started, nothing is random but the keys of hash tables, in which there is little to collide with.
#![allow(clippy::print_stdout, reason = "the list of cases is its output")]

use std::hint::black_box;
use std::process::ExitCode;

mod counting;
mod delivery;
mod envelopes;
mod outboxes;
mod sample;
mod sessions;
mod wire;

/// How often a counted case is done: its figure is a mean, so that what happens every so often weighs what it costs.
const OPERATIONS: usize = 100;

/// How often it is done before: more often than the longest history that a case keeps.
const WARMING: usize = 150;

/// Something that can be done any number of times.
type Operation = Box<dyn FnMut()>;

/// What is counted under one name.
struct Case {
    name: &'static str,
    prepare: fn() -> Operation,
}

fn main() -> ExitCode {
    let cases =
        [wire::CASES, sessions::CASES, delivery::CASES, outboxes::CASES, counting::CASES, envelopes::CASES];
    let mut cases = cases.into_iter().flatten();
    let Some(name) = std::env::args().nth(1) else {
        println!("operations {OPERATIONS}");
        cases.for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    };
    let Some(case) = cases.find(|case| case.name == name) else {
        println!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    let mut operation = (case.prepare)();
    (0..WARMING).for_each(|_| operation());
    fanfare_micro_counted(&mut operation);
    ExitCode::SUCCESS
}

/// The only function whose instructions, and those of all it calls, are counted.
#[inline(never)]
fn fanfare_micro_counted(operation: &mut Operation) {
    for _ in 0..OPERATIONS {
        black_box(&mut *operation)();
    }
}
