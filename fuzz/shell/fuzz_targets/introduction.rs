//! Sockets from trusted proxies may begin with anything. What has to hold is in `fanfare_gateway::fuzzing`.

#![no_main]

use fanfare_gateway::fuzzing::introduction;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| introduction(bytes));
