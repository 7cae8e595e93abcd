//! Units of numbers: `"1GiB"`, `"512MB"`, `"5s"`; a bare number is in bytes or milliseconds.

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A number without a unit.
    Count,
    Bytes,
    Millis,
    Micros,
}

const BYTES: [(&str, u64); 10] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

const MILLIS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

const MICROS: [(&str, u64); 3] = [("s", 1_000_000), ("ms", 1_000), ("us", 1)];

impl Unit {
    /// The unit in the name of a key.
    pub(super) fn of(name: &str) -> Self {
        if name.ends_with("_ms") {
            Self::Millis
        } else if name.ends_with("_us") {
            Self::Micros
        } else if name.contains("bytes") || ["memory_max", "buffers_max", "peer_filters_max"].contains(&name)
        {
            Self::Bytes
        } else {
            Self::Count
        }
    }

    const fn suffixes(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Count => &[],
            Self::Bytes => &BYTES,
            Self::Millis => &MILLIS,
            Self::Micros => &MICROS,
        }
    }

    /// Reads a number with or without a unit; digits may be grouped by `_`. `None` if it is no number, or too large.
    pub(super) fn read(self, text: &str) -> Option<i64> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (digits, suffix) = text.split_at(end);
        let number: i64 = digits.replace('_', "").parse().ok()?;
        let suffix = suffix.trim_start();
        if suffix.is_empty() {
            return Some(number);
        }
        let (_, factor) = self.suffixes().iter().find(|(name, _)| name.eq_ignore_ascii_case(suffix))?;
        number.checked_mul(i64::try_from(*factor).ok()?)
    }

    /// A number in the largest unit in which it is whole; bytes that are not whole KiB have no unit.
    pub(super) fn show(self, number: u64) -> String {
        let fits = |(name, factor): &&(&str, u64)| {
            number > 0 && number.is_multiple_of(*factor) && (self != Self::Bytes || name.ends_with("iB"))
        };
        match self.suffixes().iter().find(fits) {
            Some((name, factor)) => format!("{}{name}", number / factor),
            None => number.to_string(),
        }
    }

    /// The notation of the unit, as the end of a message.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => ", in bytes or with a unit: \"512MB\", \"1GiB\"",
            Self::Micros => ", in microseconds or with a unit: \"50us\", \"10ms\", \"1s\"",
            Self::Millis => ", in milliseconds or with a unit: \"50ms\", \"5s\", \"1min\"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Unit;

    #[test]
    fn sizes_and_times_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("268_435_456", 268_435_456),
            ("1GiB", 1 << 30),
            (" 512 MB ", 512_000_000),
            ("64kib", 65_536),
            ("0", 0),
            ("7B", 7),
        ] {
            assert_eq!(Unit::Bytes.read(text), Some(bytes), "{text}");
        }
        for (text, millis) in [("50ms", 50), ("5s", 5_000), ("1min", 60_000), ("2h", 7_200_000), ("250", 250)]
        {
            assert_eq!(Unit::Millis.read(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn other_units_fractions_and_numbers_too_large_are_refused() {
        for text in ["1G", "1.5GiB", "-1", "GiB", "", "5s", "99999999999PiB", "1e9", "1 GiB x"] {
            assert_eq!(Unit::Bytes.read(text), None, "{text}");
        }
        assert_eq!(Unit::Count.read("5s"), None);
        assert_eq!(Unit::Millis.read("5m"), None, "minutes or milliseconds");
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for (unit, number, shown) in [
            (Unit::Bytes, 1 << 30, "1GiB"),
            (Unit::Bytes, 1_536, "1536"),
            (Unit::Bytes, 0, "0"),
            (Unit::Millis, 10_000, "10s"),
            (Unit::Millis, 1_500, "1500ms"),
            (Unit::Millis, 86_400_000, "1d"),
            (Unit::Count, 10_000, "10000"),
        ] {
            assert_eq!(unit.show(number), shown);
            assert_eq!(unit.read(shown), i64::try_from(number).ok());
        }
    }
}
