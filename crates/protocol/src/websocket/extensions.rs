//! What client and server agree on beyond RFC 6455: `Sec-WebSocket-Extensions`, in which permessage-deflate is the one that
//! is known here (RFC 6455, 9.1; RFC 7692, 5 and 7.1).
//!
//! A client lists offers in its order of preference; the first that can be served is accepted. An offer with a parameter
//! that is unknown, there twice, or out of range is declined, and the next one looked at. A header that is not in the
//! grammar of the RFC at all fails the handshake.

use super::deflate::{Shape, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// What this server is willing to agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Willingness {
    /// How the server compresses, at most: a client may ask for a smaller window.
    pub shape: Shape,
    /// Whether a message may refer to those before it.
    pub context: Context,
}

/// What becomes of what one side remembers when a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// It is forgotten: every message is compressed by itself.
    Fresh,
    /// The next message may refer to it.
    TakenOver,
}

/// What was agreed with one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agreement {
    /// How messages to the client are compressed.
    pub shape: Shape,
    /// Whether they refer to each other.
    pub server: Context,
    /// Whether the client's messages refer to each other.
    pub client: Context,
    /// How far back the client's messages refer, where that has been bounded, as an exponent of 2.
    client_window_bits: Option<u8>,
    /// Whether the client is told the window of the server: it asked, or it is not the greatest.
    tells_window: bool,
}

/// The header breaks the grammar of RFC 6455.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of extensions, as RFC 6455 section 9.1 has it")]
pub struct Malformed;

impl Agreement {
    /// What publications are compressed to for this client and all like it; nothing where its messages refer to each other,
    /// and so are nobody else's.
    #[must_use]
    pub fn shared_shape(&self) -> Option<Shape> {
        (self.server == Context::Fresh).then_some(self.shape)
    }

    /// How far back the client's messages refer, as an exponent of 2.
    #[must_use]
    pub fn client_window_bits(&self) -> u8 {
        self.client_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// The value of `Sec-WebSocket-Extensions` in the answer.
    #[must_use]
    pub fn answer(&self) -> String {
        let mut answer = String::from("permessage-deflate");
        if self.server == Context::Fresh {
            answer += "; server_no_context_takeover";
        }
        if self.client == Context::Fresh {
            answer += "; client_no_context_takeover";
        }
        if self.tells_window {
            answer += &format!("; server_max_window_bits={}", self.shape.window_bits);
        }
        if let Some(bits) = self.client_window_bits {
            answer += &format!("; client_max_window_bits={bits}");
        }
        answer
    }
}

/// Agrees to the first offer that can be served, of all lines of the header; to none where none can, or where the server is
/// willing to nothing.
///
/// ```
/// use fanfare_protocol::websocket::{Context, Shape, Willingness, agree};
///
/// let shape = Shape { window_bits: 15, level: 1, threshold_bytes: 256 };
/// let willing = Willingness { shape, context: Context::Fresh };
/// let agreed = agree(["permessage-deflate; client_max_window_bits"], Some(&willing)).expect("it is in the grammar");
/// let answer = agreed.map(|it| it.answer());
/// assert_eq!(answer.as_deref(), Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"));
/// ```
///
/// # Errors
///
/// A line is not in the grammar, whatever the other lines offer.
pub fn agree<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    willing: Option<&Willingness>,
) -> Result<Option<Agreement>, Malformed> {
    let mut agreed = None;
    for line in lines {
        for extension in outside_quotes(line, b',').filter(|it| !it.trim().is_empty()) {
            let (name, parameters) = parse(extension)?;
            if agreed.is_none() && name.eq_ignore_ascii_case("permessage-deflate") {
                agreed = willing.and_then(|willing| accept(&parameters, willing));
            }
        }
    }
    Ok(agreed)
}

/// One parameter of an extension, unquoted.
type Parameter<'a> = (&'a str, Option<&'a str>);

/// Agrees to one offer, or declines it.
fn accept(parameters: &[Parameter<'_>], willing: &Willingness) -> Option<Agreement> {
    let mut agreement = Agreement {
        shape: willing.shape,
        server: willing.context,
        client: willing.context,
        client_window_bits: None,
        tells_window: willing.shape.window_bits < WINDOW_BITS_MAX,
    };
    for (at, (name, value)) in parameters.iter().enumerate() {
        if parameters[..at].iter().any(|(earlier, _)| earlier == name) {
            return None;
        }
        match (*name, *value) {
            ("server_no_context_takeover", None) => agreement.server = Context::Fresh,
            ("client_no_context_takeover", None) => agreement.client = Context::Fresh,
            ("server_max_window_bits", Some(bits)) => {
                let bits = window_bits(bits).filter(|bits| *bits >= WINDOW_BITS_MIN)?;
                agreement.shape.window_bits = bits.min(willing.shape.window_bits);
                agreement.tells_window = true;
            }
            ("client_max_window_bits", bits) => {
                let bits = bits.map_or(Some(WINDOW_BITS_MAX), window_bits)?;
                agreement.client_window_bits = Some(bits.min(willing.shape.window_bits));
            }
            _ => return None,
        }
    }
    // Only what must be remembered is worth bounding.
    if agreement.client == Context::Fresh || agreement.client_window_bits() == WINDOW_BITS_MAX {
        agreement.client_window_bits = None;
    }
    Some(agreement)
}

/// A number from 8 to 15, without leading zeros (RFC 7692, 7.1.2).
fn window_bits(text: &str) -> Option<u8> {
    let bits = (8..=WINDOW_BITS_MAX).find(|bits| bits.to_string() == text)?;
    Some(bits)
}

/// Takes one extension apart: its name, and its parameters with their values.
fn parse(extension: &str) -> Result<(&str, Vec<Parameter<'_>>), Malformed> {
    let mut parts = outside_quotes(extension, b';');
    let name = token(parts.next().unwrap_or_default())?;
    let parameters = parts.map(|part| match part.split_once('=') {
        None => Ok((token(part)?, None)),
        Some((name, value)) => {
            let value = value.trim_matches(BLANKS);
            let quoted = value.strip_prefix('"').map(|rest| rest.strip_suffix('"').ok_or(Malformed));
            let value = quoted.transpose()?.unwrap_or(value);
            // A quoted value must be a token, too, once the quotes are gone.
            Ok((token(name)?, Some(token(value)?)))
        }
    });
    Ok((name, parameters.collect::<Result<_, _>>()?))
}

/// What may stand around tokens and separators (RFC 9110, 5.6.3).
const BLANKS: [char; 2] = [' ', '\t'];

/// A token (RFC 9110, 5.6.2), with what blanks are around it.
fn token(text: &str) -> Result<&str, Malformed> {
    let text = text.trim_matches(BLANKS);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_token) { Ok(text) } else { Err(Malformed) }
}

/// The parts between separators that are not inside quotes.
fn outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character: char| {
        quoted ^= character == '"';
        !quoted && character == char::from(separator)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn willing(window_bits: u8, context: Context) -> Willingness {
        Willingness { shape: Shape { window_bits, level: 1, threshold_bytes: 0 }, context }
    }

    fn answer(willing: &Willingness, lines: &[&str]) -> Result<Option<String>, Malformed> {
        agree(lines.iter().copied(), Some(willing)).map(|agreed| agreed.map(|it| it.answer()))
    }

    #[test]
    fn offers_are_answered_by_the_table() {
        let (fresh, taken_over) = (willing(15, Context::Fresh), willing(15, Context::TakenOver));
        let small = willing(11, Context::TakenOver);
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (willing, offer, expected) in [
            (fresh, "permessage-deflate", both),
            (fresh, "Permessage-Deflate; client_max_window_bits", both),
            (fresh, "permessage-deflate; client_max_window_bits=8", both),
            (
                fresh,
                "permessage-deflate; server_max_window_bits=9",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9",
            ),
            (taken_over, "permessage-deflate", "permessage-deflate"),
            (
                taken_over,
                "permessage-deflate; server_no_context_takeover",
                "permessage-deflate; server_no_context_takeover",
            ),
            (
                taken_over,
                "permessage-deflate;client_no_context_takeover ; client_max_window_bits",
                "permessage-deflate; client_no_context_takeover",
            ),
            (
                taken_over,
                "permessage-deflate; server_max_window_bits=15; client_max_window_bits=10",
                "permessage-deflate; server_max_window_bits=15; client_max_window_bits=10",
            ),
            (
                taken_over,
                "permessage-deflate; server_max_window_bits=\"12\"",
                "permessage-deflate; server_max_window_bits=12",
            ),
            // A bound of our own is told to whoever can hear it.
            (small, "permessage-deflate", "permessage-deflate; server_max_window_bits=11"),
            (
                small,
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; server_max_window_bits=11; client_max_window_bits=11",
            ),
            (
                small,
                "permessage-deflate; client_max_window_bits=9; server_max_window_bits=14",
                "permessage-deflate; server_max_window_bits=11; client_max_window_bits=9",
            ),
        ] {
            assert_eq!(answer(&willing, &[offer]), Ok(Some(expected.to_owned())), "{offer}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_declined() {
        let willing = willing(15, Context::Fresh);
        for declined in [
            "",
            " , ,",
            "x-webkit-deflate-frame",
            "permessage-deflate; colour=red",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=ten",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=1000",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
        ] {
            assert_eq!(answer(&willing, &[declined]), Ok(None), "{declined}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_served_is_accepted() {
        let willing = willing(15, Context::TakenOver);
        let lines = [
            "x-other; a=b; c=\"d\", permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ];
        let expected = "permessage-deflate; server_max_window_bits=10".to_owned();
        assert_eq!(answer(&willing, &lines), Ok(Some(expected)));
        // A quoted value is a token between quotes, and a comma is none; but it separates nothing either.
        assert_eq!(answer(&willing, &["x-other; a=\"b,permessage-deflate\""]), Err(Malformed));
    }

    #[test]
    fn what_is_not_in_the_grammar_fails() {
        let willing = willing(15, Context::Fresh);
        for malformed in [
            "permessage-deflate;",
            ";",
            "permessage deflate",
            "permessage-deflate; =1",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate, b@d",
            "é",
        ] {
            assert_eq!(answer(&willing, &[malformed]), Err(Malformed), "{malformed}");
        }
    }
}
