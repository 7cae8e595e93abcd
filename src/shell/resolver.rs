//! The addresses behind `remote_peers`, asked for once, before the loop begins: asking for a name waits.

use super::ShellError;
use crate::config::Config;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};

/// The addresses of each entry that is to be dialled, in order. A base node dials nobody.
///
/// # Errors
/// [`ShellError::Resolve`] for the first name that has none.
pub(super) fn resolve(
    config: &Config,
    ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>>,
) -> Result<Vec<Vec<SocketAddr>>, ShellError> {
    let mut found = Vec::new();
    let entries = if config.base_node { &[][..] } else { &config.remote_peers };
    for entry in entries {
        let addrs = match ask(entry) {
            Ok(addrs) if addrs.is_empty() => Err(ErrorKind::NotFound.into()),
            answer => answer,
        };
        found.push(addrs.map_err(|error| ShellError::Resolve(entry.clone(), error))?);
    }
    Ok(found)
}

/// What the system says to a `host:port`. May wait for a name server.
pub(super) fn ask_system(entry: &str) -> io::Result<Vec<SocketAddr>> {
    entry.to_socket_addrs().map(Iterator::collect)
}

#[cfg(test)]
mod tests {
    use super::{ask_system, resolve};
    use crate::config::Config;
    use std::io::{Error, ErrorKind};
    use std::net::SocketAddr;

    fn config(peers: &[&str]) -> Config {
        let remote_peers = peers.iter().map(|entry| (*entry).to_owned()).collect();
        Config { base_node: false, remote_peers, ..Config::default() }
    }

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_name_has_its_own_addresses() {
        let ask = |entry: &str| match entry {
            "a:1" => Ok(addrs(&["[fd00::1]:1", "10.0.0.1:1"])),
            _ => Ok(addrs(&["10.0.0.1:1", "10.0.0.2:1"])),
        };
        let found = resolve(&config(&["a:1", "b:1"]), ask).unwrap();
        assert_eq!(found, [addrs(&["[fd00::1]:1", "10.0.0.1:1"]), addrs(&["10.0.0.1:1", "10.0.0.2:1"])]);
    }

    #[test]
    fn name_without_an_address_is_told_with_what_to_do() {
        let nothing = resolve(&config(&["127.0.0.1:1", "gone:1"]), |entry| match entry {
            "gone:1" => Ok(Vec::new()),
            _ => ask_system(entry),
        });
        let failing = resolve(&config(&["gone:1"]), |_| Err(Error::from(ErrorKind::TimedOut)));
        for result in [nothing, failing] {
            let sentence = result.unwrap_err().to_string();
            assert!(
                sentence.contains("names gone:1,") && sentence.contains("correct the name"),
                "{sentence}"
            );
        }
    }

    #[test]
    fn base_node_asks_for_no_name() {
        let config = Config { base_node: true, ..config(&["gone:1"]) };
        assert_eq!(resolve(&config, |_| Err(Error::from(ErrorKind::Other))).unwrap(), [[]; 0]);
    }

    #[test]
    fn addresses_need_no_name_server() {
        let given = ["127.0.0.1:5", "[::1]:6"];
        let found = resolve(&config(&given), ask_system).unwrap();
        assert_eq!(found, [addrs(&given[..1]), addrs(&given[1..])]);
    }
}
