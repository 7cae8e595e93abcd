//! Worlds under load: clients that send as fast as they get replies, slow and stalled readers, up to 128 nodes. There
//! are no faults, but in one of them a link breaks; virtual time advances by the cost of calls, on a fast machine and on
//! a slow one.
//!
//! Checked meanwhile: a key that a linked node holds is found (promise 1), none is served after it expired (2), no
//! call costs more than a millisecond and no queue grows beyond its bound (3), and a new key is found from every node
//! within [`FOUND_WITHIN`] (4).

use super::boundary;
use super::net::{MS, Party, Port, Read, US};
use super::plan::{KEY_NANOS, TOMBSTONES_UNDER_LOAD};
use super::world::{Event, World};
use olivia::node::Class;
use std::collections::BTreeMap;

/// A GET that is sent so long after the reply to the SET finds the key, on every node, however busy.
const FOUND_WITHIN: u64 = 50 * MS;

/// Time limit until bytes that arrived on a link are read. Very long answers fill the sockets of a link, whose 4.4 MB are
/// 11 ms of work for a slow machine, of which links have a third and more. Writers wait for a slow peer only once it is
/// late.
const READ_WITHIN: u64 = 10 * MS;
const READ_WITHIN_AT_MOST: u64 = 40 * MS;

/// The most that one call may cost, in keys: a millisecond.
const CALL_KEYS_MAX: u64 = MS / KEY_NANOS;

/// The value of large keys, and how many of them one request names: replies of 3 MB.
const LARGE_BYTES: usize = 60_000;
const LARGE_KEYS: usize = 50;

/// A value that costs more than a call may: many wait for it at a time.
const SHARED_BYTES: usize = 8_000_000;

/// A value that is received where it will lie, and is some reads.
const RECEIVED_BYTES: usize = 300_000;

/// Time between two keys of the probes, and the life of those that expire.
const PROBE_EVERY: u64 = 7 * MS;
const LIFE_MS: u64 = 60;

/// The logarithm of the blocks of an empty filter.
const FILTER_LOG2_MIN: u8 = 6;

/// The repeated requests of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// GETs of a key that its node holds.
    Get,
    /// GETs of a key that the next node holds.
    GetRemote,
    /// SETs of new keys.
    SetNew,
    /// SETs of new keys, the same ones on each node.
    SetSame,
    /// SETs of keys that expire soon.
    SetExpiring,
    /// SETs of new keys and their DELs by turns.
    SetAndDelete,
    /// SETs of one large value again and again.
    SetLarge,
    /// GETs of many large values.
    GetLarge,
    /// GETs, in lines, of one very large value that the next node holds.
    GetShared,
    /// GETs of many large values, but it reads nothing.
    Stall,
    /// GETs, but it reads only now and then.
    ReadSlowly,
    /// Requests the filter as text.
    Dump,
    /// Connects, sends a request, and leaves.
    ComeAndGo,
}

/// Clients of one kind, on one node.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub host: usize,
    pub clients: usize,
    pub habit: Habit,
    /// Requests that each has on its way.
    pub depth: usize,
}

impl Crowd {
    /// Whether it sets as many new keys as its node takes.
    fn fills(&self) -> bool {
        matches!(self.habit, Habit::SetNew | Habit::SetSame) && self.clients * self.depth > 1_000
    }
}

/// One world.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub members: usize,
    pub crowds: &'static [Crowd],
    /// All links break, and keys are dropped until they are made again.
    pub breaks: bool,
    /// The last node takes so many times as long as the others.
    pub slowness: u64,
    /// The most that the median and the slowest of 99 % of PINGs on the first node may take, in milliseconds on a fast
    /// machine.
    pub ping_ms: [u64; 2],
}

const fn crowd(host: usize, clients: usize, habit: Habit, depth: usize) -> Crowd {
    Crowd { host, clients, habit, depth }
}

/// The most that may wait in each queue, whatever clients do: entries, or for timers milliseconds that the earliest is
/// late.
pub const BACKLOGS: [(&str, u64); 12] = [
    // Each connection once.
    ("input of links", 128),
    ("input of clients", 10_000),
    ("timers", 10),
    // The rebuild of blocks, beside a floor that drops most keys of a slow machine.
    ("expiry and own filter", 100),
    // A gathering for one peer, and what one call may add.
    ("digests", 4_096 + 128),
    ("resyncs", 128),
    ("tombstones", TOMBSTONES_UNDER_LOAD as u64),
    ("discarded deletions", 128),
    ("floor", 1),
    ("waiting writers", 10_000),
    // lookups_max.
    ("lookups", 65_536),
    ("tasks", 256),
];

/// The queues in milliseconds, sampled after each iteration; the others are sampled after each call. Within an
/// iteration the next deadline of a wheel can be earlier than that of each of its timers.
pub const TIMED: [&str; 2] = ["timers", "expiry and own filter"];

/// A queue of one entry per peer that no world fills: what is sent to it has mostly been acknowledged by then.
/// `tests/hostile/versions.rs` fills it.
pub const UNFILLED: &str = "discarded deletions";

/// The worlds; each other queue is filled by at least one of them.
pub const SCENARIOS: [Scenario; 14] = [
    Scenario {
        name: "100 clients of depth 1,000, beside a peer that takes new keys",
        members: 2,
        crowds: &[crowd(0, 100, Habit::Get, 1_000), crowd(1, 4, Habit::SetNew, 1_000)],
        breaks: false,
        slowness: 1,
        ping_ms: [1, 10],
    },
    Scenario {
        name: "new keys on both nodes",
        members: 2,
        crowds: &[crowd(0, 50, Habit::SetNew, 64), crowd(1, 50, Habit::SetNew, 64)],
        breaks: false,
        slowness: 1,
        ping_ms: [4, 7],
    },
    Scenario {
        name: "the same keys on both nodes",
        members: 2,
        crowds: &[crowd(0, 50, Habit::SetSame, 64), crowd(1, 50, Habit::SetSame, 64)],
        breaks: false,
        slowness: 1,
        // A node that cannot read its link as fast as it is written gives clients a tenth of an iteration.
        ping_ms: [6, 16],
    },
    Scenario {
        name: "the same keys on both nodes, of which one has a quarter of the speed",
        members: 2,
        crowds: &[crowd(0, 50, Habit::SetSame, 64), crowd(1, 50, Habit::SetSame, 64)],
        breaks: false,
        slowness: 4,
        ping_ms: [6, 16],
    },
    Scenario {
        name: "2,000 pipelining clients",
        members: 2,
        crowds: &[crowd(0, 2_000, Habit::Get, 16), crowd(1, 20, Habit::SetNew, 16)],
        breaks: false,
        slowness: 1,
        ping_ms: [60, 100],
    },
    Scenario {
        name: "remote keys only",
        members: 2,
        crowds: &[crowd(0, 50, Habit::GetRemote, 64)],
        breaks: false,
        slowness: 1,
        ping_ms: [3, 5],
    },
    Scenario {
        name: "readers of large replies, slow ones and ones that stand still",
        members: 2,
        crowds: &[
            crowd(0, 6, Habit::GetLarge, 2),
            crowd(0, 16, Habit::Stall, 4),
            crowd(0, 16, Habit::ReadSlowly, 200),
        ],
        breaks: false,
        slowness: 1,
        ping_ms: [4, 6],
    },
    Scenario {
        name: "large values are set and read",
        members: 2,
        crowds: &[crowd(0, 20, Habit::SetLarge, 2), crowd(0, 2, Habit::GetLarge, 2)],
        breaks: false,
        slowness: 1,
        ping_ms: [2, 4],
    },
    Scenario {
        name: "clients that wait for one very large value of another node",
        members: 2,
        crowds: &[crowd(0, 20, Habit::GetShared, 1)],
        breaks: false,
        slowness: 1,
        ping_ms: [2, 4],
    },
    Scenario {
        name: "a flood of filter dumps",
        members: 2,
        crowds: &[crowd(0, 100, Habit::Dump, 16), crowd(1, 4, Habit::SetNew, 16)],
        breaks: false,
        slowness: 1,
        ping_ms: [5, 8],
    },
    Scenario {
        name: "keys that expire as fast as they are set, and clients that come and go",
        members: 2,
        crowds: &[crowd(0, 20, Habit::SetExpiring, 32), crowd(0, 100, Habit::ComeAndGo, 1)],
        breaks: false,
        slowness: 1,
        ping_ms: [3, 5],
    },
    Scenario {
        name: "links that are made again, after more deletions than are remembered",
        members: 2,
        crowds: &[crowd(0, 20, Habit::SetAndDelete, 32), crowd(1, 20, Habit::SetNew, 16)],
        breaks: true,
        slowness: 1,
        ping_ms: [3, 5],
    },
    Scenario {
        name: "64 nodes, new keys on the one that all others are linked to",
        members: 64,
        crowds: &[crowd(0, 10, Habit::SetNew, 32), crowd(0, 10, Habit::Get, 100)],
        breaks: false,
        slowness: 1,
        // 1.5 on a fast machine, 120 on one of a tenth of its speed.
        ping_ms: [4, 13],
    },
    Scenario {
        name: "128 nodes, remote keys",
        members: 128,
        crowds: &[crowd(0, 10, Habit::GetRemote, 16), crowd(0, 4, Habit::SetNew, 16)],
        breaks: false,
        slowness: 1,
        ping_ms: [4, 8],
    },
];

/// The role of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Crowd(Habit, usize),
    /// Sets the keys of the probes.
    Writer,
    /// Gets them.
    Reader,
    Pinger,
}

#[derive(Debug)]
struct Client {
    host: usize,
    role: Role,
    port: Option<Port>,
    is_up: bool,
    /// Requests without a reply.
    pending: usize,
    sent_at: u64,
    /// The key of the probe that a reader has requested.
    probed: usize,
    reply: Vec<u8>,
    serial: u64,
}

/// A key that a writer has set.
#[derive(Debug)]
struct Probe {
    host: usize,
    /// When the reply to the SET was read.
    set_at: Option<u64>,
    /// When it is certainly gone, if it expires.
    gone_at: Option<u64>,
}

/// The state of a world under load in addition to its hosts and its network.
#[derive(Debug)]
pub struct Load {
    scenario: Scenario,
    clients: Vec<Client>,
    probes: Vec<Probe>,
    /// When PINGs were sent and how long they took, those once all clients are known; the last one before if there were
    /// none.
    pings: Vec<(u64, u64)>,
    /// GETs of probes that found their key, and those that did not though it was there.
    pub found: u64,
    pub early: u64,
    /// The longest time after a SET at which its key was not found.
    pub latest_miss: u64,
    worst_call: u64,
    /// The first probe that is judged; `None` while links are broken.
    judged_from: Option<usize>,
    backlogs: BTreeMap<&'static str, u64>,
    /// When all clients are known for what they are.
    warm_at: u64,
    is_ending: bool,
}

impl Load {
    pub fn new(scenario: Scenario) -> Self {
        let client = |host, role| Client {
            host,
            role,
            port: None,
            is_up: false,
            pending: 0,
            sent_at: 0,
            probed: 0,
            reply: Vec::new(),
            serial: 0,
        };
        let last = scenario.members - 1;
        let mut clients = vec![
            client(0, Role::Pinger),
            client(0, Role::Writer),
            client(last, Role::Writer),
            client(0, Role::Reader),
            client(1, Role::Reader),
            client(last, Role::Reader),
        ];
        for crowd in scenario.crowds {
            clients.extend(
                (0..crowd.clients).map(|_| client(crowd.host, Role::Crowd(crowd.habit, crowd.depth))),
            );
        }
        Self {
            scenario,
            clients,
            probes: Vec::new(),
            pings: Vec::new(),
            found: 0,
            early: 0,
            latest_miss: 0,
            worst_call: 0,
            judged_from: Some(0),
            backlogs: BTreeMap::new(),
            warm_at: u64::MAX,
            is_ending: false,
        }
    }

    /// The most that was in each queue.
    pub fn backlogs(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.backlogs.iter().map(|(queue, most)| (*queue, *most))
    }

    /// A node's call has cost so many keys.
    pub fn called(&mut self, what: &str, keys: u64) {
        self.worst_call = self.worst_call.max(keys);
        assert!(keys <= CALL_KEYS_MAX, "{}: {what} costs {keys} keys", self.scenario.name);
    }

    /// The request of a client, if it sends one now, and how many it is.
    fn request(&mut self, at: usize) -> (Vec<u8>, usize) {
        let probes = self.probes.len();
        let client = &mut self.clients[at];
        client.serial += 1;
        let serial = client.serial;
        let (habit, depth) = match client.role {
            Role::Pinger => return (b"PING\n".to_vec(), 1),
            Role::Writer if serial.is_multiple_of(3) => {
                client.probed = probes;
                self.probes.push(Probe { host: client.host, set_at: None, gone_at: None });
                let words =
                    ["SET", &format!("p{probes}"), "1", "PX", &LIFE_MS.to_string()].map(bulk).concat();
                return (format!("*5\r\n{words}").into_bytes(), 1);
            }
            Role::Writer => {
                client.probed = probes;
                self.probes.push(Probe { host: client.host, set_at: None, gone_at: None });
                let words = ["SET", &format!("p{probes}"), "1"].map(bulk).concat();
                return (format!("*3\r\n{words}").into_bytes(), 1);
            }
            Role::Reader if probes == 0 => return (Vec::new(), 0),
            Role::Reader => {
                // The newest, and by turns an older one.
                let back = if serial.is_multiple_of(2) { 0 } else { usize::try_from(serial % 40).unwrap() };
                client.probed = (probes - 1).saturating_sub(back);
                return (format!("GET p{}\n", client.probed).into_bytes(), 1);
            }
            Role::Crowd(habit, depth) => (habit, depth),
        };
        let wanted = depth - client.pending;
        if wanted < depth.div_ceil(2) {
            return (Vec::new(), 0);
        }
        let names = || (0..LARGE_KEYS).map(|n| format!("large{n}")).collect::<Vec<_>>().join(",");
        let one = |n: usize| match habit {
            Habit::Get | Habit::ReadSlowly | Habit::ComeAndGo => "GET hot0\n".to_owned(),
            Habit::GetRemote => "GET hot1\n".to_owned(),
            Habit::SetNew => format!("SET n{at}-{serial}-{n}:1\n"),
            Habit::SetSame => format!("SET n{}-{serial}-{n}:1\n", at % 50),
            Habit::SetExpiring => {
                let words = ["SET", &format!("e{at}-{serial}-{n}"), "1", "PX", "20"].map(bulk).concat();
                format!("*5\r\n{words}")
            }
            Habit::SetAndDelete if n.is_multiple_of(2) => format!("SET d{at}-{serial}-{n}:1\n"),
            Habit::SetAndDelete => format!("DEL d{at}-{serial}-{}\n", n - 1),
            Habit::SetLarge => {
                let value = (serial % 10).to_string().repeat(RECEIVED_BYTES);
                let words = ["SET", &format!("u{at}"), &value].map(bulk).concat();
                format!("*3\r\n{words}")
            }
            Habit::GetLarge | Habit::Stall => format!("GET {}\n", names()),
            Habit::GetShared => "GET shared\n".to_owned(),
            Habit::Dump => "REQUEST bloomfilter\n".to_owned(),
        };
        ((0..wanted).map(one).collect::<String>().into_bytes(), wanted)
    }
}

/// An argument in RESP.
fn bulk(word: &str) -> String {
    format!("${}\r\n{word}\r\n", word.len())
}

impl World {
    fn load(&mut self) -> &mut Load {
        self.load.as_mut().unwrap()
    }

    /// Runs a world under load for so much virtual time.
    pub fn live_under_load(&mut self, span: u64) {
        let end = self.net.now + 60_000 * MS;
        while let Some(missing) = self.load_misses() {
            assert!(self.net.now < end, "not linked: {missing}");
            self.run_until(self.net.now + 20 * MS);
        }
        self.prepare();
        for at in 0..self.load().clients.len() {
            // Not all in one moment.
            let soon = self.net.now + at as u64 % 1_000 * US;
            self.agenda.put(soon, Event::Client(at));
        }
        self.load().warm_at = self.net.now + span / 2;
        self.net.longest_unread = 0;
        if self.load().scenario.breaks {
            self.break_links(span);
        }
        self.run_until(self.net.now + span);
        self.load().is_ending = true;
        self.finish_load();
    }

    /// Breaks all links, and waits until they are made again. A FLUSHALL MESH in between leaves a floor, below which the
    /// other nodes drop their keys afterwards.
    fn break_links(&mut self, span: u64) {
        self.run_until(self.net.now + span / 2);
        self.load().judged_from = None;
        let sockets = self.hosts[0].sockets.values().map(|socket| socket.port);
        let links: Vec<Port> =
            sockets.filter(|port| matches!(self.net.party(port.other()), Party::Host(_))).collect();
        links.into_iter().for_each(|port| self.break_wire(port.wire, port.side));
        // Both ends have noticed.
        self.run_until(self.net.now + 6 * MS);
        self.call_host(0, "FLUSHALL MESH\n");
        let end = self.net.now + 60_000 * MS;
        while let Some(missing) = self.load_misses() {
            assert!(self.net.now < end, "not linked again: {missing}");
            self.run_until(self.net.now + MS);
        }
        // A link that has just been made has more to read, the resync, than clients can cause.
        self.net.longest_unread = 0;
        let load = self.load();
        load.judged_from = Some(load.probes.len());
    }

    fn load_misses(&self) -> Option<String> {
        let enough = |at: usize| if at == 0 { self.members - 1 } else { 1 };
        (0..self.members).find_map(|at| {
            let host = &self.hosts[at];
            let Some(node) = &host.node else { return Some(format!("host {at} is down")) };
            let now = host.now(self.net.now);
            if boundary::linked(node, now).len() < enough(at) {
                return Some(format!("host {at} has too few links"));
            }
            boundary::unknown_filter(node, now)
                .map(|addr| format!("host {at} does not know the filter of {addr}"))
        })
    }

    /// Sets the keys that crowds request.
    fn prepare(&mut self) {
        let large = "x".repeat(LARGE_BYTES);
        let wants_large = self.load().scenario.crowds.iter().any(|crowd| crowd.habit == Habit::GetLarge);
        let larges = (0..LARGE_KEYS).filter(|_| wants_large).map(|n| (0, format!("SET large{n}:{large}\n")));
        let wants_shared = self.load().scenario.crowds.iter().any(|crowd| crowd.habit == Habit::GetShared);
        let shared = wants_shared.then(|| (1, format!("SET shared:{}\n", "x".repeat(SHARED_BYTES))));
        let hot = [(0, "SET hot0:value\n".to_owned()), (1, "SET hot1:value\n".to_owned())];
        hot.into_iter().chain(larges).chain(shared).for_each(|(host, request)| {
            assert!(self.call_host(host, &request).starts_with(":SAT "));
        });
        self.run_until(self.net.now + 100 * MS);
    }

    /// The reply to a request that takes no time, of a client that has no place in the network.
    fn call_host(&mut self, host: usize, request: &str) -> String {
        let now = self.hosts[host].now(self.net.now);
        let node = self.hosts[host].node.as_mut().unwrap();
        let key = node.accept(now, "127.0.0.1:9".parse().unwrap()).unwrap();
        node.received(now, key, request.as_bytes());
        // A long reply is written in steps; its beginning is enough.
        while node.outbound_bytes(key) == 0 && node.step(now, Class::Clients) {}
        let reply = node.outbound(key).collect::<Vec<_>>().concat();
        node.lost(now, key, &"done");
        self.hosts[host].spent = node.spent();
        self.hosts[host].gone.push(key);
        self.what = "a request beside the load";
        self.after_call(host);
        self.wake(host, self.net.now);
        String::from_utf8(reply).unwrap()
    }

    /// The next step of a client.
    pub fn load_step(&mut self, at: usize) {
        if self.load().is_ending {
            return;
        }
        let client = &self.load().clients[at];
        let Some(port) = client.port else { return self.load_dials(at) };
        if !client.is_up {
            return;
        }
        match client.role {
            Role::Crowd(Habit::ReadSlowly, _) => {
                self.load_takes(at, port, 4_096);
                self.agenda.put(self.net.now + 5 * MS, Event::Client(at));
            }
            Role::Pinger | Role::Writer | Role::Reader if client.pending > 0 => return,
            Role::Crowd(..) | Role::Pinger | Role::Writer | Role::Reader => {}
        }
        let (bytes, count) = self.load().request(at);
        let now = self.net.now;
        let client = &mut self.load().clients[at];
        client.pending += count;
        client.sent_at = now;
        if count > 0 {
            self.net.write(&mut self.agenda, port, &bytes);
        } else if client.role == Role::Reader {
            self.agenda.put(now + MS, Event::Client(at));
        }
    }

    fn load_dials(&mut self, at: usize) {
        let host = self.load().clients[at].host;
        let port = self.net.dial(&mut self.agenda, Party::Client(at), host, None);
        self.load().clients[at].port = Some(port);
    }

    pub fn load_connected(&mut self, at: usize) {
        self.load().clients[at].is_up = true;
        self.load_step(at);
    }

    pub fn load_reset(&mut self, at: usize) {
        let client = &mut self.load().clients[at];
        assert!(client.role == Role::Crowd(Habit::Stall, 4), "{client:?} was reset");
        (client.port, client.is_up) = (None, false);
    }

    /// Handles the arrival of bytes at a client.
    pub fn load_read(&mut self, at: usize, port: Port) {
        match self.load().clients[at].role {
            Role::Crowd(Habit::Stall | Habit::ReadSlowly, _) => {}
            Role::Crowd(..) | Role::Pinger | Role::Writer | Role::Reader => {
                self.load_takes(at, port, usize::MAX)
            }
        }
    }

    fn load_takes(&mut self, at: usize, port: Port, most: usize) {
        let mut bytes = std::mem::take(&mut self.scratch);
        while self.net.read(&mut self.agenda, port, most, &mut bytes) == Read::Bytes {
            let client = &mut self.load().clients[at];
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            client.pending -= lines;
            if matches!(client.role, Role::Writer | Role::Reader) {
                client.reply.extend_from_slice(&bytes);
            }
            if lines > 0 {
                self.load_replied(at);
            }
            if most < usize::MAX {
                break;
            }
        }
        self.scratch = bytes;
    }

    /// A reply is complete.
    fn load_replied(&mut self, at: usize) {
        let now = self.net.now;
        let load = self.load();
        let client = &mut load.clients[at];
        let (sent_at, reply) = (client.sent_at, std::mem::take(&mut client.reply));
        let later = match client.role {
            Role::Pinger => {
                // Those before wait for the first turns of all, in which none is known to be deep.
                let is_warm = |at: u64| at >= load.warm_at;
                if load.pings.last().is_some_and(|(at, _)| !is_warm(*at)) {
                    load.pings.clear();
                }
                load.pings.push((sent_at, now - sent_at));
                MS
            }
            Role::Writer => {
                assert_eq!(reply, b"+OK\r\n");
                let probe = &mut load.probes[client.probed];
                probe.set_at = Some(now);
                probe.gone_at = client.serial.is_multiple_of(3).then_some(now + LIFE_MS * MS);
                PROBE_EVERY
            }
            Role::Reader => {
                load.judge(at, sent_at, reply.starts_with(b":GOT p"));
                MS / 2
            }
            Role::Crowd(Habit::ComeAndGo, _) => {
                let port = client.port.take();
                client.is_up = false;
                port.into_iter().for_each(|port| self.net.close(&mut self.agenda, port));
                MS
            }
            Role::Crowd(..) => 0,
        };
        match later {
            0 => self.load_step(at),
            later => self.agenda.put(now + later, Event::Client(at)),
        }
    }

    /// Samples some queues of a node.
    pub fn sample_backlogs(&mut self, at: usize, is_sampled: fn(&str) -> bool) {
        let host = &self.hosts[at];
        let (Some(load), Some(node)) = (&mut self.load, &host.node) else { return };
        if load.probes.is_empty() {
            return;
        }
        // What a peer has missed while its link was broken is bounded by the changelog.
        let is_linked = load.judged_from.is_some();
        let backlogs = node.backlogs(host.now(self.net.now));
        for (name, backlog) in
            backlogs.filter(|(name, _)| is_sampled(name) && (is_linked || *name != "digests"))
        {
            let most = load.backlogs.entry(name).or_default();
            *most = backlog.max(*most);
        }
    }

    /// Checks the whole run.
    fn finish_load(&mut self) {
        for at in 0..self.members {
            let host = &self.hosts[at];
            let node = host.node.as_ref().unwrap();
            node.audit();
            let silent = boundary::silent(node, host.now(self.net.now));
            assert!(silent.is_empty(), "host {at} does not query {silent:?}");
            assert_eq!(node.stats().circuits_opened, 0, "host {at}");
        }
        let stats = self.call_host(0, "STATS\n");
        let stat = |name: &str| {
            let field = stats.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix(':'));
            field.unwrap().parse::<u64>().unwrap()
        };
        assert!(stat("buffers_bytes") <= stat("buffers_max"), "{stats}");
        let load = self.load.as_mut().unwrap();
        load.pings.sort_unstable_by_key(|(_, took)| *took);
        let name = load.scenario.name;
        let ping = |share: usize| load.pings[load.pings.len() * share / 100].1 / 1_000;
        let unread = self.net.longest_unread;
        let has_long = load.scenario.crowds.iter().any(|crowd| crowd.habit == Habit::GetShared);
        let is_slow = self.plan.key_nanos > KEY_NANOS;
        let is_hard = has_long && is_slow || load.scenario.slowness > 1;
        let within = if is_hard { READ_WITHIN_AT_MOST } else { READ_WITHIN };
        assert!(unread < within, "{name}: bytes of a link were read {unread} ns after they had come");
        println!(
            "{name}: found {}, not yet {} (last after {} us), PING {} and {} us, links read after {} us, {} keys in a call, {:?}",
            load.found,
            load.early,
            load.latest_miss / 1_000,
            ping(50),
            ping(99),
            unread / 1_000,
            load.worst_call,
            load.backlogs
        );
        assert!(load.found > 10 && load.probes.len() > 10, "{name}: nothing was looked for");
        // Between nodes that are both filled, keys were found while each filter doubled three times and more.
        let is_fast = load.scenario.slowness == 1;
        for crowd in load.scenario.crowds.iter().filter(|crowd| crowd.fills() && is_fast) {
            let node = self.hosts[crowd.host].node.as_ref().unwrap();
            assert!(
                node.own_filter().size().log2() >= FILTER_LOG2_MIN + 3,
                "{name}: the filter did not double"
            );
        }
        for (share, most) in [50, 99].into_iter().zip(load.scenario.ping_ms) {
            let most = most * self.plan.key_nanos / KEY_NANOS;
            assert!(ping(share) <= most * 1_000, "{name}: {share} % of PINGs take {} us", ping(share));
        }
        for (queue, most) in BACKLOGS {
            let waited = load.backlogs[queue];
            assert!(waited <= most, "{name}: {waited} in the queue of {queue}, where {most} may be");
        }
        assert_eq!(load.backlogs.len(), BACKLOGS.len(), "{name}: a queue without a bound");
    }
}

impl Load {
    /// A reader has a reply about a probe's key.
    fn judge(&mut self, at: usize, sent_at: u64, is_found: bool) {
        let reader = &self.clients[at];
        if self.judged_from.is_none_or(|first| reader.probed < first) {
            return;
        }
        let Probe { host, set_at: Some(set_at), gone_at } = self.probes[reader.probed] else { return };
        let name = self.scenario.name;
        let since = sent_at.saturating_sub(set_at);
        if let Some(gone_at) = gone_at {
            assert!(
                !is_found || sent_at <= gone_at,
                "{name}: a key is served {} ns after its end",
                sent_at - gone_at
            );
            return;
        }
        // Only the first node is linked to all.
        if host != reader.host && host != 0 && reader.host != 0 {
            return;
        }
        if is_found {
            self.found += 1;
            return;
        }
        self.early += 1;
        self.latest_miss = self.latest_miss.max(since);
        let is_here = host == reader.host && sent_at >= set_at;
        assert!(
            !is_here && since < FOUND_WITHIN,
            "{name}: p{} of host {host} is not found on host {} {since} ns after its SET",
            reader.probed,
            reader.host
        );
    }
}
