//! The addresses of `remote_peers`, resolved outside the event loop.
//!
//! `getaddrinfo` blocks for as long as a name server is silent. So each query runs in a short-lived helper thread that
//! is passed nothing but the name; its result wakes the loop. Names are resolved at start, again when one of their
//! addresses is dialled, at SIGHUP, and after a failure with a growing delay.

use crate::base::time::{Instant, Now};
use mio::{Registry, Token, Waker};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Maximum helper threads at one time; further names wait.
const HELPERS_MAX: usize = 4;

/// Maximum addresses taken from one name.
const ADDRESSES_MAX: usize = 64;

/// The least time between two queries for one name, and the longest delay after failures.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// The least time between two warnings about one name.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Resolves a `host:port`; blocks.
type Lookup = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// One entry of `remote_peers`.
#[derive(Debug)]
struct Name {
    entry: String,
    /// Sorted, each once.
    addrs: Vec<SocketAddr>,
    /// An address, not a name: never resolved again.
    is_literal: bool,
    is_running: bool,
    /// When it is to be resolved next.
    due: Option<Instant>,
    finished_at: Option<Instant>,
    failures: u32,
    warned_at: Option<Instant>,
}

/// All entries of `remote_peers`, in order.
pub(super) struct Resolver {
    names: Vec<Name>,
    lookup: Lookup,
    /// `None`: there are only literal addresses.
    waker: Option<Arc<Waker>>,
    sender: Sender<(usize, io::Result<Vec<SocketAddr>>)>,
    results: Receiver<(usize, io::Result<Vec<SocketAddr>>)>,
}

impl Resolver {
    /// Takes literal addresses as they are; names are resolved by the first [`Resolver::step`].
    pub(super) fn new(entries: &[String], registry: &Registry, token: Token) -> io::Result<Self> {
        Self::with(entries, registry, token, |entry| entry.to_socket_addrs().map(Iterator::collect))
    }

    fn with(entries: &[String], registry: &Registry, token: Token, lookup: Lookup) -> io::Result<Self> {
        let (sender, results) = channel();
        let name = |entry: &String| {
            let literal = entry.parse().ok();
            Name {
                entry: entry.clone(),
                addrs: literal.into_iter().collect(),
                is_literal: literal.is_some(),
                is_running: false,
                due: literal.is_none().then_some(Instant::ZERO),
                finished_at: None,
                failures: 0,
                warned_at: None,
            }
        };
        let names: Vec<Name> = entries.iter().map(name).collect();
        let has_names = names.iter().any(|name| !name.is_literal);
        let waker = has_names.then(|| Waker::new(registry, token).map(Arc::new)).transpose()?;
        Ok(Self { names, lookup, waker, sender, results })
    }

    /// The known addresses of each entry.
    pub(super) fn addresses(&self) -> Vec<Vec<SocketAddr>> {
        self.names.iter().map(|name| name.addrs.clone()).collect()
    }

    /// When [`Resolver::step`] has queries to start; results are signalled by the waker.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.running() >= HELPERS_MAX {
            return None;
        }
        self.names.iter().filter(|name| !name.is_running).filter_map(|name| name.due).min()
    }

    fn running(&self) -> usize {
        self.names.iter().filter(|name| name.is_running).count()
    }

    /// Schedules queries for the names with a dialled address.
    pub(super) fn dialled(&mut self, addr: SocketAddr) {
        self.names.iter_mut().filter(|name| name.addrs.contains(&addr)).for_each(Name::resolve_again);
    }

    /// Schedules queries for all names.
    pub(super) fn resolve_all(&mut self) {
        self.names.iter_mut().for_each(Name::resolve_again);
    }

    /// Takes results and starts the queries that are due. Returns the entries whose addresses have changed.
    pub(super) fn step(&mut self, now: Now) -> Vec<(usize, Vec<SocketAddr>)> {
        let mut changed = Vec::new();
        if self.names.is_empty() {
            return changed;
        }
        while let Ok((index, result)) = self.results.try_recv() {
            if let Some(name) = self.names.get_mut(index)
                && name.finished(now.mono, result)
            {
                changed.push((index, name.addrs.clone()));
            }
        }
        let mut free = HELPERS_MAX - self.running().min(HELPERS_MAX);
        for index in 0..self.names.len() {
            if free == 0 {
                break;
            }
            let name = &self.names[index];
            if !name.is_running && name.due.is_some_and(|due| due <= now.mono) {
                self.start(now, index);
                free -= 1;
            }
        }
        changed
    }

    fn start(&mut self, now: Now, index: usize) {
        let name = &mut self.names[index];
        (name.due, name.is_running) = (None, true);
        let (lookup, entry) = (self.lookup, name.entry.clone());
        let (sender, waker) = (self.sender.clone(), self.waker.clone());
        let helper = thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            // Both fail only after the end of the loop.
            let _ = sender.send((index, lookup(&entry)));
            let _ = waker.map(|waker| waker.wake());
        });
        if let Err(error) = helper {
            name.finished(now.mono, Err(error));
        }
    }
}

impl Name {
    fn resolve_again(&mut self) {
        if !self.is_literal {
            let soonest = self.finished_at.map_or(Instant::ZERO, |then| then.after(DELAY_MIN));
            self.due = Some(self.due.map_or(soonest, |due| due.min(soonest)));
        }
    }

    /// Takes a result; true if it changes the addresses. A failure keeps the known ones.
    fn finished(&mut self, now: Instant, result: io::Result<Vec<SocketAddr>>) -> bool {
        self.is_running = false;
        self.finished_at = Some(now);
        let problem = match result {
            Ok(mut addrs) if !addrs.is_empty() => {
                addrs.sort_unstable();
                addrs.dedup();
                addrs.truncate(ADDRESSES_MAX);
                self.failures = 0;
                let is_new = addrs != self.addrs;
                self.addrs = addrs;
                return is_new;
            }
            Ok(_) => "it has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        let delay = (DELAY_MIN * 2u32.pow(self.failures.min(5))).min(DELAY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now.after(delay));
        if self.warned_at.is_none_or(|then| now.since(then) >= WARN_EVERY) {
            self.warned_at = Some(now);
            log::warn!("cannot resolve {} in remote_peers: {problem}; trying again", self.entry);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Resolver, WARN_EVERY};
    use crate::base::time::{Instant, Now};
    use mio::{Events, Poll, Token};
    use std::io::{self, ErrorKind};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Instant::from_millis(seconds * 1_000), wall_nanos: 0 }
    }

    struct World {
        poll: Poll,
        resolver: Resolver,
    }

    impl World {
        fn new(entries: &[&str], lookup: super::Lookup) -> Self {
            let poll = Poll::new().unwrap();
            let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
            let resolver = Resolver::with(&entries, poll.registry(), Token(1), lookup).unwrap();
            Self { poll, resolver }
        }

        /// Starts the queries that are due, waits for one helper, and returns the changed entries.
        fn step(&mut self, now: Now) -> Vec<(usize, Vec<SocketAddr>)> {
            assert!(self.resolver.step(now).is_empty());
            let mut events = Events::with_capacity(8);
            self.poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "the helper has not woken the loop");
            self.resolver.step(now)
        }
    }

    #[test]
    fn addresses_are_known_at_once_and_never_resolved() {
        let mut world = World::new(&["127.0.0.1:5", "[::1]:6"], |_| Err(ErrorKind::Other.into()));
        assert_eq!(world.resolver.addresses(), [addrs(&["127.0.0.1:5"]), addrs(&["[::1]:6"])]);
        world.resolver.dialled("127.0.0.1:5".parse().unwrap());
        world.resolver.resolve_all();
        assert_eq!(world.resolver.next_deadline(), None);
    }

    #[test]
    fn changed_address_is_found_when_the_old_one_is_dialled() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let lookup = |_: &str| -> io::Result<Vec<SocketAddr>> {
            let ip = if CALLS.fetch_add(1, Ordering::Relaxed) == 0 { 2 } else { 3 };
            Ok(vec![SocketAddr::from(([127, 0, 0, ip], 1))])
        };
        let mut world = World::new(&["seed:1"], lookup);
        assert_eq!(world.resolver.addresses(), [[]; 1]);
        assert_eq!(world.step(at(1)), [(0, addrs(&["127.0.0.2:1"]))]);
        assert_eq!(world.resolver.next_deadline(), None);
        world.resolver.dialled("127.0.0.2:1".parse().unwrap());
        assert_eq!(world.resolver.next_deadline(), Some(at(2).mono), "not more often than once per second");
        assert_eq!(world.step(at(2)), [(0, addrs(&["127.0.0.3:1"]))]);
    }

    #[test]
    fn name_without_an_address_is_tried_again_ever_more_slowly() {
        let mut world = World::new(&["gone:1"], |_| Err(ErrorKind::TimedOut.into()));
        let mut now = 1;
        for delay in [1, 2, 4, 8, 16, 30, 30] {
            assert!(world.step(at(now)).is_empty());
            now += delay;
            assert_eq!(world.resolver.next_deadline(), Some(at(now).mono));
        }
        assert!(Duration::from_secs(now) > WARN_EVERY);
    }

    #[test]
    fn silent_name_server_does_not_delay_other_names() {
        let lookup = |entry: &str| -> io::Result<Vec<SocketAddr>> {
            if entry == "silent:1" {
                std::thread::sleep(Duration::from_secs(3_600));
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 2], 1))])
        };
        let mut world = World::new(&["silent:1", "b:1"], lookup);
        assert_eq!(world.step(at(1)), [(1, addrs(&["127.0.0.2:1"]))]);
    }
}
