//! A request that is served from this node's memory allocates nothing once buffers have their size.

#![allow(unsafe_code, reason = "a global allocator is one by an unsafe trait")]

use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{ConnKey, Node};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread.
struct Counting;

fn count() {
    // Without a counter while the thread ends.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: each call is the system's with the same arguments; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
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
