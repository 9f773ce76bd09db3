//! What publications are marked with, beside what they say, so that a subscriber can hear some of a channel and not the rest.
//!
//! Tags are part of a [`Payload`](crate::publication::Payload), as its label is; a [`Filter`] is part of a subscription.

use std::cmp::Ordering;

/// The most tags of one publication.
pub const TAGS_MAX: usize = 32;

/// The most bytes of all its keys and values together.
pub const TAGS_BYTES_MAX: usize = 4096;

/// Keys, each with a value, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<(Box<str>, Box<str>)>);

impl Tags {
    /// None.
    pub const NONE: Self = Self(Vec::new());

    /// Takes tags; of two with one key the last counts. `None` when there are too many, or they are too long.
    pub fn parse<K: Into<Box<str>>, V: Into<Box<str>>>(
        tags: impl IntoIterator<Item = (K, V)>,
    ) -> Option<Self> {
        let mut all: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (key, value) in tags {
            let (key, value) = (key.into(), value.into());
            match all.binary_search_by(|(known, _)| known.cmp(&key)) {
                Ok(index) => all[index].1 = value,
                Err(index) => all.insert(index, (key, value)),
            }
            if all.len() > TAGS_MAX {
                return None;
            }
        }
        let bytes: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
        (bytes <= TAGS_BYTES_MAX).then_some(Self(all))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let index = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.0[index].1)
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which publications somebody wants to hear, by their tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Those that all of these let through.
    All(Box<[Self]>),
    /// Those that any of these lets through.
    Any(Box<[Self]>),
    /// Those that this one does not let through.
    Not(Box<Self>),
    /// Those whose tag of this key passes this test.
    Tag {
        /// Which.
        key: Box<str>,
        /// How it is looked at.
        test: Test,
    },
}

/// What is asked of a tag's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It is one of these. Where there is none it counts as an empty one.
    Among(Box<[Box<str>]>),
    /// It is there.
    Present,
    /// It is this.
    Equal(Box<str>),
    /// It begins with this.
    Begins(Box<str>),
    /// It ends with this.
    Ends(Box<str>),
    /// It has this in it.
    Contains(Box<str>),
    /// It is a number, which compared with this one is so, or so.
    Compares(Number, &'static [Ordering]),
}

impl Filter {
    /// Whether it lets a publication with these tags through.
    pub fn admits(&self, tags: &Tags) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.admits(tags)),
            Self::Any(filters) => filters.iter().any(|filter| filter.admits(tags)),
            Self::Not(filter) => !filter.admits(tags),
            Self::Tag { key, test } => test.passes(tags.get(key)),
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Among(values), value) => values.iter().any(|it| **it == *value.unwrap_or_default()),
            (_, None) => false,
            (Self::Present, Some(_)) => true,
            (Self::Equal(it), Some(value)) => **it == *value,
            (Self::Begins(it), Some(value)) => value.starts_with(&**it),
            (Self::Ends(it), Some(value)) => value.ends_with(&**it),
            (Self::Contains(it), Some(value)) => value.contains(&**it),
            (Self::Compares(number, orders), Some(value)) => {
                Decimal::parse(value).is_some_and(|value| orders.contains(&value.compare(number.decimal())))
            }
        }
    }
}

/// A number in decimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number(Box<str>);

impl Number {
    /// Takes digits with a sign and a point, where there are; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        Decimal::parse(text).map(|_| Self(text.into()))
    }

    fn decimal(&self) -> Decimal<'_> {
        Decimal::parse(&self.0).expect("it has been looked at")
    }
}

/// The digits of a number, of as many as there are: none is rounded.
#[derive(Clone, Copy)]
struct Decimal<'a> {
    is_negative: bool,
    /// Without zeros before them.
    whole: &'a str,
    /// Without zeros behind them.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (is_negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { is_negative: is_negative && !is_zero, whole, fraction })
    }

    fn compare(self, other: Self) -> Ordering {
        match (self.is_negative, other.is_negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (true, true) => other.size().cmp(&self.size()),
            (false, false) => self.size().cmp(&other.size()),
        }
    }

    /// What is compared in this order, whatever the sign.
    fn size(self) -> (usize, &'a str, &'a str) {
        (self.whole.len(), self.whole, self.fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(all: &[(&str, &str)]) -> Tags {
        Tags::parse(all.iter().copied()).unwrap()
    }

    #[test]
    fn tags_are_found_by_their_keys_and_bounded() {
        let three = tags(&[("b", "2"), ("a", "1"), ("c", "3"), ("b", "4")]);
        assert_eq!(three.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "4"), ("c", "3")]);
        assert_eq!((three.get("b"), three.get("d")), (Some("4"), None));
        let many = |count: usize| Tags::parse((0..count).map(|number| (number.to_string(), "")));
        assert_eq!((many(TAGS_MAX).is_some(), many(TAGS_MAX + 1)), (true, None));
        let long = |bytes: usize| Tags::parse([("k", "v".repeat(bytes - 1))]);
        assert_eq!((long(TAGS_BYTES_MAX).is_some(), long(TAGS_BYTES_MAX + 1)), (true, None));
    }

    #[test]
    fn numbers_are_compared_as_numbers_however_they_are_written() {
        let order = [
            "-100",
            "-99.5",
            "-1.45",
            "-1.4",
            "0",
            "0.05",
            "0.4",
            "0.45",
            "1",
            "9.9",
            "10",
            "10.01",
            "123456789012345678901234567890",
            "123456789012345678901234567890.1",
        ];
        for (one_place, one) in order.iter().enumerate() {
            for (other_place, other) in order.iter().enumerate() {
                let (one_number, other_number) =
                    (Decimal::parse(one).unwrap(), Decimal::parse(other).unwrap());
                assert_eq!(one_number.compare(other_number), one_place.cmp(&other_place), "{one} {other}");
            }
        }
        for (one, other) in [("1", "+1"), ("01.50", "1.5"), ("-0", "0.0"), ("10", "10.000")] {
            let (one_number, other_number) = (Decimal::parse(one).unwrap(), Decimal::parse(other).unwrap());
            assert_eq!(one_number.compare(other_number), Ordering::Equal, "{one} {other}");
        }
        for bad in ["", "-", ".", "1.", ".5", "1e3", " 1", "0x1", "1.2.3", "--1", "١"] {
            assert_eq!(Number::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_filter_lets_through_what_it_says() {
        let of = |key: &str, test| Filter::Tag { key: key.into(), test };
        let share = tags(&[("ticker", "AAPL"), ("price", "150.25"), ("kind", "")]);
        let number = |text| Number::parse(text).unwrap();
        for (filter, admits) in [
            (of("ticker", Test::Equal("AAPL".into())), true),
            (of("ticker", Test::Equal("aapl".into())), false),
            (of("venue", Test::Equal("".into())), false),
            (of("ticker", Test::Among(["MSFT".into(), "AAPL".into()].into())), true),
            (of("venue", Test::Among(["".into()].into())), true),
            (of("venue", Test::Among(["X".into()].into())), false),
            (of("kind", Test::Present), true),
            (of("venue", Test::Present), false),
            (of("ticker", Test::Begins("AA".into())), true),
            (of("ticker", Test::Ends("AA".into())), false),
            (of("ticker", Test::Ends("PL".into())), true),
            (of("ticker", Test::Contains("AP".into())), true),
            (of("price", Test::Compares(number("150"), &[Ordering::Greater])), true),
            (of("price", Test::Compares(number("150.250"), &[Ordering::Greater])), false),
            (of("price", Test::Compares(number("150.250"), &[Ordering::Greater, Ordering::Equal])), true),
            (of("price", Test::Compares(number("150.3"), &[Ordering::Less])), true),
            (
                of(
                    "ticker",
                    Test::Compares(number("1"), &[Ordering::Less, Ordering::Equal, Ordering::Greater]),
                ),
                false,
            ),
            (
                of(
                    "venue",
                    Test::Compares(number("1"), &[Ordering::Less, Ordering::Equal, Ordering::Greater]),
                ),
                false,
            ),
        ] {
            assert_eq!(filter.admits(&share), admits, "{filter:?}");
            let not = || Filter::Not(Box::new(filter.clone()));
            assert_eq!(not().admits(&share), !admits, "{filter:?}");
            assert!(Filter::Any([filter.clone(), not()].into()).admits(&share));
            assert!(!Filter::All([filter.clone(), not()].into()).admits(&share));
        }
    }
}
