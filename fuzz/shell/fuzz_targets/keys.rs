//! A key server may answer what it likes. What has to hold is in `fanfare_gateway::fuzzing`.

#![no_main]

use fanfare_gateway::fuzzing::key_set;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| key_set(bytes));
