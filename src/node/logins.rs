//! Wrong passwords per address range: rate limiting of guesses over all connections.

use crate::base::time::Instant;
use crate::limits::{LOGIN_RANGE_DEBT_MS, LOGIN_RANGE_MS, LOGIN_RANGES_MAX};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A range of addresses that probably has one owner: 256 of IPv4, a /64 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Range {
    V4([u8; 3]),
    V6([u8; 8]),
    /// All ranges beyond the size of the table.
    Others,
}

impl Range {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The ranges of recent wrong passwords, with the times at which their counts expire.
#[derive(Debug, Default)]
pub(in crate::node) struct Logins {
    ranges: BTreeMap<Range, Instant>,
}

impl Logins {
    /// Counts a wrong password from an address. O(log ranges); O(ranges) when the table is full.
    pub(in crate::node) fn failed(&mut self, now: Instant, address: IpAddr) {
        let mut range = Range::of(address);
        if self.ranges.len() >= LOGIN_RANGES_MAX && !self.ranges.contains_key(&range) {
            self.ranges.retain(|_, until| *until > now);
            if self.ranges.len() >= LOGIN_RANGES_MAX {
                range = Range::Others;
            }
        }
        let until = self.ranges.entry(range).or_insert(now);
        *until = (*until).max(now).after(Duration::from_millis(LOGIN_RANGE_MS));
    }

    /// How long passwords from an address are refused without a check; `None`: they are checked.
    pub(in crate::node) fn locked_for(&self, now: Instant, address: IpAddr) -> Option<Duration> {
        let range = Range::of(address);
        let is_others = self.ranges.len() > LOGIN_RANGES_MAX && !self.ranges.contains_key(&range);
        let until = self.ranges.get(if is_others { &Range::Others } else { &range })?;
        let debt = Duration::from_millis(LOGIN_RANGE_DEBT_MS);
        Some(until.since(now).saturating_sub(debt)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::Logins;
    use crate::base::time::Instant;
    use crate::limits::LOGIN_RANGES_MAX;
    use std::net::IpAddr;

    #[test]
    fn range_is_locked_after_a_hundred_wrong_passwords_and_only_it() {
        let mut logins = Logins::default();
        let at = Instant::from_millis;
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        for last in 0..100 {
            assert_eq!(logins.locked_for(at(0), addr("192.0.2.1")), None, "{last}");
            logins.failed(at(0), addr(&format!("192.0.2.{last}")));
        }
        logins.failed(at(0), addr("::ffff:192.0.2.7"));
        assert_eq!(logins.locked_for(at(0), addr("192.0.2.200")).unwrap().as_millis(), 100);
        assert_eq!(logins.locked_for(at(100), addr("192.0.2.200")), None);
        assert_eq!(logins.locked_for(at(0), addr("192.0.3.200")), None);
    }

    #[test]
    fn table_of_ranges_is_bounded_however_many_addresses_guess() {
        let mut logins = Logins::default();
        for number in 0..2 * u32::try_from(LOGIN_RANGES_MAX).unwrap() {
            logins.failed(Instant::ZERO, IpAddr::from((number << 8).to_be_bytes()));
        }
        assert_eq!(logins.ranges.len(), LOGIN_RANGES_MAX + 1);
        let later = Instant::from_millis(100_000_000);
        logins.failed(later, IpAddr::from([255, 0, 0, 1]));
        assert_eq!(logins.ranges.len(), 1);
    }
}
