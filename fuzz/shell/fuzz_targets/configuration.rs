//! A file and variables, whatever is in them. What has to hold is in `fanfare_gateway::fuzzing`.

#![no_main]

use fanfare_gateway::fuzzing::configuration;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| configuration(bytes));
