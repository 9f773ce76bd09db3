//! UTF-8 that arrives in pieces, cut anywhere, and is judged as soon as it can be.

/// The start of a character whose rest has not arrived: at most three bytes, always a prefix of something valid.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: [u8; 3],
    len: u8,
}

/// The bytes cannot be the start of valid UTF-8, whatever follows. What was valid has been appended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Tail {
    /// The length in bytes, 0 between characters.
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Appends to `text` every character that is complete now, and keeps the start of the last if it is cut.
    pub(super) fn push(&mut self, text: &mut String, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.len > 0 {
            let [first, rest @ ..] = piece else { return Ok(()) };
            piece = rest;
            self.complete(text, *first)?;
        }
        match str::from_utf8(piece) {
            Ok(valid) => text.push_str(valid),
            Err(error) => {
                let (valid, rest) = piece.split_at(error.valid_up_to());
                text.push_str(str::from_utf8(valid).expect("valid up to here, as the error said"));
                // Without a length the error means: cut short, but right so far.
                if error.error_len().is_some() {
                    return Err(NotUtf8);
                }
                self.bytes[..rest.len()].copy_from_slice(rest);
                self.len = u8::try_from(rest.len()).expect("a cut character has at most three bytes");
            }
        }
        Ok(())
    }

    /// Adds one byte to the character that was cut.
    fn complete(&mut self, text: &mut String, byte: u8) -> Result<(), NotUtf8> {
        let len = self.len();
        let mut character = [0; 4];
        character[..len].copy_from_slice(&self.bytes[..len]);
        character[len] = byte;
        match str::from_utf8(&character[..=len]) {
            Ok(valid) => {
                text.push_str(valid);
                self.len = 0;
            }
            Err(error) if error.error_len().is_none() => {
                self.bytes[len] = byte;
                self.len += 1;
            }
            Err(_) => return Err(NotUtf8),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether some continuation makes `bytes` valid.
    fn is_prefix_of_valid(bytes: &[u8]) -> bool {
        match str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none(),
        }
    }

    /// Pushes `bytes` cut at each of `cuts`; the whole text if it is valid.
    fn push_all(bytes: &[u8], cuts: &[usize]) -> Option<String> {
        let (mut tail, mut text, mut start) = (Tail::default(), String::new(), 0);
        for end in cuts.iter().copied().chain([bytes.len()]) {
            let verdict = tail.push(&mut text, &bytes[start..end]);
            assert_eq!(verdict.is_ok(), is_prefix_of_valid(&bytes[..end]), "{bytes:x?} up to {end}");
            verdict.ok()?;
            assert_eq!(text.len() + tail.len(), end, "nothing is lost or held back");
            start = end;
        }
        (tail.len() == 0).then_some(text)
    }

    /// Bytes close to the edges of UTF-8, where random ones would rarely fall.
    fn near_utf8() -> impl Strategy<Value = Vec<u8>> {
        let edge: Vec<&[u8]> = vec![
            b"a",
            "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
            "κόσμε".as_bytes(),
            b"\xc0",
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xf0\x8f",
            b"\xf4\x90\x80\x80",
            b"\xf5",
            b"\x80",
            b"\xe2\x82",
            b"\xf0\x9f\x98",
        ];
        let any = prop::collection::vec(any::<u8>(), 0..4);
        let piece = prop_oneof![4 => prop::sample::select(edge).prop_map(<[u8]>::to_vec), 2 => "\\PC{0,9}".prop_map(String::into_bytes), 1 => any];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_verdict_of_std(bytes in near_utf8(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();

            prop_assert_eq!(push_all(&bytes, &cuts), String::from_utf8(bytes).ok());
        }

        #[test]
        fn byte_by_byte_gives_the_verdict_of_std(bytes in near_utf8()) {
            let cuts: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(push_all(&bytes, &cuts), String::from_utf8(bytes).ok());
        }
    }
}
