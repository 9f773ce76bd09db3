//! What is published: who, where, the how-manieth, some ballast, and a sum over all of it.

use serde::{Deserialize, Serialize};

/// The most characters of ballast.
const BALLAST_MAX: u64 = 200;

/// The data of one publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Its publisher.
    #[serde(rename = "p")]
    pub(crate) publisher: u32,
    /// Its number, of this publisher in this channel: 1, 2, 3, ….
    #[serde(rename = "n")]
    pub(crate) number: u64,
    #[serde(rename = "x")]
    ballast: String,
    #[serde(rename = "c")]
    sum: u64,
}

impl Stamp {
    /// The publication that this publisher makes as its `number`th in the channel: always the same.
    pub(crate) fn new(channel: &str, publisher: u32, number: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(sum_of(channel, publisher, number, ""));
        let ballast: String =
            (0..random.u64(..BALLAST_MAX)).map(|_| random.char('\u{20}'..'\u{2ff}')).collect();
        let sum = sum_of(channel, publisher, number, &ballast);
        Self { publisher, number, ballast, sum }
    }

    /// Whether it is what its publisher has published in that channel, to the letter.
    pub(crate) fn is_sound(&self, channel: &str) -> bool {
        self.sum == sum_of(channel, self.publisher, self.number, &self.ballast)
    }

    /// What makes it the same publication when it is sent again.
    pub(crate) fn key(&self) -> String {
        format!("{}-{}", self.publisher, self.number)
    }
}

/// FNV-1a; a sum that fits a JSON number of every reader.
fn sum_of(channel: &str, publisher: u32, number: u64, ballast: &str) -> u64 {
    let text = format!("{channel}\n{publisher}\n{number}\n{ballast}");
    let sum = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    sum >> 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_sound_in_its_own_channel_and_whole() {
        let stamp = Stamp::new("kept:1", 3, 7);
        let text = serde_json::to_string(&stamp).unwrap();
        let read: Stamp = serde_json::from_str(&text).unwrap();
        assert!(read.is_sound("kept:1"));
        assert!(!read.is_sound("kept:2"), "a stray");
        assert!(!Stamp { number: 8, ..read.clone() }.is_sound("kept:1"), "another number");
        assert!(!Stamp { ballast: format!("{}x", read.ballast), ..read }.is_sound("kept:1"), "changed");
    }
}
