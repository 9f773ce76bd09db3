//! A client may present anything for a token. What has to hold is in `fanfare_gateway::fuzzing`.

#![no_main]

use fanfare_gateway::fuzzing::token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| token(bytes));
