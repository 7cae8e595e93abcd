//! The syntax of a `host:port`, and whether it can lead to another machine.
//!
//! Nothing is resolved here: a name other than `localhost` counts as beyond this machine.

use crate::base::address::is_loopback;
use std::net::SocketAddr;

/// Bytes of a host name, by RFC 1035.
const HOST_BYTES_MAX: usize = 253;

/// Bytes of one label of a host name, by RFC 1035.
const LABEL_BYTES_MAX: usize = 63;

/// Checks `entry` as a `host:port`; the error is the end of a message that begins with it.
pub(super) fn check(entry: &str) -> Result<(), &'static str> {
    if let Ok(address) = entry.parse::<SocketAddr>() {
        return if address.port() == 0 { Err("has port 0; it takes 1 to 65535") } else { Ok(()) };
    }
    if entry.contains("://") {
        return Err("has a scheme; write host:port, such as 10.0.0.2:5454");
    }
    if entry.contains([',', ';']) || entry.split(' ').filter(|part| part.contains(':')).count() > 1 {
        return Err(
            "names several; write one host:port per entry (repeat --peer; commas in OLIVIA_REMOTE_PEERS)",
        );
    }
    let Some((host, port)) = entry.rsplit_once(':') else {
        return Err("has no port; write host:port, such as 10.0.0.2:5454");
    };
    if host.starts_with('[') {
        return Err("is not an IPv6 address with a port; write [address]:port, such as [fd00::2]:5454");
    }
    if host.contains(':') {
        return Err("looks like IPv6, which goes in brackets, such as [fd00::2]:5454");
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().unwrap_or(0) == 0 {
        return Err("has a port that is not a number from 1 to 65535");
    }
    check_host(host)
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("has no host; write host:port, such as 10.0.0.2:5454");
    }
    if host.len() > HOST_BYTES_MAX {
        return Err("has a host name of more than 253 bytes");
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.bytes().all(known) {
            return Err("has a host that is neither an IP address nor a name of letters, digits, - and .");
        }
    }
    // No top-level domain is a number, so this is an IPv4 address with an error in it.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("has a host that is not an IPv4 address; it takes four numbers of 0 to 255");
    }
    Ok(())
}

/// True if `entry`, a checked `host:port`, cannot lead to another machine.
pub(super) fn stays_here(entry: &str) -> bool {
    match entry.parse::<SocketAddr>() {
        Ok(address) => is_loopback(address.ip()),
        Err(_) => entry.rsplit_once(':').is_some_and(|(host, _)| host.eq_ignore_ascii_case("localhost")),
    }
}

#[cfg(test)]
mod tests {
    use super::{check, stays_here};

    #[test]
    fn good_peers_are_taken() {
        for entry in ["a:1", "10.0.0.2:5454", "[::1]:65535", "db-1.example.org:80", "a_b.:9", "localhost:1"] {
            assert_eq!(check(entry), Ok(()), "{entry}");
        }
    }

    #[test]
    fn bad_peers_are_reported_with_what_would_be_right() {
        for (entry, hint) in [
            ("", "no port"),
            ("host", "no port"),
            (":5454", "no host"),
            ("host:", "not a number"),
            ("host:0", "not a number"),
            ("host:65536", "not a number"),
            ("host:+5", "not a number"),
            ("1.2.3.4:0", "port 0"),
            ("::1:5454", "brackets"),
            ("[::1]", "[address]:port"),
            ("[zz]:1", "[address]:port"),
            ("256.1.1.1:80", "IPv4"),
            ("a b:80", "neither"),
            ("a..b:80", "neither"),
            ("http://host:80", "scheme"),
            ("a:1,b:2", "several"),
            ("a:1 b:2", "several"),
        ] {
            assert!(check(entry).unwrap_err().contains(hint), "{entry}: {:?}", check(entry));
        }
        assert!(check(&format!("{}:1", "a".repeat(254))).is_err());
        assert!(check(&format!("{}:1", "a".repeat(64))).is_err());
    }

    #[test]
    fn only_loopback_and_localhost_stay_here() {
        for entry in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "LocalHost:1", "[::ffff:127.0.0.1]:1"] {
            assert!(stays_here(entry), "{entry}");
        }
        for entry in ["128.0.0.1:1", "0.0.0.0:1", "[::]:1", "localhost.example:1", "[::2]:1"] {
            assert!(!stays_here(entry), "{entry}");
        }
    }
}
