//! A request that is served from this node's memory allocates nothing once buffers have their size, and a reply that
//! shows a large value does not copy it.

#![allow(unsafe_code, reason = "a global allocator is one by an unsafe trait")]

use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{ConnKey, Node};
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
