//! What a Close frame carries: nothing, or a code and a reason.

use super::Violation;

/// Reads the payload of a Close frame.
pub(super) fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::CloseCode(code));
            }
            let reason = str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

/// Whether a Close may carry `code`.
///
/// 1004 is reserved; 1005, 1006 and 1015 stand for what was seen and are never sent (RFC 6455, 7.4.1). 1012 to 1014
/// came later, through the IANA registry, and are spelt here rather than asked of tungstenite, which lacks 1014.
/// Whatever else is below 3000 awaits a definition; 3000 to 4999 belong to libraries and applications.
pub(super) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::protocol::frame::coding::CloseCode;

    #[test]
    fn payloads_by_the_table() {
        type Verdict = Result<Option<(u16, &'static str)>, Violation>;
        let table: [(&[u8], Verdict); 8] = [
            (b"", Ok(None)),
            (b"\x03", Err(Violation::CloseTooShort)),
            (b"\x03\xe8", Ok(Some((1000, "")))),
            (b"\x03\xe9going", Ok(Some((1001, "going")))),
            (b"\x03\xed", Err(Violation::CloseCode(1005))),
            (b"\x0f\xa0\xc3\xa4", Ok(Some((4000, "ä")))),
            (b"\x0f\xa0\xc3", Err(Violation::CloseReasonNotUtf8)),
            (b"\x00\x00", Err(Violation::CloseCode(0))),
        ];
        for (payload, expected) in table {
            assert_eq!(parse(payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn codes_are_those_of_tungstenite_and_1014() {
        for code in 0..=u16::MAX {
            let allowed = CloseCode::from(code).is_allowed() && !(1016..3000).contains(&code);
            assert_eq!(may_be_sent(code), allowed || code == 1014, "{code}");
        }
    }
}
