//! The delay until new keys are published, in steps of a node with a virtual clock: a step is an iteration of a busy
//! event loop, 1 ms. Peers read their links at once.

mod kit;

use kit::ClientId;
use kit::ms;
use kit::peer::{Face, Link, World};
use olivia::config::Config;
use olivia::node::Class;
use olivia::wire::frame::{self, Body, FrameLimits, Parsed};

/// Steps within which a new key is published to all peers: 10 ms.
const STEPS_MAX: usize = 10;

/// Additions that may wait to be published after a call, with so many peers: those of a gathering that is not full,
/// which are 4,096, and times the peers 16,384.
fn backlog_max(peers: u16) -> u64 {
    (16_384 / u64::from(peers)).min(4_096)
}

struct Publisher {
    world: World,
    client: ClientId,
    links: Vec<Link>,
    /// Additions that each link has brought.
    additions: Vec<u64>,
    /// Blocks of snapshots that all links have brought.
    blocks: usize,
    keys: u64,
}

impl Publisher {
    fn new(peers: u16) -> Self {
        let mut world = World::new(Config::default());
        let links: Vec<Link> = (1..=peers).map(|number| world.known(&Face::new(number))).collect();
        for link in &links {
            world.send(link, &[(0, Body::Resync(None))]);
        }
        world.driver.watch = None;
        let client = world.driver.client();
        let additions = vec![0; links.len()];
        let mut publisher = Self { world, client, links, additions, blocks: 0, keys: 0 };
        publisher.world.driver.run();
        // They answer no heartbeats, so that clients would wait for them for some time.
        publisher.world.driver.pass(ms(300));
        publisher.read();
        publisher.additions.fill(0);
        publisher
    }

    /// Sets new keys by one command of so many each, in one call.
    fn set(&mut self, count: u64) {
        let keys: Vec<String> = (self.keys..self.keys + count).map(|key| format!("{key}:")).collect();
        self.keys += count;
        self.world.driver.deliver(self.client, format!("SET {}\n", keys.join(",")).as_bytes());
        // It may have a debt from earlier turns.
        loop {
            self.world.driver.read_now(self.client);
            if self.world.driver.has_arrived(self.client) {
                break;
            }
            assert!(self.world.driver.node.step(self.world.driver.now, Class::Clients));
            self.world.driver.deliver(self.client, b"");
        }
        assert!(self.world.driver.take(self.client).starts_with(":SAT"));
    }

    /// One iteration: 1 ms, and one step of due work.
    fn step(&mut self) {
        self.world.driver.leap(ms(1));
        self.world.driver.node.tick(self.world.driver.now);
        // Nothing but what the shell does after each call.
        self.world.driver.deliver(self.client, b"");
    }

    /// All peers read what they were sent.
    fn read(&mut self) {
        let limits = FrameLimits { key_bytes_max: 1 << 16, value_bytes_max: 1 << 16 };
        for (link, additions) in self.links.iter_mut().zip(&mut self.additions) {
            self.world.driver.read_now(link.conn);
            link.came.extend(self.world.driver.take_bytes(link.conn));
            let mut at = 0;
            while let Parsed::Frame { frame, consumed } = frame::parse(&link.came[at..], limits) {
                at += consumed;
                if let Body::Delta(hashes) = frame.body {
                    *additions += hashes.len() as u64;
                } else if let Body::Piece(words) = frame.body {
                    self.blocks += words.len() / 8;
                }
            }
            link.came.drain(..at);
        }
    }

    fn backlog(&self) -> u64 {
        self.keys - self.additions.iter().min().unwrap()
    }
}

#[test]
fn lone_new_key_is_published_to_64_peers_within_10_ms_while_the_filter_doubles() {
    let mut publisher = Publisher::new(64);
    // 2^16 blocks at 16 bits per key; a sixteenth of that where every step takes longer.
    let full: u64 = if cfg!(debug_assertions) { 1 << 17 } else { 1 << 21 };
    while publisher.keys < full - 1_000 {
        publisher.set(250);
        publisher.read();
    }
    while publisher.backlog() > 0 {
        publisher.step();
        publisher.read();
    }
    let size = publisher.world.driver.node.own_filter().size();
    (0..8).for_each(|_| publisher.set(250));
    let (mut during, mut worst) = (0, 0);
    // Until it has doubled and most of the snapshots are sent.
    for round in 0.. {
        publisher.set(1);
        let mut steps = 0;
        while publisher.backlog() > 0 {
            publisher.step();
            publisher.read();
            steps += 1;
            assert!(steps <= STEPS_MAX, "{} additions wait in round {round}", publisher.backlog());
        }
        worst = worst.max(steps);
        (0..round % 7).for_each(|_| publisher.step());
        publisher.read();
        let has_doubled = publisher.world.driver.node.own_filter().size() > size;
        if has_doubled && during == 0 {
            publisher.blocks = 0;
        }
        during += u32::from(has_doubled);
        if during > 300 {
            break;
        }
        assert!(round < 20_000, "the filter does not double");
    }
    assert!(publisher.blocks > 0 && publisher.blocks < 64 * 2 * size.blocks(), "no snapshot was under way");
    println!("at worst {worst} steps");
}

#[test]
fn backlog_of_additions_is_bounded_whatever_clients_set() {
    for (peers, per_call, calls) in [(2, 250, 40), (16, 250, 8), (64, 50, 4), (16, 1, 400)] {
        let mut publisher = Publisher::new(peers);
        let mut worst = 0;
        for _ in 0..if cfg!(debug_assertions) { 40 } else { 400 } {
            for _ in 0..calls {
                publisher.set(per_call);
                publisher.read();
                worst = worst.max(publisher.backlog());
            }
            publisher.step();
        }
        assert!(
            worst <= backlog_max(peers),
            "{worst} additions wait, with {peers} peers and {per_call} keys per call"
        );
    }
}

#[test]
fn what_is_published_is_charged_to_the_call_that_set_it() {
    // With many readers a call carries out fewer requests before others have their turn.
    let requests: String = (0..256).map(|key| format!("SET c{key}:1\n")).collect();
    let mut carried_out = Vec::new();
    for peers in [0, 64] {
        let mut publisher = Publisher::new(peers);
        publisher.world.driver.deliver(publisher.client, requests.as_bytes());
        publisher.world.driver.read_now(publisher.client);
        carried_out.push(publisher.world.driver.take(publisher.client).lines().count());
    }
    // Of 256 keys that a turn may have, bytes take some.
    assert_eq!(carried_out, [251, 127]);
}
