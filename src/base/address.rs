//! Classification of IP addresses.
//!
//! Not here: names, and which addresses are dialled.

use std::net::IpAddr;

/// Whether an address is a loopback address: 127.0.0.0/8 or ::1, also an IPv4 address mapped to IPv6.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_is_recognised_in_ipv4_ipv6_and_mapped_form() {
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(here.parse().unwrap()), "{here}");
        }
        for elsewhere in ["0.0.0.0", "::", "128.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1"] {
            assert!(!is_loopback(elsewhere.parse().unwrap()), "{elsewhere}");
        }
    }
}
