//! Anybody writes `X-Forwarded-For` and `Forwarded`. What has to hold is in `fanfare_gateway::fuzzing`.

#![no_main]

use fanfare_gateway::fuzzing::forwarded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| forwarded(bytes));
