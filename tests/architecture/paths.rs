//! The steps of an iteration and of the life of requests, from function to function. Each step must be called where its
//! caller is defined, so that the pictures agree with the sources.

use crate::source::Sources;

/// Depth below the step that calls it, file, function, what it does.
pub type Step = (usize, &'static str, &'static str, &'static str);

/// A picture: its file in `docs`, its title, its steps.
pub type View = (&'static str, &'static str, &'static [Step]);

const INPUT: &str = "shell/reactor/input.rs";
const NEW_CONNECTIONS: &str = "shell/reactor/new_connections.rs";
const SERVING: &str = "node/conn/serving.rs";
const REQUESTS: &str = "node/conn/requests.rs";
const DISPATCH: &str = "node/command/dispatch.rs";
const REMOTE: &str = "node/lookup/remote.rs";
const FORWARD: &str = "node/lookup/forward.rs";
const FORWARDING: &str = "node/command/forwarding.rs";

pub const VIEWS: [View; 5] = [
    (
        "iteration.svg",
        "One iteration of the event loop",
        &[
            (0, "shell/reactor.rs", "iterate", "at most about 1 ms"),
            (1, NEW_CONNECTIONS, "make_connections", "if there is an event, or it is time"),
            (2, NEW_CONNECTIONS, "accept", "new connections"),
            (2, NEW_CONNECTIONS, "finish_dials", "dials that succeeded or failed"),
            (1, INPUT, "serve", "links, then clients, then due work: each for its share"),
            (2, INPUT, "read_next", "one socket, or up to 32 of clients in one call"),
            (2, INPUT, "deliver", "bytes into the node; requests run at once"),
            (3, "node/mod.rs", "prefetch", "keys of several clients"),
            (3, "node/mod.rs", "step", "one bounded step"),
            (4, "node/sources.rs", "step", "each source of work of the class"),
            (1, "shell/reactor/output.rs", "flush", "links first; replies before due work"),
            (1, "shell/reactor.rs", "do_due_work", "a small share"),
            (1, "shell/reactor.rs", "handle_signals", "drain, reload"),
        ],
    ),
    (
        "life_of_a_get.svg",
        "GET of a key on this node",
        &[
            (0, INPUT, "deliver", "bytes from a socket"),
            (1, "node/mod.rs", "received", "cross the sans-IO boundary"),
            (2, "node/conn/reader.rs", "received", "or wait in the connection"),
            (3, SERVING, "serve", "client, handshake or link"),
            (4, REQUESTS, "serve_client", ""),
            (5, REQUESTS, "serve_requests", "until a budget is spent"),
            (6, REQUESTS, "serve_line", "or serve_resp"),
            (7, "node/command/prefetch.rs", "prefetch_lines", "memory of later requests"),
            (7, DISPATCH, "execute_line", "finds the row of the command table"),
            (8, DISPATCH, "execute", "opens the reply, runs the row's handler"),
        ],
    ),
    (
        "life_of_a_remote_get.svg",
        "GET of a key on another node",
        &[
            (0, DISPATCH, "apply_effect", "the handler returned LookUp"),
            (1, "node/command/read.rs", "begin_pending", "holds a slot among the replies"),
            (2, REMOTE, "look_up", "joins or makes a lookup"),
            (2, REMOTE, "start", ""),
            (3, REMOTE, "advance", "by its operation"),
            (4, REMOTE, "query_next", "next candidate, nearest first"),
            (5, "node/lookup/query.rs", "query", "GET frame to the peer"),
            (0, "node/peer/frames.rs", "execute", "on the peer: a GET frame"),
            (1, "node/lookup/serve.rs", "received", "now, or when the link has room"),
            (2, "node/lookup/serve.rs", "answer", "from the peer's own store"),
            (3, "node/digest/sync.rs", "flush", "additions before answers"),
            (0, "node/peer/frames.rs", "execute", "here again: a VALUE frame"),
            (1, REMOTE, "answered", "measures the claim"),
            (2, REMOTE, "finish", "for every waiter"),
            (3, "node/conn/pending.rs", "store_part", "the last part completes the request"),
            (0, "node/conn/pending.rs", "reply_next", "at the end of the entry point"),
            (1, "node/lookup/pending_request.rs", "write", "by the same encoder"),
        ],
    ),
    (
        "life_of_a_forwarded_incr.svg",
        "INCR of a key on another node",
        &[
            (0, DISPATCH, "execute", "the row depends on the old value"),
            (1, FORWARDING, "is_for_here", "no: another node may hold the key"),
            (1, DISPATCH, "awaits_replies", "earlier replies first"),
            (1, DISPATCH, "forward", ""),
            (2, FORWARDING, "begin", "holds a slot, and later requests"),
            (3, FORWARDING, "send", "words instead of the line"),
            (4, FORWARDING, "send_request", ""),
            (5, FORWARD, "begin", "candidates by claims, hints, distance"),
            (6, FORWARD, "advance", "one node at a time; if no node holds the key, on its home node"),
            (7, "node/lookup/query.rs", "query", "EXECUTE frame, in the ordered stream"),
            (0, "node/command/queued.rs", "run", "on the peer: after the frame"),
            (1, FORWARDING, "serve", "in time, and holds the key; else NOTHOLDER"),
            (2, FORWARDING, "carry_out", "the same handler, without a connection"),
            (0, "node/peer/frames.rs", "execute", "here again: an EXECUTED frame"),
            (1, FORWARD, "executed", "the outcome; its versions are notices"),
            (2, FORWARD, "finish", ""),
            (3, "node/conn/pending.rs", "store_part", "completes the request"),
        ],
    ),
    (
        "life_of_a_set.svg",
        "SET",
        &[
            (0, "node/command/strings.rs", "set_pairs", "the row's handler, for a SET without options"),
            (1, "node/command/strings.rs", "make_room", "or refuses all pairs"),
            (1, "node/keyspace.rs", "set", "the one write path: version, store, own filter, changes"),
            (2, "store/mod.rs", "set", "unless a newer version is there"),
            (1, "node/keyspace.rs", "keep_up", "expiry and filter work that the writes caused"),
            (0, "node/mod.rs", "conclude", "at the end of the entry point"),
            (1, "node/versions/notices.rs", "process_changes", "if keys have changed"),
            (2, "node/versions/notices.rs", "process_listed", "lookups of the key end"),
            (3, "node/versions/notices.rs", "announce", "to peers that may hold an older value"),
            (4, "node/versions/notices.rs", "invalidate", "after the additions of this node"),
        ],
    ),
];

/// Checks that each step is there and is called by the step above it.
pub fn check(sources: &Sources) -> Vec<String> {
    let mut wrong = Vec::new();
    for (view, _, steps) in VIEWS {
        for (at, (depth, file, function, _)) in steps.iter().enumerate() {
            if body(sources, file, function).is_none() {
                wrong.push(format!("{view}: src/{file} has no function {function}"));
            }
            let above = steps[..at].iter().rev().find(|(other, ..)| other < depth);
            let Some((_, above_file, above_function, _)) = above else { continue };
            let calls = body(sources, above_file, above_function).unwrap_or_default();
            if !calls.contains(function) {
                wrong.push(format!("{view}: {above_function} in src/{above_file} does not call {function}"));
            }
        }
    }
    wrong
}

/// The words in the body of the first function of this name in a file.
fn body<'s>(sources: &'s Sources, path: &str, function: &str) -> Option<Vec<&'s str>> {
    let file = sources.files.iter().find(|file| file.path == path)?;
    let tokens = file.tokens.windows(2);
    let mut places = tokens.enumerate().filter(|(_, pair)| pair[0].text == "fn" && pair[1].text == function);
    let start = places.next()?.0;
    let mut depth = 0;
    let mut words = Vec::new();
    for token in &file.tokens[start..] {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return Some(words),
            "}" => depth -= 1,
            text if depth > 0 => words.push(text),
            _ => {}
        }
    }
    None
}
