//! When a certificate is good: the two dates of RFC 5280, section 4.1.2.5, dug out of its DER.
//!
//! A parser of X.509 would bring a dozen crates for these two dates, which stand in a fixed place.

/// The seconds since the Unix epoch from which, and until which, a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: i64,
    /// The last one.
    pub until: i64,
}

/// What the time says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Clients that check will not accept it yet.
    NotYetValid,
    /// It is good.
    Valid,
    /// Clients that check will not accept it any more.
    Expired,
}

impl Validity {
    /// That of a certificate in DER; None if it is not one.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate);
        let mut body = Der(Der(outer.take(SEQUENCE)?).take(SEQUENCE)?);
        // The version stands there unless it is the first; serial number, algorithm and issuer always do.
        let _ = body.take(VERSION);
        body.take(INTEGER)?;
        body.take(SEQUENCE)?;
        body.take(SEQUENCE)?;
        let mut dates = Der(body.take(SEQUENCE)?);
        Some(Self { from: dates.date()?, until: dates.date()? })
    }

    /// How it stands at `now`, in seconds since the Unix epoch.
    #[must_use]
    pub fn at(self, now: i64) -> Standing {
        match now {
            _ if now < self.from => Standing::NotYetValid,
            _ if now > self.until => Standing::Expired,
            _ => Standing::Valid,
        }
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Elements of DER, one after another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The contents of the next element, if it has this tag; else it stays the next.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&first, rest) = self.0.split_first()?;
        if first != tag {
            return None;
        }
        let (&length, rest) = rest.split_first()?;
        // From 128 on, the low bits count the bytes of the length that follow.
        let digits = if length < 0x80 { 0 } else { usize::from(length & 0x7f) };
        let (long, rest) = rest.split_at_checked(digits)?;
        let length = match digits {
            0 => usize::from(length),
            1..=4 => long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(contents)
    }

    /// `YYMMDDHHMMSSZ`, where the years are those from 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
    fn date(&mut self) -> Option<i64> {
        let (year, rest) = match self.take(UTC_TIME) {
            Some(text) => {
                let (year, rest) = text.split_at_checked(2)?;
                let year = number(year)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            None => {
                let (year, rest) = self.take(GENERALIZED_TIME)?.split_at_checked(4)?;
                (number(year)?, rest)
            }
        };
        let digits = rest.strip_suffix(b"Z").filter(|digits| digits.len() == 10)?;
        let mut parts = [0; 5];
        for (part, pair) in parts.iter_mut().zip(digits.chunks(2)) {
            *part = number(pair)?;
        }
        let [month, day, hour, minute, second] = parts;
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// The days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that a leap day ends one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<i64> {
        let bytes = [&[UTC_TIME, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        Der(&bytes).date()
    }

    fn generalized(text: &str) -> Option<i64> {
        let bytes = [&[GENERALIZED_TIME, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        Der(&bytes).date()
    }

    /// The expected numbers are those of `date -u -d … +%s`.
    #[test]
    fn dates_are_seconds_since_the_epoch() {
        for (text, seconds) in [
            ("700101000000Z", 0),
            ("691231235959Z", -1),
            ("500101000000Z", -631_152_000),
            ("000229120000Z", 951_825_600),
            ("240301000000Z", 1_709_251_200),
            ("491231235959Z", 2_524_607_999),
        ] {
            assert_eq!(utc(text), Some(seconds), "{text}");
        }
        for (text, seconds) in [
            ("20500101000000Z", 2_524_608_000),
            ("21000301000000Z", 4_107_542_400),
            ("99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(generalized(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in
            ["", "7", "700101000000", "7001010000Z", "701301000000Z", "700100000000Z", "7x0101000000Z"]
        {
            assert_eq!(utc(text), None, "{text}");
        }
        assert_eq!(generalized("700101000000Z"), None);
    }

    #[test]
    fn a_certificate_stands_by_its_two_dates() {
        let validity = Validity { from: 10, until: 20 };
        for (now, standing) in [
            (9, Standing::NotYetValid),
            (10, Standing::Valid),
            (20, Standing::Valid),
            (21, Standing::Expired),
        ] {
            assert_eq!(validity.at(now), standing, "{now}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_dates() {
        for bytes in [&b""[..], b"0", b"\x30\x05ab", b"\x30\x89", b"\x30\x84\xff\xff\xff\xff", b"\x30\x00"] {
            assert_eq!(Validity::of(bytes), None, "{bytes:?}");
        }
    }
}
