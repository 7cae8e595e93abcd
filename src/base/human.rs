//! Numbers as people read them: separators, units, three digits.

use std::time::Duration;

/// A number without its fraction, with separators: `12,345`.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A number without its fraction, from 100,000 on in three digits: `106K`, `1.39M`.
pub fn count(number: f64) -> String {
    if number < 99_999.5 {
        return grouped(number);
    }
    let (mut rest, mut unit) = (number, "");
    for next in ["K", "M", "G", "T", "P", "E"] {
        if rest < 999.5 {
            break;
        }
        (rest, unit) = (rest / 1_000.0, next);
    }
    let digits = if rest < 9.995 { 2 } else { usize::from(rest < 99.95) };
    format!("{rest:.digits$}{unit}")
}

/// Bytes with a binary unit: `7.0 MiB`, `601 KiB`.
pub fn bytes(number: f64) -> String {
    let (mut rest, mut unit) = (number, "B");
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if rest < 1_024.0 {
            break;
        }
        (rest, unit) = (rest / 1_024.0, next);
    }
    let digits = usize::from(unit != "B" && rest < 100.0);
    format!("{rest:.digits$} {unit}")
}

/// Microseconds: `393 µs`, `4.19 ms`, `12 ms`, `1.2 s`.
pub fn micros(number: f64) -> String {
    let millis = number / 1e3;
    match number {
        ..999.5 => format!("{number:.0} µs"),
        ..9_995.0 => format!("{millis:.2} ms"),
        ..999_500.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1e3),
    }
}

/// A time in whole seconds, minutes, hours or days: `59 s`, `5 h 3 min`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A part of one in percent, with `digits` digits after the point: `99.5 %`.
pub fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, grouped, micros, percent, span};
    use std::time::Duration;

    #[test]
    fn numbers_are_short_and_change_their_unit_where_it_is_due() {
        assert_eq!([0.0, 999.4, 1e3, 1_234_567.0].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [99_999.0, 1e5, 999_499.0, 999_500.0, 1.39e6, 45.6e6, 18.4e18].map(count),
            ["99,999", "100K", "999K", "1.00M", "1.39M", "45.6M", "18.4E"]
        );
        assert_eq!(
            [0.0, 1_023.0, 1_024.0, 615e3, 7_340_032.0, 18.4e18].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "601 KiB", "7.0 MiB", "16.0 EiB"]
        );
        assert_eq!(
            [999.0, 1e3, 9_990.0, 1e4, 999_400.0, 1.2e6].map(micros),
            ["999 µs", "1.00 ms", "9.99 ms", "10 ms", "999 ms", "1.2 s"]
        );
        assert_eq!(
            [59, 60, 3_600, 18_200, 172_800].map(|seconds| span(Duration::from_secs(seconds))),
            ["59 s", "1 min", "1 h 0 min", "5 h 3 min", "2 days"]
        );
        assert_eq!((percent(0.995, 1), percent(1.0, 0)), ("99.5 %".to_owned(), "100 %".to_owned()));
    }
}
