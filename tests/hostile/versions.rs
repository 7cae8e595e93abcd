//! Notices of versions, true and forged: the value that stays, the values that a lookup may return, and the lifetime of
//! tombstones.

use crate::kit::peer::{
    Face, Link, Received, WITHOUT_OWN, World, bytes_of, deltas, head, heartbeat, known, linked, ms,
};
use olivia::config::Config;
use olivia::filter::bloom::Bloom;
use olivia::filter::size::Size;
use olivia::limits::Limits;
use olivia::wire::frame::{Body, Hints, KeyState, put_discarded};

/// A version that a node gives so many milliseconds after the beginning of each of these tests.
const fn version(after_ms: u64) -> u64 {
    (1_700_000_000_000 + after_ms) << 20
}

fn invalidate(key: &[u8], version: u64, state: KeyState) -> (u32, Body<'_>) {
    (0, Body::Invalidate { key, version, state })
}

fn value(world: &World, key: &str, version: u64) -> Body<'static> {
    Body::Value { hash: world.hash(key), version, left_ms: None, value: b"v" }
}

/// Answers the query for `far` that has come with a value of this version.
fn answer_far(world: &mut World, link: &mut Link, version: u64) {
    let query = world.queries(link)[0];
    let value = value(world, "far", version);
    world.send(link, &[(query, value)]);
}

/// The notices among what has come, and whether they came after additions.
fn notices(world: &mut World, link: &mut Link) -> Vec<(bool, String, u64, KeyState, bool)> {
    let mut has_additions = false;
    let mut found = Vec::new();
    for received in world.frames(link) {
        has_additions |= received == Received::Changelog;
        let is_newer = matches!(received, Received::Newer { .. });
        if let Received::Invalidate { key, version, state } | Received::Newer { key, version, state } =
            received
        {
            found.push((has_additions, String::from_utf8(key).unwrap(), version, state, is_newer));
        }
    }
    found
}

/// A peer that reads the changelog of the node and whose filter claims `far`.
fn reading(world: &mut World, face: &Face) -> Link {
    let mut link = world.known(face);
    let far = world.hash("far");
    world.driver.send(link.conn, deltas(0, &[far]));
    world.send(&link, &[(0, Body::Resync(None))]);
    world.driver.pass(ms(20));
    world.frames(&mut link);
    link
}

#[test]
fn write_is_reported_to_claimants_behind_its_addition_and_to_nobody_else() {
    let mut world = World::new(Config::default());
    let mut link = reading(&mut world, &Face::new(1));
    let mut other = world.known(&Face::new(2));
    world.frames(&mut other);
    world.call("SET near:1,far:2\n");
    let found = notices(&mut world, &mut link);
    assert_eq!(found.len(), 1, "{found:?}");
    let (is_behind, key, _, state, is_answer) = &found[0];
    assert!(*is_behind && key == "far" && *state == KeyState::Held && !is_answer, "{found:?}");
    assert_eq!(notices(&mut world, &mut other), []);
    // Written again it is no addition, and reported again with a higher version.
    let before = found[0].2;
    world.call("SET far:3\n");
    let found = notices(&mut world, &mut link);
    assert!(found.len() == 1 && found[0].2 > before, "{found:?}");
    // A peer whose filter is unknown may hold any key.
    let mut unknown = world.linked(&Face::new(3));
    world.call("SET near:4\n");
    assert_eq!(notices(&mut world, &mut unknown).len(), 1);
    assert_eq!(world.stat("invalidations_sent"), 3);
}

#[test]
fn addition_of_a_key_that_is_held_or_deleted_here_is_reported_to_its_node() {
    let (mut world, _, mut link) = known();
    world.last = WITHOUT_OWN;
    let own = world.hash("own");
    world.driver.send(link.conn, deltas(0, &[own, 7]));
    let found = notices(&mut world, &mut link);
    assert!(found.len() == 1 && found[0].1 == "own" && found[0].3 == KeyState::Held, "{found:?}");
    // Its filter claims the key already: it is an addition all the same.
    world.driver.send(link.conn, deltas(2, &[own]));
    assert_eq!(notices(&mut world, &mut link).len(), 1);
    world.begin("DEL own\n");
    let frames = world.frames(&mut link);
    let Some(Received::Delete { request, version, .. }) =
        frames.iter().find(|frame| matches!(frame, Received::Delete { .. }))
    else {
        panic!("{frames:?}")
    };
    let deleted = Body::Deleted { hash: own, version: *version, had: true, hints: Hints::default() };
    world.send(&link, &[(*request, deleted)]);
    assert_eq!(world.replies(), ":DELETED own\n");
    world.driver.send(link.conn, deltas(3, &[own]));
    let found = notices(&mut world, &mut link);
    assert!(found.len() == 1 && found[0].1 == "own" && found[0].3 == KeyState::Gone, "{found:?}");
}

#[test]
fn addition_whose_notice_has_arrived_with_it_is_not_answered() {
    for (theirs, is_deleted, expected) in [
        (version(100), false, None),
        (version(0) - 1, false, Some(KeyState::Held)),
        (version(0) - 1, true, Some(KeyState::Gone)),
    ] {
        let (mut world, _, mut link) = known();
        if is_deleted {
            assert_eq!(world.call("DEL own\n"), ":DELETED own\n");
        }
        let mut bytes = deltas(0, &[world.hash("own")]);
        bytes.extend(bytes_of(&[invalidate(b"own", theirs, KeyState::Held)]));
        world.driver.send(link.conn, bytes);
        let found = notices(&mut world, &mut link);
        let answers: Vec<_> = found.iter().map(|(_, _, _, state, is_newer)| (*state, *is_newer)).collect();
        assert_eq!(answers, expected.map(|state| (state, true)).into_iter().collect::<Vec<_>>());
        if expected != Some(KeyState::Held) {
            world.last = WITHOUT_OWN;
        }
    }
}

#[test]
fn later_version_stays_and_an_equal_one_goes_by_the_node_id() {
    for (theirs, state, stays) in [
        (version(0) - 1, KeyState::Held, true),
        (version(100), KeyState::Held, false),
        (version(0) - 1, KeyState::Gone, true),
        (version(100), KeyState::Gone, false),
    ] {
        let (mut world, _, mut link) = known();
        world.send(&link, &[invalidate(b"own", theirs, state)]);
        let found = notices(&mut world, &mut link);
        if stays {
            assert!(found.len() == 1 && found[0].4 && found[0].2 > theirs, "{found:?}");
            assert_eq!((world.stat("invalidations_received"), world.stat("invalidations_sent")), (1, 1));
        } else {
            assert_eq!(found, []);
            assert_eq!(world.stat("values_dropped"), 1);
            world.last = WITHOUT_OWN;
        }
        // The answer to a notice is not answered.
        world.send(&link, &[(0, Body::Newer { key: b"own", version: 1, state })]);
        assert_eq!(notices(&mut world, &mut link), []);
    }
    for (node, stays) in [([0; 16], true), ([0xFF; 16], false)] {
        let mut world = World::new(Config::default());
        let face = Face { node, ..Face::new(1) };
        let mut link = world.linked(&face);
        // Its filter is unknown, so the write is reported.
        world.call("SET own:2\n");
        let ours = notices(&mut world, &mut link)[0].2;
        world.send(&link, &[invalidate(b"own", ours, KeyState::Held)]);
        assert_eq!(notices(&mut world, &mut link).len(), usize::from(stays));
        world.last = if stays { ":GOT own:2\n0:PONG 1\n" } else { WITHOUT_OWN };
    }
}

#[test]
fn version_beyond_the_bound_closes_the_link_and_is_not_obeyed() {
    let far = |world: &World| world.hash("far");
    let bad = version(1_500);
    for number in 0..6 {
        let (mut world, _, mut link) = known();
        let body = match number {
            0 => Body::Invalidate { key: b"own", version: bad, state: KeyState::Held },
            1 => Body::Newer { key: b"own", version: bad, state: KeyState::Gone },
            2 => Body::None { hash: far(&world), moved_version: bad, hints: Hints::NONE },
            3 => Body::Value { hash: far(&world), version: bad, left_ms: None, value: b"v" },
            4 => Body::Invalidate { key: b"own", version: u64::MAX, state: KeyState::Gone },
            _ => {
                let mut bytes = Vec::new();
                put_discarded(&mut bytes, 0, 0, bad, &[u64::MAX; 8]);
                world.driver.send(link.conn, bytes);
                Body::SnapEnd
            }
        };
        world.send(&link, &[(0, body)]);
        assert!(world.bye_reason(&mut link).starts_with("a version more than a second ahead"), "{number}");
        world.check();
        assert_eq!(world.call("SET own:1\n"), ":SAT own:1\n");
    }
}

#[test]
fn lookup_returns_no_value_older_than_a_version_that_the_node_received() {
    let mut world = World::new(Config::default());
    let mut old = reading(&mut world, &Face::new(1));
    let mut new = world.known(&Face::new(2));
    // While it is open, from a node that was not queried.
    world.begin("GET far\n");
    let query = world.queries(&mut old)[0];
    world.send(&new, &[invalidate(b"far", version(50), KeyState::Held)]);
    let answer = value(&world, "far", version(49));
    world.send(&old, &[(query, answer)]);
    assert_eq!(world.replies(), "", "an older value was taken");
    answer_far(&mut world, &mut new, version(50));
    assert_eq!(world.replies(), ":GOT far:v\n");
    // Before it was opened; the node that the hint names is queried first.
    world.begin("GET far\n");
    assert_eq!(world.queries(&mut old), []);
    let query = world.queries(&mut new)[0];
    world
        .send(&new, &[(query, Body::None { hash: world.hash("far"), moved_version: 0, hints: Hints::NONE })]);
    answer_far(&mut world, &mut old, version(49));
    assert_eq!(world.replies(), ":GOT \n");
    // A deletion is no less a version.
    world.send(&new, &[invalidate(b"far", version(60), KeyState::Gone)]);
    world.begin("GET far\n");
    answer_far(&mut world, &mut old, version(59));
    assert_eq!(world.replies(), ":GOT \n");
}

#[test]
fn notice_of_a_queried_peer_has_it_queried_again() {
    let mut world = World::new(Config::default());
    let mut link = reading(&mut world, &Face::new(1));
    world.begin("GET far\n");
    let query = world.queries(&mut link)[0];
    let answer = value(&world, "far", version(49));
    // The notice overtakes the answer.
    world.send(&link, &[invalidate(b"far", version(50), KeyState::Held), (query, answer)]);
    assert_eq!(world.replies(), "");
    answer_far(&mut world, &mut link, version(50));
    assert_eq!(world.replies(), ":GOT far:v\n");
}

#[test]
fn lookup_follows_hints_and_ends_however_many_there_are() {
    let mut world = World::new(Config::default());
    let faces = [Face::new(1), Face::new(2)];
    let mut first = reading(&mut world, &faces[0]);
    let mut second = world.known(&faces[1]);
    let hash = world.hash("far");
    world.begin("GET far\n");
    let query = world.queries(&mut first)[0];
    let hints = [[9; 16], faces[1].node];
    world.send(&first, &[(query, Body::None { hash, moved_version: 0, hints: Hints::new(&hints) })]);
    answer_far(&mut world, &mut second, version(1));
    assert_eq!(world.replies(), ":GOT far:v\n");
    // Each names the other one.
    world.begin("GET far\n");
    let mut queries = 0;
    while world.replies().is_empty() {
        for (link, other) in [(&mut first, &faces[1]), (&mut second, &faces[0])] {
            for query in world.queries(link) {
                queries += 1;
                let hints = [other.node];
                let none = Body::None { hash, moved_version: 0, hints: Hints::new(&hints) };
                world.send(link, &[(query, none)]);
            }
        }
        assert!(queries < 20, "two peers send a lookup to and fro");
    }
    assert_eq!(world.driver.node.lookups(), 0);
}

#[test]
fn node_names_those_that_hold_a_key_which_it_does_not() {
    let mut world = World::new(Config::default());
    let (holder, peer) = (Face::new(1), Face::new(2));
    let _holds = reading(&mut world, &holder);
    let link = world.known(&peer);
    world.driver.take_bytes(link.conn);
    world.send(&link, &[(5, Body::Get { key: b"far", wanted: olivia::wire::frame::Wanted::Value })]);
    let bytes = world.driver.take_bytes(link.conn);
    assert!(bytes.windows(16).any(|id| id == holder.node), "no hint in {bytes:?}");
    assert!(!bytes.windows(16).any(|id| id == peer.node));
}

#[test]
fn lookup_ends_when_its_key_is_written_here() {
    let mut world = World::new(Config::default());
    let mut link = reading(&mut world, &Face::new(1));
    world.begin("GET far\n");
    let query = world.queries(&mut link)[0];
    let client = world.driver.client();
    assert_eq!(world.driver.call(client, "SET far:mine\n"), ":SAT far:mine\n");
    assert_eq!(world.replies(), ":GOT far:mine\n");
    let answer = value(&world, "far", version(1));
    world.send(&link, &[(query, answer)]);
    assert_eq!(world.driver.node.stats().answers_late, 1);
    // Not when it is written by a later request of the same client.
    let mut world = World::new(Config::default());
    let mut link = reading(&mut world, &Face::new(1));
    world.begin("GET far\nSET near:1,far:mine\nGET far\n");
    answer_far(&mut world, &mut link, version(1));
    assert_eq!(world.replies(), ":GOT far:v\n:SAT near:1,far:mine\n:GOT far:mine\n");
    let mut world = World::new(Config::default());
    let mut link = reading(&mut world, &Face::new(1));
    let client = world.driver.client();
    let words = ["GET far", "MULTI", "SET far mine", "EXEC"].map(|request| {
        let words = request.split(' ').map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n{}", words.clone().count(), words.collect::<String>())
    });
    world.driver.send(client, words.concat());
    answer_far(&mut world, &mut link, version(1));
    let replies = world.driver.take(client);
    assert_eq!(replies, "$1\r\nv\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
}

#[test]
fn own_keys_are_reported_whenever_a_filter_becomes_known() {
    let (mut world, face, mut link) = linked();
    let claim = claiming(&world);
    // A snapshot: its keys are no additions.
    world.publish(&mut link, head(1, 0), 1, &claim);
    world.driver.pass(ms(5));
    assert_eq!(notices(&mut world, &mut link).len(), 1);
    // A new link that goes on where the old one broke.
    world.driver.lose(link.conn);
    let mut link = world.dial(&face);
    world.send(&link, &[heartbeat(1)]);
    world.driver.pass(ms(5));
    let found = notices(&mut world, &mut link);
    assert!(found.len() == 1 && found[0].1 == "own", "{found:?}");
    // A second snapshot.
    world.driver.send(link.conn, deltas(50, &[1]));
    world.publish(&mut link, head(1, 51), 1, &claim);
    world.driver.pass(ms(5));
    assert_eq!(notices(&mut world, &mut link).len(), 1);
}

/// The words of a filter of two blocks that claims `own`.
fn claiming(world: &World) -> Vec<u64> {
    let mut filter = Bloom::new(Size::from_log2(1).unwrap());
    filter.insert(world.hash("own"));
    filter.words().to_vec()
}

#[test]
fn tombstone_stays_until_everything_before_it_was_acknowledged_and_applied() {
    let (mut world, face, link) = known();
    world.last = WITHOUT_OWN;
    world.driver.pass(ms(5));
    assert_eq!(world.call("DEL own\n"), ":DELETED own\n");
    assert_eq!(world.stat("tombstones"), 1);
    let beat = |seq, ack| {
        (1, Body::Heartbeat { head: head(1, seq), wall_ms: 1_700_000_000_000, ack, is_answer: true })
    };
    // Additions of the peer are under way, which may bring the key back.
    world.send(&link, &[beat(1, u64::MAX)]);
    world.driver.pass(ms(5));
    assert_eq!(world.stat("tombstones"), 1);
    world.driver.send(link.conn, deltas(0, &[1]));
    world.send(&link, &[beat(1, version(0))]);
    world.driver.pass(ms(5));
    assert_eq!(world.stat("tombstones"), 1, "it acknowledges what was before");
    world.send(&link, &[beat(1, version(900))]);
    world.driver.pass(ms(5));
    assert_eq!(world.stat("tombstones"), 1, "notices that answer its additions may be under way");
    world.send(&link, &[beat(1, version(900))]);
    world.driver.pass(ms(5));
    assert_eq!(world.stat("tombstones"), 0);
    // A peer that is gone without a word may come back.
    world.driver.lose(link.conn);
    world.call("SET a:1\n");
    assert_eq!(world.call("DEL a\n"), ":DELETED a\n");
    world.driver.pass(ms(60_000));
    assert_eq!(world.stat("tombstones"), 1);
    // One that has ended does not.
    let link = world.known(&face);
    world.send(&link, &[(0, Body::Bye(b"the node is shutting down"))]);
    world.driver.pass(ms(60_000));
    assert_eq!(world.stat("tombstones"), 0);
}

/// The peer may have an older value, and the notice about it may be lost: one heartbeat does not prove that it has met
/// the version of the key (`AcknowledgedTwice` in tests/one_value/traces.txt).
#[test]
fn expired_key_leaves_a_tombstone_unless_two_heartbeats_acknowledged_it() {
    let (before, after) = (version(0), version(900));
    let cases: [(&[u64], u64); 4] =
        [(&[before, before], 1), (&[after], 1), (&[after, before], 1), (&[after, after], 0)];
    for (acks, tombstones) in cases {
        let (mut world, _, link) = known();
        world.driver.pass(ms(1));
        assert_eq!(world.call("SETEX k:v:1\n"), ":SATEX k:v:1\n");
        for ack in acks {
            world.driver.pass(ms(10));
            let beat =
                Body::Heartbeat { head: head(1, 0), wall_ms: 1_700_000_000_000, ack: *ack, is_answer: true };
            world.send(&link, &[(1, beat)]);
        }
        world.driver.pass(ms(1_100));
        assert_eq!((world.stat("keys"), world.stat("tombstones")), (1, tombstones), "{acks:?}");
    }
}

#[test]
fn deletions_that_are_too_many_are_sent_to_a_peer_that_comes_back() {
    let limits = Limits { tombstones_max: 2, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let face = Face::new(1);
    let link = world.known(&face);
    world.driver.lose(link.conn);
    world.call("SET a:1,b:1,c:1\n");
    world.call("DEL own,a,b,c\n");
    world.last = WITHOUT_OWN;
    assert_eq!((world.stat("tombstones"), world.stat("tombstones_lost")), (2, 0));
    let mut link = world.dial(&face);
    world.send(&link, &[heartbeat(1)]);
    world.driver.pass(ms(20));
    let came = world.frames(&mut link);
    assert_eq!(came.iter().filter(|frame| matches!(frame, Received::Discarded)).count(), 16, "{came:?}");
}

#[test]
fn key_that_matches_discarded_deletions_is_dropped_unless_it_is_newer() {
    for (version, keys) in [(version(100), 1), (version(0) - 1, 2)] {
        let (mut world, _, link) = known();
        world.call("SET other:1\n");
        let mut filter = Bloom::new(Size::from_log2(12).unwrap());
        filter.insert(world.hash("own"));
        let mut bytes = Vec::new();
        for (number, words) in filter.words().chunks(256 * 8).enumerate() {
            put_discarded(&mut bytes, 0, u32::try_from(number * 256).unwrap(), version, words);
        }
        world.driver.send(link.conn, bytes);
        world.driver.pass(ms(5));
        assert_eq!((world.stat("keys"), world.stat("discarded_dropped")), (keys, 2 - keys));
        world.last = if keys == 1 { WITHOUT_OWN } else { world.last };
    }
    // One that matches everything is refused.
    let (mut world, _, link) = known();
    let mut bytes = Vec::new();
    (0..16).for_each(|number| put_discarded(&mut bytes, 0, number * 256, version(100), &[u64::MAX; 256 * 8]));
    world.driver.send(link.conn, bytes.repeat(30));
    world.driver.pass(ms(5));
    assert!(world.stat("log_lines_dropped") >= 20, "a peer writes the log");
}

#[test]
fn delete_of_a_peer_spares_what_was_written_after_it_unless_that_was_held_in_time() {
    // Milliseconds that the frame is under way; the version that it deletes up to, if that is less than all.
    for (key, under_way, is_deleted) in [("own", 0, true), ("own", 2_000, false), ("other", 0, false)] {
        let (mut world, _, mut link) = known();
        let sent_at = version(0) - 1;
        world.driver.now.wall_nanos += under_way * 1_000_000;
        world.send(&link, &[(7, Body::Delete { key: key.as_bytes(), version: sent_at })]);
        let answers = world.frames(&mut link);
        let answer = answers.iter().find(|frame| matches!(frame, Received::Deleted { .. }));
        match answer {
            // In time: nothing was to be deleted, so nothing after it is.
            Some(Received::Deleted { version, had, .. }) => {
                assert_eq!((*had, *version > sent_at), (is_deleted, is_deleted), "{key}");
            }
            // Its node has reported that it could not delete.
            _ => assert_eq!((under_way, world.stat("peer_queries_timed_out")), (2_000, 1)),
        }
        assert_eq!(world.stat("tombstones"), 1, "{key}");
        world.last = if is_deleted { WITHOUT_OWN } else { world.last };
    }
}

#[test]
fn node_that_was_stopped_closes_its_links_before_it_reads_them() {
    let (mut world, face, mut link) = known();
    world.driver.now.mono = world.driver.now.mono.after(ms(4_000));
    world.send(&link, &[invalidate(b"own", version(3_000), KeyState::Held)]);
    assert_eq!(world.bye_reason(&mut link), "this node was stopped");
    assert!(!world.is_linked(&face));
}

#[test]
fn link_of_a_peer_that_does_not_read_is_closed_before_a_notice_is_dropped() {
    let mut world = World::new(Config::default());
    let face = Face::new(1);
    // Its filter is unknown: every write is reported to it.
    let link = world.linked(&face);
    world.driver.reads(link.conn, false);
    let mut sets = 0;
    while world.is_linked(&face) {
        sets += 1;
        let key = format!("{sets:060000}");
        assert!(world.call(&format!("SET {key}:v\n")).starts_with(":SAT "));
        assert!(sets <= 400 && world.stat("buffers_bytes") < 20 << 20, "{sets} notices wait");
    }
    assert!(sets > 200, "closed after {sets}");
    assert_eq!(world.stat("invalidations_sent"), sets);
}
