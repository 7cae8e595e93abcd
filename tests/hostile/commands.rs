//! Commands that depend on old values: carried out once, by a peer for the node and by the node for a peer; and their
//! outcome when peers refuse, are slow, break the link, or name other holders.

use crate::kit::peer::{Face, Link, Received, World, bytes_of, deltas, executed, ms, remote_reply};
use olivia::config::Config;
use olivia::wire::encoder::Protocol;
use olivia::wire::frame::{Arguments, Body, Hints, KeyState, RemoteCommand};

/// A version below any of the node.
const VERSION: u64 = 1 << 20;

/// A deadline that does not pass.
const LATE: u64 = u64::MAX >> 1;

/// A peer whose filter claims these keys, and nothing else.
fn claiming(world: &mut World, number: u16, keys: &[&str]) -> (Face, Link) {
    let face = Face::new(number);
    let mut link = world.known(&face);
    let hashes: Vec<u64> = keys.iter().map(|key| world.hash(key)).collect();
    world.driver.send(link.conn, deltas(0, &hashes));
    world.frames(&mut link);
    (face, link)
}

/// The commands that have come over a link: their numbers and words.
fn commands(world: &mut World, link: &mut Link) -> Vec<(u32, String)> {
    let frames = world.frames(link);
    frames.iter().filter_map(Received::command).map(|(number, words)| (number, words.to_owned())).collect()
}

/// The one command that has come over a link.
fn command(world: &mut World, link: &mut Link) -> (u32, String) {
    let mut commands = commands(world, link);
    assert_eq!(commands.len(), 1, "{commands:?}");
    commands.remove(0)
}

fn not_holder<'a>(hash: u64, moved_version: u64, hints: &'a [[u8; 16]]) -> Body<'a> {
    Body::NotHolder { hash, moved_version, hints: Hints::new(hints) }
}

fn execute<'a>(words: &'a [&'a str], create: bool, deadline: u64, arguments: &'a mut Vec<u8>) -> Body<'a> {
    Body::Execute(RemoteCommand {
        name: words[0].as_bytes(),
        arguments: Arguments::write(arguments, words[1..].iter().map(|word| word.as_bytes())),
        create,
        deadline,
        refused: Hints::default(),
        protocol: Protocol::Resp2,
    })
}

fn resp(words: &str) -> String {
    crate::kit::resp(&words.split(' ').collect::<Vec<_>>())
}

#[test]
fn work_of_commands_is_charged_to_the_link_that_sends_them() {
    let mut world = World::new(Config::default());
    world.call(&format!("SET big:{}\n", "x".repeat(1 << 20)));
    let link = world.known(&Face::new(1));
    world.driver.watch = None;
    let mut all = Vec::new();
    for number in 1..=50 {
        let mut arguments = Vec::new();
        let copy = execute(&["COPY", "big", "copy", "REPLACE"], true, LATE, &mut arguments);
        all.extend(bytes_of(&[(number, copy)]));
    }
    let before = world.driver.node.spent();
    world.driver.deliver(link.conn, &all);
    let spent = world.driver.node.spent() - before;
    assert!((1_024..3_000).contains(&spent), "{spent} keys in one call");
    world.driver.run();
    assert!(world.driver.node.spent() - before > 50 * 1_024);
}

#[test]
fn value_set_while_a_command_travels_yields_to_a_higher_version_in_the_answer() {
    for (version, stays) in [(VERSION, true), (1_700_000_000_100 << 20, false)] {
        for (request, reply) in [("APPEND far:x\n", ":APPENDED far:9\n"), ("DEL far\n", ":DELETED far\n")] {
            let mut world = World::new(Config::default());
            let (_, mut link) = claiming(&mut world, 1, &["far"]);
            let hash = world.hash("far");
            world.begin(request);
            let frames = world.frames(&mut link);
            let client = world.driver.client();
            assert_eq!(world.driver.call(client, "SET far:1\n"), ":SAT far:1\n");
            let result = remote_reply(false, "far:9");
            let (number, answer) = match frames.iter().find_map(Received::command) {
                Some((number, _)) => (number, executed(hash, version, &result)),
                None => {
                    let deletes = |frame: &Received| {
                        if let Received::Delete { request, .. } = frame { Some(*request) } else { None }
                    };
                    let number = frames.iter().find_map(deletes).unwrap();
                    (number, Body::Deleted { hash, version, had: true, hints: Hints::default() })
                }
            };
            world.send(&link, &[(number, answer)]);
            assert_eq!(world.replies(), reply);
            assert_eq!(world.stat("keys"), 1 + u64::from(stays), "{request}");
        }
    }
}

#[test]
fn command_on_a_key_of_a_peer_is_carried_out_there_and_its_reply_stands_in_order() {
    let mut world = World::new(Config::default());
    let (_, mut link) = claiming(&mut world, 1, &["far"]);
    let hash = world.hash("far");
    // What the client sends, what the peer is to do, what it answers, what the client gets.
    for (request, words, is_error, result, reply) in [
        ("7:INCR far\n", "INCR far", false, "far:5", "7:COUNTS far:5\n"),
        ("EXPIRE far:30\n", "EXPIRE far 30", false, "far:30", ":EXPIRES far:30\n"),
        ("SETNX far:1\n", "SETNX far 1", false, "", ":SATNX \n"),
        ("EXPIRE own:30,far:30\n", "EXPIRE far 30", false, "far:30", ":EXPIRES own:30,far:30\n"),
        ("PERSIST own,far\n", "PERSIST far", false, "", ":PERSISTS own\n"),
        ("INCR far\n", "INCR far", true, "ERR no number", ":ERR no number\n"),
        (
            "GET own\nAPPEND far:x\nGET own\n",
            "APPEND far x",
            false,
            "far:9",
            ":GOT own:1\n:APPENDED far:9\n:GOT own:1\n",
        ),
    ] {
        world.begin(request);
        let (number, sent) = command(&mut world, &mut link);
        assert_eq!(sent, words, "{request}");
        world.send(&link, &[(number, executed(hash, VERSION, &remote_reply(is_error, result)))]);
        assert_eq!(world.replies(), reply, "{request}");
    }
    let client = world.driver.client();
    for (request, result, reply) in [
        ("INCR far", ":6\r\n", ":6\r\n"),
        ("SET far 1 NX", "$-1\r\n", "$-1\r\n"),
        ("GETEX far EX 10", "$1\r\n6\r\n", "$1\r\n6\r\n"),
        ("GETDEL far", "$1\r\n6\r\n", "$1\r\n6\r\n"),
    ] {
        world.driver.send(client, resp(request));
        let (number, sent) = command(&mut world, &mut link);
        assert_eq!(sent, request);
        world.send(&link, &[(number, executed(hash, VERSION, &remote_reply(false, result)))]);
        assert_eq!(world.driver.take(client), reply, "{request}");
    }
    // Their answers say what version there is, but are no notices.
    assert_eq!(world.stat("invalidations_received"), 0);
    // A SET without a condition is carried out here.
    assert_eq!(world.call("SET far:1\n"), ":SAT far:1\n");
    assert_eq!(commands(&mut world, &mut link), []);
}

#[test]
fn command_is_carried_out_by_a_holder_whose_clock_is_ahead_within_the_bound() {
    let mut world = World::new(Config::default());
    let (_, mut link) = claiming(&mut world, 1, &["far"]);
    world.begin("INCR far\n");
    let frames = world.frames(&mut link);
    let Some(Received::Execute { deadline, .. }) = frames.iter().find(|frame| frame.command().is_some())
    else {
        panic!("{frames:?}")
    };
    // Nodes are linked with clocks up to 500 ms apart.
    let ends_at = world.driver.now.wall_ms() + u64::from(Config::default().mesh.lookup_timeout_ms);
    // The clock's milliseconds are above 20 bits of counter.
    assert!(deadline >> 20 >= ends_at + 500, "{deadline} for a request that ends at {ends_at}");
}

#[test]
fn later_requests_wait_for_a_forwarded_command_and_it_waits_for_earlier_ones() {
    let mut world = World::new(Config::default());
    let (_, mut link) = claiming(&mut world, 1, &["far"]);
    let hash = world.hash("far");
    world.begin("GET far\nINCR far\nSET near:1\nSET far:9\nINCR far\nGET far\n");
    let frames = world.frames(&mut link);
    let query = frames.iter().find_map(Received::query).unwrap();
    assert_eq!(frames.iter().find_map(Received::command), None, "{frames:?}");
    // Another connection goes on.
    let other = world.driver.client();
    assert_eq!(world.driver.call(other, "GET own\n"), ":GOT own:1\n");
    let value = Body::Value { hash, version: VERSION, left_ms: None, value: b"1" };
    world.send(&link, &[(query, value)]);
    assert_eq!(world.replies(), ":GOT far:1\n");
    let (number, _) = command(&mut world, &mut link);
    assert_eq!(world.driver.call(other, "COUNT\n"), ":COUNT 1\n", "a key set before the answer");
    world.send(&link, &[(number, executed(hash, VERSION + 1, &remote_reply(false, "far:2")))]);
    assert_eq!(world.replies(), ":COUNTS far:2\n:SAT near:1\n:SAT far:9\n:COUNTS far:10\n:GOT far:10\n");
}

#[test]
fn node_that_does_not_hold_the_key_is_not_queried_again_and_its_hints_are_followed() {
    let mut world = World::new(Config::default());
    let (a, mut at_a) = claiming(&mut world, 1, &["far"]);
    let (b, mut at_b) = claiming(&mut world, 2, &[]);
    let hash = world.hash("far");
    world.begin("INCR far\n");
    let (number, _) = command(&mut world, &mut at_a);
    assert_eq!(commands(&mut world, &mut at_b), []);
    world.send(&at_a, &[(number, not_holder(hash, VERSION, &[b.node]))]);
    let frames = world.frames(&mut at_b);
    let Some(Received::Execute { request, create: false, refused, .. }) =
        frames.iter().find(|frame| frame.command().is_some())
    else {
        panic!("{frames:?}")
    };
    assert_eq!(*refused, [a.node]);
    // B has passed it on to A meanwhile: a newer version is a reason to query it again, an older one is none.
    world.send(&at_b, &[(*request, not_holder(hash, VERSION + 1, &[a.node]))]);
    let (number, _) = command(&mut world, &mut at_a);
    world.send(&at_a, &[(number, executed(hash, VERSION + 2, &remote_reply(false, "far:3")))]);
    assert_eq!(world.replies(), ":COUNTS far:3\n");
    // The next one goes to A at once, and so does a lookup.
    world.begin("INCR far\n");
    let (number, _) = command(&mut world, &mut at_a);
    world.send(&at_a, &[(number, executed(hash, VERSION + 3, &remote_reply(false, "far:4")))]);
    assert_eq!(world.replies(), ":COUNTS far:4\n");
    assert_eq!(world.stat("forwarded"), 2);
}

#[test]
fn lost_answer_is_an_unknown_outcome_and_the_command_is_not_sent_again() {
    for is_broken in [true, false] {
        let mut world = World::new(Config::default());
        let (a, mut at_a) = claiming(&mut world, 1, &["far"]);
        let (_, mut at_b) = claiming(&mut world, 2, &["far"]);
        let client = world.driver.client();
        world.driver.send(client, resp("INCR far"));
        let mut links = [&mut at_a, &mut at_b];
        let sent: Vec<_> = links.iter_mut().map(|link| commands(&mut world, link)).collect();
        let holder = usize::from(sent[0].is_empty());
        assert_eq!(sent.iter().flatten().count(), 1, "{sent:?}");
        if is_broken {
            world.driver.lose(links[holder].conn);
        } else {
            world.driver.pass(ms(100));
        }
        let reply = world.driver.take(client);
        assert!(reply.starts_with("-UNKNOWN outcome unknown: 127.0.0.1:"), "{reply}");
        assert!(reply.contains("the command on 'far' was carried out once or not at all"), "{reply}");
        assert_eq!(commands(&mut world, links[1 - holder]), []);
        let hash = world.hash("far");
        if !is_broken {
            let (number, _) = sent[holder][0];
            world.send(links[holder], &[(number, executed(hash, VERSION, &remote_reply(false, ":1\r\n")))]);
            assert_eq!(world.driver.take(client), "");
        }
        assert_eq!((world.stat("forwarded"), world.stat("forwarded_unknown")), (1, 1));
        assert!(world.is_linked(&a) != (is_broken && holder == 0));
    }
}

#[test]
fn nothing_is_done_while_an_unlinked_peer_may_hold_the_key() {
    let mut world = World::new(Config::default());
    let (a, at_a) = claiming(&mut world, 1, &["far"]);
    let (b, mut at_b) = claiming(&mut world, 2, &["hinted"]);
    world.driver.lose(at_a.conn);
    let error = world.call("INCR far\n");
    assert!(
        error.starts_with(":ERR nothing was done: 'far' may be on 127.0.0.1:6001, which cannot be reached"),
        "{error}"
    );
    let (exec, client) = (["MULTI", "INCR far", "EXEC"], world.driver.client());
    let replies = exec.map(|request| world.driver.call(client, &resp(request)));
    assert_eq!(replies[..2], ["+OK\r\n", "+QUEUED\r\n"]);
    assert!(replies[2].starts_with("-EXECABORT nothing was done: 'far' may be on"), "{replies:?}");
    // A hint names it too.
    let hash = world.hash("hinted");
    world.begin("INCR hinted\n");
    let (number, _) = command(&mut world, &mut at_b);
    world.send(&at_b, &[(number, not_holder(hash, VERSION, &[a.node]))]);
    let error = world.replies();
    assert!(error.starts_with(":ERR nothing was done: 'hinted' may be on 127.0.0.1:6001"), "{error}");
    // Once it is forgotten the key is new.
    world.driver.lose(at_b.conn);
    world.driver.pass(ms(60_000));
    assert!(
        world.view(&a).is_none_or(|view| !view.is_linked)
            && world.view(&b).is_none_or(|view| !view.is_linked)
    );
    assert_eq!(world.call("INCR far\n"), ":COUNTS far:1\n");
}

#[test]
fn keys_of_a_node_that_has_shut_down_are_gone_at_once() {
    let mut world = World::new(Config::default());
    let (a, mut at_a) = claiming(&mut world, 1, &["claimed", "deleted"]);
    let (_, mut at_b) = claiming(&mut world, 2, &["hinted"]);
    let notice = Body::Invalidate { key: b"moved", version: VERSION, state: KeyState::Held };
    world.send(&at_a, &[(0, notice)]);
    world.begin("DEL deleted\n");
    assert!(matches!(world.frames(&mut at_a)[..], [Received::Delete { .. }]));
    world.send(&at_a, &[(0, Body::Bye(b"the node is shutting down"))]);
    assert_eq!(world.replies(), ":DELETED \n");
    for key in ["claimed", "moved", "hinted"] {
        let hash = world.hash(key);
        world.begin(&format!("INCR {key}\n"));
        // The other node has not received the BYE yet, so its hints name the node that is gone.
        for _ in 0..2 {
            for frame in world.frames(&mut at_b) {
                let Received::Execute { request, create: is_birth, .. } = frame else { continue };
                let reply = remote_reply(false, &format!("{key}:1"));
                let refused = not_holder(hash, VERSION, std::slice::from_ref(&a.node));
                let answer = if is_birth { executed(hash, VERSION, &reply) } else { refused };
                world.send(&at_b, &[(request, answer)]);
            }
        }
        assert_eq!(world.replies(), format!(":COUNTS {key}:1\n"));
    }
}

#[test]
fn new_key_is_created_at_its_home_node_only() {
    let mut world = World::new(Config::default());
    let (face, mut link) = claiming(&mut world, 1, &[]);
    let (mut here, mut there) = (0, 0);
    for n in 0..40 {
        let key = format!("new{n}");
        let hash = world.hash(&key);
        world.begin(&format!("INCR {key}\n"));
        let frames = world.frames(&mut link);
        let Some(Received::Execute { request, create, .. }) =
            frames.iter().find(|frame| frame.command().is_some())
        else {
            assert_eq!(world.replies(), format!(":COUNTS {key}:1\n"));
            here += 1;
            continue;
        };
        there += 1;
        assert!(create, "{frames:?}");
        if there % 2 == 0 {
            let reply = remote_reply(false, &format!("{key}:1"));
            world.send(&link, &[(*request, executed(hash, VERSION, &reply))]);
            assert_eq!(world.replies(), format!(":COUNTS {key}:1\n"));
            // It is read there, although its addition has not come.
            world.begin(&format!("GET {key}\n"));
            assert_eq!(world.queries(&mut link).len(), 1);
            world.driver.pass(ms(100));
            world.replies();
        } else {
            // It sees a claim of this node, twice.
            let id = world.driver.node.id().0;
            world.send(&link, &[(*request, not_holder(hash, 0, &[id]))]);
            let (number, _) = command(&mut world, &mut link);
            world.send(&link, &[(number, not_holder(hash, 0, &[]))]);
            let error = world.replies();
            assert!(error.starts_with(&format!(":ERR nothing was done: '{key}' is moving")), "{error}");
        }
    }
    assert!(here > 8 && there > 8, "{here} {there}");
    assert!(world.is_linked(&face));
    // Keys of different home nodes are not created together.
    let client = world.driver.client();
    world.driver.send(client, resp("MSETNX a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8"));
    let error = world.driver.take(client);
    assert!(error.starts_with("-CROSSSLOT nothing was done: the keys are not on one node"), "{error}");
}

#[test]
fn command_that_does_nothing_on_a_key_that_no_node_has_causes_no_query() {
    let mut world = World::new(Config::default());
    let (_, mut link) = claiming(&mut world, 1, &["far"]);
    // Of many keys some would be created there, and none is.
    for n in 0..10 {
        for (words, reply) in [
            ("EXPIRE new# 10", ":0\r\n"),
            ("PEXPIREAT new# 99999999999", ":0\r\n"),
            ("PERSIST new#", ":0\r\n"),
            ("GETEX new# EX 10", "$-1\r\n"),
            ("GETDEL new#", "$-1\r\n"),
            ("DELIFEQ new# 1", ":0\r\n"),
            ("SET new# 1 XX", "$-1\r\n"),
            ("RENAME new# far", "-ERR no such key\r\n"),
            ("COPY new# own", ":0\r\n"),
        ] {
            let client = world.driver.client();
            let words = words.replace('#', &n.to_string());
            assert_eq!(world.driver.call(client, &resp(&words)), reply, "{words}");
            assert_eq!(commands(&mut world, &mut link), [], "{words}");
        }
        assert_eq!(world.call(&format!("EXPIRE new{n}:10\n")), ":EXPIRES \n");
    }
    // A claim that turns out to be none is followed by nothing else.
    world.begin("PERSIST far\n");
    let (number, _) = command(&mut world, &mut link);
    let hash = world.hash("far");
    world.send(&link, &[(number, not_holder(hash, 0, &[]))]);
    assert_eq!((world.replies().as_str(), commands(&mut world, &mut link)), (":PERSISTS \n", Vec::new()));
}

#[test]
fn del_reaches_all_that_may_hold_the_key_and_names_those_that_it_did_not() {
    let mut world = World::new(Config::default());
    let (_, mut at_a) = claiming(&mut world, 1, &["far", "lost"]);
    let (b, mut at_b) = claiming(&mut world, 2, &["far"]);
    let far = world.hash("far");
    let delete = |world: &mut World, link: &mut Link| {
        let frames = world.frames(link);
        let found = frames.iter().find_map(|frame| {
            if let Received::Delete { request, version, .. } = frame {
                Some((*request, *version))
            } else {
                None
            }
        });
        found.unwrap_or_else(|| panic!("{frames:?}"))
    };
    fn deleted<'a>(hash: u64, version: u64, had: bool, hints: &'a [[u8; 16]]) -> Body<'a> {
        Body::Deleted { hash, version, had, hints: Hints::new(hints) }
    }
    world.begin("DEL own,far,nope\nSET far:2\n");
    let ((at_a_number, version), (at_b_number, _)) =
        (delete(&mut world, &mut at_a), delete(&mut world, &mut at_b));
    world.send(&at_a, &[(at_a_number, deleted(far, version + 5, true, &[b.node]))]);
    assert_eq!(world.replies(), "");
    world.send(&at_b, &[(at_b_number, deleted(far, version, false, &[]))]);
    assert_eq!(world.replies(), ":DELETED own,far\n:SAT far:2\n");
    assert_eq!(world.call("GET far\n"), ":GOT far:2\n");
    assert_eq!(world.call("SET own:1\n"), ":SAT own:1\n");
    // One does not answer; then its link is gone.
    world.begin("DEL lost\n");
    delete(&mut world, &mut at_a);
    world.driver.pass(ms(100));
    let error = world.replies();
    assert!(
        error.starts_with(":ERR 'lost' is deleted on all other nodes, but may be on 127.0.0.1:6001"),
        "{error}"
    );
    world.driver.lose(at_a.conn);
    let client = world.driver.client();
    let error = world.driver.call(client, &resp("DEL own lost"));
    assert!(
        error.starts_with("-UNREACHABLE for 1 of 2 keys, the first: 'lost' is deleted on all other"),
        "{error}"
    );
    assert_eq!(world.call("SET own:1\n"), ":SAT own:1\n");
}

#[test]
fn command_of_a_peer_is_carried_out_here_once_if_the_key_is_here_and_the_time_has_not_passed() {
    let mut world = World::new(Config::default());
    let (_, mut link) = claiming(&mut world, 1, &[]);
    let mut arguments = Vec::new();
    let answer = |world: &mut World, link: &mut Link| {
        let mut frames = world.frames(link);
        frames.retain(|frame| !matches!(frame, Received::Changelog | Received::Invalidate { .. }));
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    };
    for (words, create, expected) in [
        (&["INCR", "own"][..], false, ":2\r\n"),
        (&["APPEND", "own", "x"], false, ":2\r\n"),
        (&["INCR", "own"], false, "!-ERR value is not an integer or out of range\r\n"),
        (&["SET", "own", "1", "XX", "GET"], false, "$2\r\n2x\r\n"),
        (&["GETEX", "own", "EX", "0"], false, "!-ERR invalid expire time in 'getex' command\r\n"),
    ] {
        world.send(&link, &[(7, execute(words, create, LATE, &mut arguments))]);
        let reply = answer(&mut world, &mut link);
        let Received::Executed { request: 7, version, reply } = reply else { panic!("{words:?}: {reply:?}") };
        assert_eq!(reply, expected, "{words:?}");
        assert!(version > 1_600_000_000_000 << 20, "{version}");
    }
    world.send(&link, &[(8, execute(&["INCR", "nope"], false, LATE, &mut arguments))]);
    assert_eq!(
        answer(&mut world, &mut link),
        Received::NotHolder { request: 8, moved_version: 0, hints: Vec::new() }
    );
    world.send(&link, &[(9, execute(&["INCR", "own"], false, 1_600_000_000_000 << 20, &mut arguments))]);
    assert_eq!(answer(&mut world, &mut link), Received::NotDone { request: 9 });
    // Neither a command that is none, nor one that depends on nothing, nor one without its arguments.
    for words in
        [&["NOSUCH", "own"][..], &["FLUSHALL"], &["SET", "own", "5"], &["INCR"], &["QUIT"], &["EXEC"]]
    {
        world.send(&link, &[(10, execute(words, true, LATE, &mut arguments))]);
        assert_eq!(
            answer(&mut world, &mut link),
            Received::None { request: 10, moved_version: 0 },
            "{words:?}"
        );
    }
    assert_eq!(world.stat("lookups_in_flight"), 0);
}

#[test]
fn flush_of_the_mesh_is_answered_when_all_linked_nodes_have_dropped_their_keys() {
    let mut world = World::new(Config::default());
    let (_, mut link) = claiming(&mut world, 1, &[]);
    let floor = |world: &mut World, link: &mut Link| {
        let frames = world.frames(link);
        let found = frames.iter().find_map(|frame| {
            if let Received::Floor { request, version } = frame { Some((*request, *version)) } else { None }
        });
        found.unwrap_or_else(|| panic!("{frames:?}"))
    };
    world.begin("FLUSHALL MESH\nCOUNT\nSET own:1\n");
    let (number, version) = floor(&mut world, &mut link);
    assert_eq!(world.replies(), "");
    world.send(&link, &[(number, Body::Floored(version))]);
    assert_eq!(world.replies(), ":FLUSHED 2 nodes\n:COUNT 0\n:SAT own:1\n");
    world.begin("FLUSHALL MESH\n");
    floor(&mut world, &mut link);
    world.driver.pass(ms(100));
    let error = world.replies();
    assert!(error.starts_with(":ERR 127.0.0.1:6001 has not answered yet"), "{error}");
    // That of a peer empties this node; one that was linked later is sent the floor, and keeps what is newer.
    world.call("SET own:1,old:2\n");
    world.send(&link, &[(3, Body::Floor(version + (1 << 20)))]);
    assert!(world.frames(&mut link).contains(&Received::Floored { request: 3 }));
    assert_eq!(world.call("COUNT\n"), ":COUNT 0\n");
    world.call("SET own:1\n");
    let mut other = world.dial(&Face::new(2));
    let first = world.frames(&mut other);
    assert!(first.iter().any(|frame| matches!(frame, Received::Floor { request: 0, .. })), "{first:?}");
    world.send(&other, &[(0, Body::Floor(version + (2 << 20)))]);
    world.driver.pass(ms(50));
}

#[test]
fn transaction_is_carried_out_where_its_keys_are_and_the_rest_of_it_here_in_order() {
    let mut world = World::new(Config::default());
    let (_, mut link) = claiming(&mut world, 1, &["far"]);
    let client = world.driver.client();
    for request in ["MULTI", "SET own 1", "INCR far", "GET own", "GET far", "SET far 9", "GET far"] {
        world.driver.call(client, &resp(request));
    }
    world.driver.send(client, resp("EXEC") + &resp("GET own"));
    let (number, words) = command(&mut world, &mut link);
    let plain: String = words.chars().filter(|c| !c.is_control()).collect();
    assert_eq!(plain, "EXEC  INCR far  GET far  SET far 9  GET far");
    let mut reply = remote_reply(false, ":5\r\n");
    for result in ["$1\r\n5\r\n", "+OK\r\n", "$1\r\n9\r\n"] {
        reply.extend(&remote_reply(false, result)[4..]);
    }
    let hash = world.hash("far");
    world.send(&link, &[(number, executed(hash, VERSION, &reply))]);
    let expected = "*6\r\n+OK\r\n:5\r\n$1\r\n1\r\n$1\r\n5\r\n+OK\r\n$1\r\n9\r\n$1\r\n1\r\n";
    assert_eq!(world.driver.take(client), expected);
    // A read of other keys is looked up once the rest is done, unless a later request changes what it reads.
    let (_, mut other) = claiming(&mut world, 2, &["other"]);
    for request in ["MULTI", "INCR far", "MGET far other own", "SET own 1", "EXEC"] {
        world.driver.send(client, resp(request));
    }
    let (number, words) = command(&mut world, &mut link);
    assert_eq!(words.chars().filter(|c| !c.is_control()).collect::<String>(), "EXEC  INCR far");
    world.send(&link, &[(number, executed(hash, VERSION, &remote_reply(false, ":6\r\n")))]);
    for (link, key, value) in [(&mut link, "far", "6"), (&mut other, "other", "7")] {
        let query = world.queries(link)[0];
        let hash = world.hash(key);
        let value = Body::Value { hash, version: VERSION, left_ms: None, value: value.as_bytes() };
        world.send(link, &[(query, value)]);
    }
    let replies = world.driver.take(client);
    let expected = "*3\r\n:6\r\n*3\r\n$1\r\n6\r\n$1\r\n7\r\n$1\r\n1\r\n+OK\r\n";
    assert!(replies.ends_with(expected), "{replies}");
    for request in ["MULTI", "MGET far own", "INCR far", "EXEC"] {
        world.driver.send(client, resp(request));
    }
    let replies = world.driver.take(client);
    assert!(replies.contains("\r\n-EXECABORT nothing was done: the keys are not on one node"), "{replies}");
    // The peer holds some of the keys only: nothing is done, here neither.
    for request in ["MULTI", "SET own 7", "INCR far", "EXEC"] {
        world.driver.send(client, resp(request));
    }
    let (number, _) = command(&mut world, &mut link);
    let apart = remote_reply(false, "");
    world.send(
        &link,
        &[(number, Body::Executed { hash, version: 0, state: KeyState::Held, reply: &apart[..4] })],
    );
    let replies = world.driver.take(client);
    assert!(replies.contains("\r\n-EXECABORT nothing was done: the keys are not on one node"), "{replies}");
}
