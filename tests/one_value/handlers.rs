//! The handlers of the model against those of the node: a real node and the model's X get the same input, step by step,
//! and after each must have the same version of the key and have sent the same. The peer, Y, sends arbitrary frames.
//!
//! Versions of the model are small numbers, those of the node hybrid clocks: they are mapped one to one in equal order.

use super::kit::peer::{Face, Link, Received, World, beat, deltas, executed, head, ms, remote_reply};
use super::model::Step;
use super::rules::Rule;
use super::scenarios::Scenario;
use super::state::{Body, Change, Frame, Verb, Version, View};
use olivia::base::rng::Rng;
use olivia::config::Config;
use olivia::filter::bloom::Bloom;
use olivia::filter::size::Size;
use olivia::wire::encoder::Protocol;
use olivia::wire::frame::{self, Arguments, Hints, KeyState, RemoteCommand, Wanted};
use std::collections::BTreeMap;

const X: u8 = 0;
const Y: u8 = 1;
/// The key of a history: the home node of the first is X, of the second Y.
const KEYS: [&str; 2] = ["far", "away"];

/// Histories, and steps of each: with more there were more entries than a changelog of the model has.
const HISTORIES: u64 = 400;
const STEPS: usize = 24;

/// The wall clock of the node at first, as a version.
const NOW: u64 = 1_700_000_000_000 << 20;

/// A version that the model gave at first, and its counterpart: DELETE may be as old.
const BEGIN: (Version, u64) = (10, NOW - 1);

const WORLD: Scenario = Scenario {
    nodes: 2,
    holder: None,
    answers_wait: false,
    reads_together: false,
    operations: &[],
    places: &[],
    unchecked: &[],
};

struct Pair {
    key: &'static str,
    /// The node that creates the key.
    home_node: u8,
    world: World,
    link: Link,
    step: Step,
    /// By the version of the model, that of the node.
    versions: BTreeMap<Version, u64>,
    additions: u64,
    /// The replies to the client of the node.
    replies: String,
    rng: Rng,
}

const fn state_of(is_held: bool) -> KeyState {
    if is_held { KeyState::Held } else { KeyState::Gone }
}

/// A frame about the key: its name, version and state.
type KeyFrame<V> = (&'static str, Option<V>, Option<KeyState>);

const ANSWERS: [&str; 6] = ["DELETED", "EXECUTED", "NOTHOLDER", "FLOORED", "VALUE", "NONE"];

fn frame_of_node(received: &Received) -> Option<KeyFrame<u64>> {
    if let Received::Invalidate { version, state, .. } = received {
        Some(("INVALIDATE", Some(*version), Some(*state)))
    } else if let Received::Newer { version, state, .. } = received {
        Some(("NEWER", Some(*version), Some(*state)))
    } else if let Received::Delete { version, .. } = received {
        Some(("DELETE", Some(*version), None))
    } else if let Received::Deleted { version, .. } = received {
        Some(("DELETED", Some(*version), None))
    } else if let Received::Executed { version, .. } = received {
        Some(("EXECUTED", Some(*version), None))
    } else if let Received::NotHolder { moved_version, .. } = received {
        Some(("NOTHOLDER", Some(*moved_version).filter(|version| *version > 0), None))
    } else if let Received::None { moved_version, .. } = received {
        Some(("NONE", Some(*moved_version).filter(|version| *version > 0), None))
    } else if let Received::Value { .. } = received {
        Some(("VALUE", None, None))
    } else if let Received::Get { .. } = received {
        Some(("GET", None, None))
    } else if let Received::Execute { create, .. } = received {
        Some((if *create { "EXECUTE, create" } else { "EXECUTE" }, None, None))
    } else if let Received::Floor { request: 1.., version } = received {
        Some(("FLOOR", Some(*version), None))
    } else if let Received::Floored { .. } = received {
        Some(("FLOORED", None, None))
    } else {
        None
    }
}

/// Converts a frame of the model; the node also names its tombstone as the moved version.
fn frame_of_model(body: Body, tombstone: Option<Version>) -> Option<KeyFrame<Version>> {
    let known = |moved: Version| Some(moved).max(tombstone).filter(|version| *version > 0);
    if let Body::Invalidate { version, is_held } = body {
        Some(("INVALIDATE", Some(version), Some(state_of(is_held))))
    } else if let Body::Newer { version, is_held } = body {
        Some(("NEWER", Some(version), Some(state_of(is_held))))
    } else if let Body::Delete { version, .. } = body {
        Some(("DELETE", Some(version), None))
    } else if let Body::Deleted { version, .. } = body {
        Some(("DELETED", Some(version), None))
    } else if let Body::Executed { version, .. } = body {
        Some(("EXECUTED", Some(version), None))
    } else if let Body::NotHolder { moved, .. } = body {
        Some(("NOTHOLDER", known(moved), None))
    } else if let Body::NotFound { moved, .. } = body {
        Some(("NONE", known(moved), None))
    } else if let Body::Found { .. } = body {
        Some(("VALUE", None, None))
    } else if let Body::Lookup { .. } = body {
        Some(("GET", None, None))
    } else if let Body::Execute { create, .. } = body {
        Some((if create { "EXECUTE, create" } else { "EXECUTE" }, None, None))
    } else if let Body::Floor { version, .. } = body {
        Some(("FLOOR", Some(version), None))
    } else if let Body::Floored { .. } = body {
        Some(("FLOORED", None, None))
    } else {
        None
    }
}

/// The peer. Of equal versions its own stays.
fn face() -> Face {
    Face { node: [0xFF; 16], ..Face::new(1) }
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut world = World::new(Config::default());
        // Floors remove its key.
        world.last = "0:PONG 1\n";
        let mut link = world.known(&face());
        world.driver.pass(ms(20));
        world.frames(&mut link);
        // Nodes do not follow this rule.
        let mut step = WORLD.step(WORLD.start(), Some(Rule::ValueSetsMoved));
        step.member(X).clock = BEGIN.0;
        let versions = BTreeMap::from([BEGIN]);
        let home_node = [X, Y][usize::from(seed % 2 == 1)];
        let key = KEYS[usize::from(home_node)];
        Self {
            key,
            home_node,
            world,
            link,
            step,
            versions,
            additions: 0,
            replies: String::new(),
            rng: Rng::new(seed),
        }
    }

    /// These two are one version.
    fn pair(&mut self, model: Version, node: u64) {
        let old = self.versions.insert(model, node);
        assert!(old.is_none_or(|old| old == node), "version {model} is {old:?} and {node}");
        assert!(self.versions.values().is_sorted(), "another order: {:?}", self.versions);
    }

    /// A version for the peer to send: one that there was, one above all, or one below all.
    fn draw_version(&mut self) -> Version {
        match self.rng.below(4) {
            0 => self.version_above_all(),
            1 => *self.versions.first_key_value().unwrap().0,
            _ => {
                let at = usize::try_from(self.rng.below(self.versions.len() as u64)).unwrap();
                *self.versions.keys().nth(at).unwrap()
            }
        }
    }

    fn version_above_all(&mut self) -> Version {
        let (&last, &highest) = self.versions.last_key_value().unwrap();
        let next = last.max(self.step.state.members[X].clock) + 1;
        self.pair(next, highest.max(NOW) + 1_000);
        next
    }

    /// The peer sends this to both.
    fn deliver(&mut self, body: Body, request: u32, version: Version, real: &frame::Body<'_>) {
        assert!(self.step.state.links[Y][X].push(Frame { clock: version, body }));
        self.step.deliver(Y, X, 0);
        let mut bytes = Vec::new();
        frame::put(&mut bytes, self.versions[&version], request, real);
        self.world.driver.send(self.link.conn, bytes);
    }

    /// The peer adds the key to its filter.
    fn add(&mut self) {
        let log = &mut self.step.member(Y).log;
        let at = log.len;
        log.push(Change::Addition);
        let body = Body::Changes { from: at, to: at + 1, image: true };
        assert!(self.step.state.links[Y][X].push(Frame { clock: 0, body }));
        self.step.deliver(Y, X, 0);
        let hash = self.world.hash(self.key);
        self.world.driver.send(self.link.conn, deltas(self.additions, &[hash]));
        self.additions += 1;
    }

    fn delete(&mut self) -> String {
        self.step.open(X, Verb::Del);
        self.world.begin(&format!("DEL {}\n", self.key));
        let Some(request) = self.compare("DEL, before its answer") else { return "DEL".to_owned() };
        // The peer had the key, and stamps above, or had not.
        let queried = self.step.state.members[X].tombstone.unwrap();
        let drawn = self.draw_version();
        let version = queried.max(drawn);
        let serial = self.step.state.members[X].serial;
        let deleted = Body::Deleted { serial, version, hints: 0 };
        let hash = self.world.hash(self.key);
        let real = frame::Body::Deleted {
            hash,
            version: self.versions[&version],
            had: version > queried,
            hints: Hints::default(),
        };
        self.deliver(deleted, request, version, &real);
        format!("DEL, answered with {version}")
    }

    fn flush_all(&mut self) -> String {
        self.step.open(X, Verb::Flush);
        self.world.begin("FLUSHALL MESH\n");
        let request = self.compare("FLUSHALL MESH, before its answer").unwrap();
        let version = self.step.state.members[X].floor;
        let serial = self.step.state.members[X].serial;
        let real = frame::Body::Floored(self.versions[&version]);
        self.deliver(Body::Floored { serial }, request, version, &real);
        "FLUSHALL MESH".to_owned()
    }

    /// The peer looks the key up.
    fn look_up(&mut self) -> String {
        let real = frame::Body::Get { key: self.key.as_bytes(), wanted: Wanted::Value };
        self.deliver(Body::Lookup { serial: 1 }, 6, BEGIN.0, &real);
        "GET of Y".to_owned()
    }

    /// A client of the node requests the key, and the peer answers whatever is queried of it.
    fn request(&mut self, verb: Verb, name: &str, done: &str, nothing: &str) -> String {
        self.replies.clear();
        self.step.open(X, verb);
        let mut text = format!("{name} {}{}", self.key, if verb == Verb::Get { "" } else { ":v" });
        self.world.begin(&format!("{text}\n"));
        let mut is_found = self.step.holds(X);
        while let Some(number) = self.compare(&text) {
            let version = self.draw_version();
            let (serial, hash) = (self.step.state.members[X].serial, self.world.hash(self.key));
            let real = self.versions[&version];
            is_found = self.rng.one_in(2);
            text += &format!(", answered with {version}, found: {is_found}");
            let hints = Hints::default();
            match (verb, is_found) {
                (Verb::Get, true) => {
                    // What is older than the floor is not taken.
                    is_found =
                        self.step.state.members[X].request.is_some_and(|request| version >= request.floor);
                    let answer = frame::Body::Value { hash, version: real, left_ms: None, value: b"v" };
                    self.deliver(Body::Found { serial, version }, number, version, &answer);
                }
                (Verb::Get, false) => {
                    let answer = frame::Body::None { hash, moved_version: real, hints };
                    self.deliver(
                        Body::NotFound { serial, moved: version, hints: 0 },
                        number,
                        version,
                        &answer,
                    );
                }
                (_, true) => {
                    // Its addition was sent before.
                    if self.step.view(X, Y) != View::Claims {
                        self.add();
                        self.compare("an addition of Y");
                    }
                    let result = remote_reply(false, self.key);
                    self.deliver(
                        Body::Executed { serial, version },
                        number,
                        version,
                        &executed(hash, real, &result),
                    );
                }
                (_, false) => {
                    let answer = frame::Body::NotHolder { hash, moved_version: real, hints };
                    self.deliver(
                        Body::NotHolder { serial, moved: version, hints: 0 },
                        number,
                        version,
                        &answer,
                    );
                }
            }
        }
        assert_eq!(self.step.state.members[X].request, None, "the node waits for nothing after {text}");
        let expected = if is_found { done } else { nothing };
        assert!(self.replies.starts_with(expected), "{} after {text}, not {expected}", self.replies);
        text
    }

    /// The peer has a command carried out that depends on the old value: SET NX.
    fn execute(&mut self) -> String {
        let create = self.home_node == X && self.rng.one_in(2);
        let mut arguments = Vec::new();
        let real = frame::Body::Execute(RemoteCommand {
            name: b"SET",
            arguments: Arguments::write(&mut arguments, [self.key, "v", "NX"].map(str::as_bytes).into_iter()),
            create,
            deadline: NOW << 1,
            refused: Hints::default(),
            protocol: Protocol::Resp2,
        });
        let body = Body::Execute { serial: 1, verb: Verb::Nx, increment: 0, create, tried: 0 };
        self.deliver(body, 8, BEGIN.0, &real);
        format!("EXECUTE of Y, create: {create}")
    }

    /// The link breaks and is made again. The peer sends a snapshot of a filter that claims the key or does not.
    fn resync(&mut self) -> String {
        // DEL of the node also goes where the key has moved, though no filter claims it; that of the model does not.
        let has_moved = self.step.state.members[X].moved.is_some_and(|moved| moved.holder == Some(Y));
        let claims = has_moved || self.rng.one_in(2);
        self.step.member(Y).bit = claims;
        self.step.part(X, Y);
        self.step.meet(X, Y, false);
        self.step.deliver(Y, X, 0);
        self.step.resync(X, Y);
        self.world.driver.lose(self.link.conn);
        self.link = self.world.dial(&face());
        let mut filter = Bloom::new(Size::from_log2(1).unwrap());
        if claims {
            filter.insert(self.world.hash(self.key));
        }
        self.world.publish(&mut self.link, head(1, self.additions), 1, filter.words());
        // It queried to resume, and waits for the end of the changelog.
        let end = beat(head(1, self.additions), true);
        self.world.send(&self.link, &[(0, end)]);
        format!("a resync, Y claims: {claims}")
    }

    /// Applies a random action to both; returns its description.
    fn act(&mut self) -> String {
        // A holder's addition arrives before its notice.
        let is_held = self.rng.one_in(2) && self.step.view(X, Y) == View::Claims;
        let state = state_of(is_held);
        let text = match self.rng.below(15) {
            0 | 1 => {
                self.step.set(X);
                self.world.begin(&format!("SET {}:v\n", self.key));
                "SET".to_owned()
            }
            2 => self.delete(),
            3 if self.step.holds(X) => {
                self.step.touch(X);
                self.world.begin(&format!("EXPIRE {}:1000\n", self.key));
                "EXPIRE".to_owned()
            }
            3 | 4 if self.step.state.members[Y].log.len < 8 => {
                self.add();
                "an addition of Y".to_owned()
            }
            kind @ 3..=5 => {
                let version = self.draw_version();
                let real = self.versions[&version];
                let key = self.key.as_bytes();
                if kind == 5 {
                    let real = frame::Body::Invalidate { key, version: real, state };
                    self.deliver(Body::Invalidate { version, is_held }, 0, version, &real);
                } else {
                    let real = frame::Body::Newer { key, version: real, state };
                    self.deliver(Body::Newer { version, is_held }, 0, version, &real);
                }
                format!("a notice of Y, {version} {state:?}")
            }
            7 => self.flush_all(),
            8 => {
                // The node drops all keys, the model those up to the floor.
                let version = self.version_above_all();
                let real = frame::Body::Floor(self.versions[&version]);
                self.deliver(Body::Floor { serial: 1, version }, 9, version, &real);
                format!("FLOOR {version} of Y")
            }
            9 | 10 => self.execute(),
            11 => self.resync(),
            12 => self.look_up(),
            13 => {
                let found = format!(":GOT {}:v\n", self.key);
                self.request(Verb::Get, "GET", &found, ":GOT \n")
            }
            14 if self.home_node == Y && self.step.state.members[Y].log.len < 8 => {
                let done = format!(":SATNX {}\n", self.key);
                // Here there is a value already, or Y refuses.
                let is_here = self.step.holds(X);
                let (done, nothing) =
                    if is_here { (":SATNX \n", "") } else { (&*done, ":ERR nothing was done") };
                self.request(Verb::Nx, "SETNX", done, nothing)
            }
            _ => {
                let version = self.draw_version();
                let real = frame::Body::Delete { key: self.key.as_bytes(), version: self.versions[&version] };
                self.deliver(Body::Delete { serial: 1, version }, 7, version, &real);
                format!("DELETE {version} of Y")
            }
        };
        self.compare(&text);
        text
    }

    /// Compares what both have, and have sent since the last time. Returns the number of a query among it.
    fn compare(&mut self, text: &str) -> Option<u32> {
        self.world.driver.pass(ms(1));
        self.replies += &self.world.replies();
        let own = self.step.state.members[X];
        let value = own.value.map(|value| (value.version, true));
        let tombstone = own.tombstone.map(|version| (version, false));
        let model = tombstone.filter(|(gone, _)| value.is_none_or(|(held, _)| *gone >= held)).or(value);
        let node = self.world.driver.node.version_of(self.world.driver.now, self.key.as_bytes());
        assert_eq!(model.map(|(_, is_held)| is_held), node.map(|(_, is_held)| is_held), "after {text}");
        if let (Some((model, _)), Some((node, _))) = (model, node) {
            self.pair(model, node);
        }
        let mut query = None;
        let mut sent = Vec::new();
        for received in self.world.frames(&mut self.link) {
            if let Received::Delete { request, .. }
            | Received::Floor { request: request @ 1.., .. }
            | Received::Get { request, .. }
            | Received::Execute { request, .. } = received
            {
                query = Some(request);
            }
            sent.extend(frame_of_node(&received));
        }
        let frames = std::mem::take(&mut self.step.state.links[X][Y]);
        let frames = frames.as_slice().iter();
        let mut expected: Vec<_> =
            frames.filter_map(|Frame { body, .. }| frame_of_model(*body, own.tombstone)).collect();
        // An answer is of another class than notices, and may overtake them.
        sent.sort_by_key(|(name, ..)| ANSWERS.contains(name));
        expected.sort_by_key(|(name, ..)| ANSWERS.contains(name));
        let shown: Vec<_> =
            sent.iter().map(|(name, version, state)| (*name, version.is_some(), *state)).collect();
        let wanted: Vec<_> =
            expected.iter().map(|(name, version, state)| (*name, version.is_some(), *state)).collect();
        assert_eq!(shown, wanted, "sent after {text}");
        for ((_, node, _), (_, model, _)) in sent.into_iter().zip(expected) {
            if let (Some(node), Some(model)) = (node, model) {
                self.pair(model, node);
            }
        }
        query
    }
}

#[test]
fn node_does_what_the_model_does_step_by_step() {
    for seed in 0..HISTORIES {
        let mut pair = Pair::new(seed);
        let mut history = Vec::new();
        for _ in 0..STEPS {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.act()));
            match outcome {
                Ok(text) => history.push(text),
                Err(_) => panic!("history {seed}: {}", history.join("; ")),
            }
        }
    }
}
