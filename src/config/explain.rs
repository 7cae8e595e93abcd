//! Messages about errors of the system, each with advice.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

/// The first port that every user may listen on, unless the system is configured otherwise.
const UNPRIVILEGED_PORT_MIN: u16 = 1_024;

/// The message about an address that could not be listened on.
pub fn explain_bind_error(addr: SocketAddr, err: &Error) -> String {
    let port = addr.port();
    let advice = if err.kind() == ErrorKind::AddrInUse {
        format!(
            "another process has this port; end it (`ss -ltnp 'sport = :{port}'` shows it), or choose another \
             with --port (0: any free one)"
        )
    } else if err.kind() == ErrorKind::AddrNotAvailable {
        "this machine does not have that address; set bind to one of its addresses (`ip address` shows them), or \
         to 127.0.0.1, or to 0.0.0.0 for all of them"
            .to_owned()
    } else if err.kind() == ErrorKind::PermissionDenied && port != 0 && port < UNPRIVILEGED_PORT_MIN {
        format!(
            "a port below {UNPRIVILEGED_PORT_MIN} needs permission; choose a higher one with --port, or give \
             the program CAP_NET_BIND_SERVICE"
        )
    } else if err.kind() == ErrorKind::PermissionDenied {
        "the system does not permit it; look for a sandbox or a security policy, or choose another port with \
         --port"
            .to_owned()
    } else if addr.is_ipv6() {
        format!("{err}; if this machine has no IPv6, bind to IPv4")
    } else {
        format!("{err}; choose another address with --bind or port with --port")
    };
    format!("cannot listen on {addr}: {advice}")
}

/// The message about a file that could not be read.
pub(super) fn read_error(path: &Path, err: &Error) -> String {
    let path = path.display();
    if err.kind() == ErrorKind::NotFound {
        format!("{path} does not exist; create it, or name another")
    } else if err.kind() == ErrorKind::PermissionDenied {
        format!("{path} cannot be read: permission denied; let the user who runs olivia read it")
    } else if err.kind() == ErrorKind::IsADirectory {
        format!("{path} is a directory; name a file in it")
    } else {
        format!("{path} cannot be read: {err}")
    }
}

#[cfg(test)]
mod tests {
    use super::{explain_bind_error, read_error};
    use std::io::{Error, ErrorKind};
    use std::path::Path;

    #[test]
    fn each_refusal_to_listen_says_what_to_do() {
        for (addr, kind, hint) in [
            ("127.0.0.1:5454", ErrorKind::AddrInUse, "choose another with --port"),
            ("10.9.9.9:5454", ErrorKind::AddrNotAvailable, "does not have that address"),
            ("127.0.0.1:80", ErrorKind::PermissionDenied, "below 1024"),
            ("127.0.0.1:5454", ErrorKind::PermissionDenied, "policy"),
            ("[::1]:5454", ErrorKind::Other, "IPv6"),
            ("127.0.0.1:5454", ErrorKind::Other, "--bind"),
        ] {
            let sentence = explain_bind_error(addr.parse().unwrap(), &Error::from(kind));
            assert!(sentence.contains(hint) && sentence.contains(addr), "{sentence}");
        }
    }

    #[test]
    fn each_unreadable_file_says_what_to_do() {
        for (kind, hint) in [
            (ErrorKind::NotFound, "create it"),
            (ErrorKind::PermissionDenied, "let the user"),
            (ErrorKind::IsADirectory, "name a file in it"),
            (ErrorKind::Other, "cannot be read"),
        ] {
            let sentence = read_error(Path::new("/etc/x.toml"), &Error::from(kind));
            assert!(sentence.contains(hint) && sentence.starts_with("/etc/x.toml"), "{sentence}");
        }
    }
}
