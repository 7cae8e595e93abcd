//! A request that is served from this node's memory allocates nothing once buffers have their size, and a reply that
//! shows a large value does not copy it.

#![allow(unsafe_code, reason = "a global allocator is one by an unsafe trait")]

mod kit;

use kit::peer::{Face, Received, World, bytes_of, executed, remote_reply};
use kit::request;
use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{ConnKey, Node};
use olivia::wire::encoder::Protocol;
use olivia::wire::frame::{Arguments, Body, Hints, RemoteCommand};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes of the largest one.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread.
struct Counting;

fn count(bytes: usize) {
    // Without a counter while the thread ends.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: each call is the system's with the same arguments; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        unsafe { System.realloc(block, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEYS: usize = 100;
const NOW: Now = Now { mono: Instant::from_millis(1_000), wall_nanos: 1_700_000_000_000_000_000 };

/// After the node of the kit was linked.
const LATER: Now = Now { mono: Instant::from_millis(1_234_567), wall_nanos: NOW.wall_nanos };

/// Makes the calls of the shell for some input of a client.
fn serve(node: &mut Node, client: ConnKey, input: &str) {
    node.received(NOW, client, input.as_bytes());
    while node.has_work(NOW) {
        node.tick(NOW);
    }
    while node.next_action().is_some() {}
    let bytes = node.outbound_bytes(client);
    assert!(bytes >= "+OK\r\n".len());
    node.wrote(NOW, client, bytes);
}

/// Allocations of requests for existing keys, one at a time or sixteen together, after a first round of the same.
fn allocations(request: impl Fn(usize) -> String) -> usize {
    let mut node = Node::new(Config::default(), 1, NOW);
    let client = node.accept(NOW, "127.0.0.1:4000".parse().unwrap()).unwrap();
    let filler = node.accept(NOW, "127.0.0.1:4001".parse().unwrap()).unwrap();
    for id in 0..KEYS {
        serve(&mut node, filler, &format!("SET key{id}:{}\n", "v".repeat(64)));
    }
    let single: Vec<String> = (0..KEYS).map(&request).collect();
    let pipelined: Vec<String> = single.chunks(16).map(<[String]>::concat).collect();
    let mut round = || single.iter().chain(&pipelined).for_each(|text| serve(&mut node, client, text));
    round();
    let before = ALLOCATIONS.get();
    round();
    ALLOCATIONS.get() - before
}

#[test]
fn get_hit_allocates_nothing() {
    assert_eq!(allocations(|id| format!("GET key{id}\n")), 0, "in lines");
    assert_eq!(allocations(|id| format!("r{id}:GET key{id}\n")), 0, "in lines with an id");
    let resp = |id| format!("*2\r\n$3\r\nGET\r\n${}\r\nkey{id}\r\n", format!("key{id}").len());
    assert_eq!(allocations(resp), 0, "in RESP");
}

#[test]
fn set_of_a_key_that_exists_allocates_nothing() {
    let value = "w".repeat(64);
    assert_eq!(allocations(|id| format!("SET key{id}:{value}\n")), 0, "in lines");
    assert_eq!(allocations(|id| format!("SET \"key{id}\":\"{value}\"\n")), 0, "in lines, quoted");
    let resp = |id| {
        let bytes = format!("key{id}").len();
        format!("*3\r\n$3\r\nSET\r\n${bytes}\r\nkey{id}\r\n$64\r\n{value}\r\n")
    };
    assert_eq!(allocations(resp), 0, "in RESP");
}

#[test]
fn allocation_is_counted() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

/// The largest block of memory that a node may take at once, whatever the size of values.
const BLOCK_MAX: usize = 1 << 18;

/// Hands input to a node in reads of the shell, and takes what it returns. Returns that, and the largest block of memory
/// that the node took.
fn measured(node: &mut Node, conn: ConnKey, input: &[u8]) -> (Vec<u8>, usize) {
    let (mut got, mut largest) = (Vec::new(), 0);
    let mut call = |node: &mut Node, call: &mut dyn FnMut(&mut Node)| {
        LARGEST.set(0);
        call(node);
        largest = largest.max(LARGEST.get());
        while node.next_action().is_some() {}
    };
    for read in input.chunks(1 << 18).chain([&[][..]]) {
        call(node, &mut |node| kit::contract::receive(node, LATER, conn, read, false));
        loop {
            let bytes = node.outbound_bytes(conn);
            if node.has_work(LATER) {
                call(node, &mut |node| node.tick(LATER));
            } else if bytes == 0 {
                break;
            } else {
                node.outbound(conn).for_each(|slice| got.extend_from_slice(slice));
                call(node, &mut |node| node.wrote(LATER, conn, bytes));
            }
        }
    }
    (got, largest)
}

/// The same for the requests of a new client, which then ends its connection.
fn measured_once(node: &mut Node, input: &[u8]) -> (Vec<u8>, usize) {
    let client = node.accept(LATER, "127.0.0.1:4000".parse().unwrap()).unwrap();
    let result = measured(node, client, input);
    node.lost(LATER, client, &"the end of the test");
    result
}

/// Calls `call` with a node, each of its commands and each of these arguments, of which `held` is a key with the value
/// `large`, and `new` is none.
fn for_each_request(node: &mut Node, large: &str, mut call: impl FnMut(&mut Node, &str, &[&str])) {
    let list = measured_once(node, &request(&["COMMAND", "LIST"])).0;
    let list = String::from_utf8(list).unwrap().to_uppercase();
    let names = list.split("\r\n").filter(|line| !line.starts_with(['*', '$', '-']) && !line.is_empty());
    for name in names.filter(|name| *name != "SHUTDOWN") {
        for arguments in [
            &["held"][..],
            &["held", "1"],
            &["held", "new"],
            &["held", "held"],
            &["held", "0", "-1"],
            &["held", "1", "GET"],
            &["held", large],
            &["new", large],
            &["new", "9", large],
            &["new", large, "9"],
            &["1", "new", large],
        ] {
            let first = [request(&["SET", "held", large]), request(&["DEL", "new"])].concat();
            assert_eq!(measured_once(node, &first).0[..5], *b"+OK\r\n");
            call(node, name, arguments);
        }
    }
}

#[test]
fn no_request_of_a_client_takes_memory_of_the_size_of_its_value() {
    let large = "0123456789abcdef".repeat(1 << 15);
    let mut node = Node::new(Config::default(), 1, LATER);
    for_each_request(&mut node, &large, |node, name, arguments| {
        let words: Vec<&str> = std::iter::once(name).chain(arguments.iter().copied()).collect();
        let line = format!("{name} {}\n", arguments.join(":")).into_bytes();
        for input in [request(&words), line] {
            let (_, largest) = measured_once(node, &input);
            // Values are put together before they are stored; LCS has a table with a limit of its own.
            let most = match name {
                "APPEND" | "SETRANGE" => 3 * large.len(),
                "LCS" => 4 << 20,
                _ => BLOCK_MAX,
            };
            let short: Vec<&str> = words.iter().map(|word| &word[..word.len().min(10)]).collect();
            assert!(largest <= most, "{short:?}: {largest} bytes");
        }
    });
}

#[test]
fn no_reply_to_a_command_of_a_peer_takes_memory_of_the_size_of_its_value() {
    let large = "0123456789abcdef".repeat(1 << 15);
    let mut shown = 0;
    let mut world = World::new(Config::default());
    (world.driver.watch, world.last) = (None, "");
    let link = world.linked(&Face::new(1));
    let link = world.driver.key(link.conn);
    for_each_request(&mut world.driver.node, &large, |node, name, arguments| {
        for protocol in [Protocol::Lines, Protocol::Resp2] {
            let mut bytes = Vec::new();
            let command = RemoteCommand {
                name: name.as_bytes(),
                arguments: Arguments::write(&mut bytes, arguments.iter().map(|word| word.as_bytes())),
                create: true,
                deadline: u64::MAX,
                refused: Hints::default(),
                protocol,
            };
            let frame = bytes_of(&[(1, Body::Execute(command))]);
            let (got, largest) = measured(node, link, &frame);
            // The arguments are copied once, since a command is carried out when its frame is processed.
            let most = if name == "APPEND" { 3 * large.len() } else { BLOCK_MAX.max(frame.len()) };
            let short: Vec<&str> = arguments.iter().map(|word| &word[..word.len().min(10)]).collect();
            assert!(largest <= most, "{name} {short:?} {protocol:?}: {largest} bytes");
            shown += usize::from(got.len() > large.len());
            if (name, protocol, arguments) == ("SETNX", Protocol::Lines, &["new", &large]) {
                let field = b"new:0123456789abcdef";
                assert!(got.len() > large.len() && got.windows(field.len()).any(|bytes| bytes == field));
            }
        }
    });
    // GETSET, GETDEL, GETEX, SET with GET, of several arguments each, and SETNX in lines.
    assert!(shown >= 8, "{shown} replies with a value");
}

#[test]
fn reply_of_a_peer_to_a_transaction_is_not_copied() {
    let value = "0123456789abcdef".repeat(1 << 15);
    let mut world = World::new(Config::default());
    (world.driver.watch, world.last) = (None, "");
    let (mut link, client) = (world.linked(&Face::new(1)), world.driver.client());
    let requests = [&["MULTI"][..], &["PING"], &["GETDEL", "far"], &["EXEC"]].map(request).concat();
    world.driver.send(client, requests);
    let (number, _) = world.frames(&mut link).iter().find_map(Received::command).unwrap();
    let bulk = format!("${}\r\n{value}\r\n", value.len());
    let result = remote_reply(false, &bulk);
    let frame = bytes_of(&[(number, executed(world.hash("far"), 1, &result))]);
    let [conn, client] = [link.conn, client].map(|id| world.driver.key(id));
    let node = &mut world.driver.node;
    let (_, largest) = measured(node, conn, &frame);
    let (reply, largest_after) = measured(node, client, b"");
    assert!(String::from_utf8(reply).unwrap().ends_with(&format!("*2\r\n+PONG\r\n{bulk}")));
    assert!(largest.max(largest_after) <= BLOCK_MAX, "{largest} and {largest_after} bytes");
}

#[test]
fn reply_with_a_large_value_takes_no_memory_of_its_size() {
    let value = "0123456789abcdef".repeat(1 << 19);
    let resp = |words: &[&str]| {
        let bulks = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n", words.len()) + &bulks.collect::<String>()
    };
    let reply = format!("${}\r\n{value}\r\n", value.len());
    let shown = |start: &str, end: &str| format!(":{start}{value}{end}\n");
    for (request, expected) in [
        (resp(&["GET", "k"]), reply.clone()),
        (resp(&["MGET", "k"]), format!("*1\r\n{reply}")),
        (resp(&["GETDEL", "k"]), reply.clone()),
        (resp(&["GETSET", "k", "x"]), reply.clone()),
        (resp(&["SET", "k", "x", "GET"]), reply.clone()),
        (resp(&["GETEX", "k", "EX", "9"]), reply.clone()),
        ("GET k\n".to_owned(), shown("GOT k:", "")),
        ("GET k,k\n".to_owned(), shown("GOT k:", &format!(",k:{value}"))),
        (format!("SET k:{value}\n"), shown("SAT k:", "")),
        (format!("SETEX k:{value}:07,j:x:5\n"), shown("SATEX k:", ":7,j:x:5")),
        (format!("SETNX k:1,j:{value},l:x\n"), shown("SATNX j:", ",l:x")),
        (format!("SETNX k:{value}\n"), ":SATNX \n".to_owned()),
    ] {
        let mut node = Node::new(Config::default(), 1, NOW);
        let filler = node.accept(NOW, "127.0.0.1:4001".parse().unwrap()).unwrap();
        serve(&mut node, filler, &resp(&["SET", "k", &value]));
        let client = node.accept(NOW, "127.0.0.1:4000".parse().unwrap()).unwrap();
        LARGEST.set(0);
        let mut got = Vec::new();
        for read in request.as_bytes().chunks(1 << 18) {
            node.received(NOW, client, read);
            let mut idle = false;
            while !idle {
                node.tick(NOW);
                while node.next_action().is_some() {}
                idle = !node.has_work(NOW) && node.outbound_bytes(client) == 0;
                let bytes = node.outbound_bytes(client);
                let largest = LARGEST.get();
                node.outbound(client).for_each(|slice| got.extend_from_slice(slice));
                LARGEST.set(largest);
                node.wrote(NOW, client, bytes);
            }
        }
        let what = &request[..request.len().min(40)];
        let got = String::from_utf8(got).unwrap();
        assert!(got == expected, "{what}: {} bytes, {:?}", got.len(), &got[..got.len().min(40)]);
        assert!(LARGEST.get() <= 1 << 18, "{what}: {} bytes", LARGEST.get());
    }
}
