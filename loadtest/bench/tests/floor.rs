//! The floor delivers everything, gathered or not: else nothing could be held against it.

#![allow(clippy::unwrap_used, reason = "a floor that does not start is a failed test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

struct Floor {
    child: Child,
    url: String,
}

impl Floor {
    fn start(gather: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare-floor"))
            .args(["--listen", "127.0.0.1:0", "--gather", gather])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, url: format!("ws://{}/", line.trim()) }
    }

    fn passes(&self, scenario: &str) {
        let mut words = scenario.split_whitespace();
        let output = Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest"))
            .arg(words.next().unwrap())
            .args(["--url", &self.url, "--protocol", "floor"])
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn the_floor_delivers_all_in_order() {
    for gather in ["1", "8"] {
        let floor = Floor::start(gather);
        floor.passes("fanout --subscribers 50 --in-flight 32 --seconds 0.3 --warm-up 0.1");
        floor.passes("fanout --subscribers 50 --in-flight 3 --payload 70000 --seconds 0.3 --warm-up 0.1");
        floor.passes("rooms --rooms 10 --size 5 --in-flight 64 --burst 8 --seconds 0.3 --warm-up 0.1");
        floor.passes("idle --connections 50");
    }
}
