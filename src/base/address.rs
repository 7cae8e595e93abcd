//! What an address says of where it leads, whichever way it is written.
//!
//! Not here: names, and which addresses are dialled.

use std::net::IpAddr;

/// Whether an address stays on this machine: 127.0.0.0/8 and ::1, also where IPv4 is written as IPv6, as a
/// socket for both kinds writes it.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn this_machine_is_known_however_its_address_is_written() {
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(here.parse().unwrap()), "{here}");
        }
        for elsewhere in ["0.0.0.0", "::", "128.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1"] {
            assert!(!is_loopback(elsewhere.parse().unwrap()), "{elsewhere}");
        }
    }
}
