//! The layers of `src/` from top to bottom, with the permitted imports of each.

/// Files that stand together in the architecture.
pub struct Layer {
    pub name: &'static str,
    pub purpose: &'static str,
    /// Files and folders. A file belongs to the layer that names the longest part of its path.
    pub holds: &'static [&'static str],
    /// The layers that it may import, all of them below it.
    pub imports: &'static [&'static str],
}

/// Below the one named `BOUNDARY` there is neither clock nor socket.
pub const BOUNDARY: &str = "node";

pub const LAYERS: [Layer; 19] = [
    Layer {
        name: "main",
        purpose: "arguments, configuration, logger, exit code",
        holds: &["main.rs"],
        imports: &["shell", "client", "config"],
    },
    Layer {
        name: "client",
        purpose: "subcommands that talk to a running node, and load it",
        holds: &["client"],
        imports: &["wire", "base"],
    },
    Layer { name: "lib", purpose: "the map of the sources", holds: &["lib.rs"], imports: &[] },
    Layer {
        name: "shell",
        purpose: "the only code that knows mio, sockets and real time",
        holds: &["shell"],
        imports: &["node", "wire", "base", "config", "limits"],
    },
    Layer {
        name: "node",
        purpose: "sans-IO boundary: bytes, keys and `now` in, bytes and actions out",
        holds: &["node", "node/conn/reader.rs", "node/conn/serving.rs", "node/conn/requests.rs"],
        imports: &[
            "command", "versions", "lookup", "peer", "digest", "conn", "state", "records", "filter", "wire",
            "base", "config", "limits",
        ],
    },
    Layer {
        name: "command",
        purpose: "requests of clients to replies",
        holds: &["node/command", "node/http"],
        imports: &[
            "versions", "lookup", "peer", "digest", "conn", "state", "records", "store", "filter", "wire",
            "base", "config", "limits",
        ],
    },
    Layer {
        name: "peer",
        purpose: "discovery, dialling, handshake, links, frames",
        holds: &["node/peer"],
        imports: &[
            "versions", "lookup", "digest", "conn", "state", "records", "store", "filter", "wire", "base",
            "config", "limits",
        ],
    },
    Layer {
        name: "versions",
        purpose: "one value per key: notices of newer versions",
        holds: &["node/versions"],
        imports: &[
            "lookup", "digest", "conn", "state", "records", "store", "filter", "wire", "base", "limits",
        ],
    },
    Layer {
        name: "lookup",
        purpose: "queries to peers, and from peers",
        holds: &["node/lookup"],
        imports: &["digest", "conn", "state", "records", "store", "filter", "wire", "base", "limits"],
    },
    Layer {
        name: "digest",
        purpose: "own filter and filters of peers, kept equal",
        holds: &["node/digest"],
        imports: &["conn", "state", "records", "filter", "wire", "base", "limits"],
    },
    Layer {
        name: "conn",
        purpose: "one connection: order of replies, timeouts, output of links",
        holds: &["node/conn", "node/peer/link_output.rs"],
        imports: &["state", "records", "filter", "wire", "base", "config", "limits"],
    },
    Layer {
        name: "state",
        purpose: "all that a node has",
        holds: &["node/state.rs"],
        imports: &["records", "store", "filter", "wire", "base", "config", "limits"],
    },
    Layer {
        name: "records",
        purpose: "the tables of a node, and its one write path",
        holds: &[
            "node/alarm.rs",
            "node/history.rs",
            "node/ids.rs",
            "node/latency.rs",
            "node/logins.rs",
            "node/metrics.rs",
            "node/schedule.rs",
            "node/slow_log.rs",
            "node/tasks.rs",
            "node/keyspace.rs",
            "node/hybrid_clock.rs",
            "node/command/dump.rs",
            "node/command/key_scan.rs",
            "node/http/draft.rs",
            "node/conn/buffered.rs",
            "node/conn/connection.rs",
            "node/conn/phase.rs",
            "node/conn/replies.rs",
            "node/conn/role.rs",
            "node/conn/session.rs",
            "node/conn/traffic.rs",
            "node/conn/turn.rs",
            "node/conn/fragments.rs",
            "node/conn/in_flight.rs",
            "node/digest/following.rs",
            "node/digest/own_filter.rs",
            "node/digest/publishing.rs",
            "node/lookup/answers.rs",
            "node/lookup/forwarded.rs",
            "node/lookup/key_reply.rs",
            "node/lookup/operation.rs",
            "node/lookup/pending_request.rs",
            "node/lookup/queries.rs",
            "node/lookup/table.rs",
            "node/peer/absent.rs",
            "node/peer/address_book.rs",
            "node/peer/clock_offsets.rs",
            "node/peer/dials.rs",
            "node/peer/health.rs",
            "node/peer/link_queues.rs",
            "node/peer/losses.rs",
            "node/peer/mesh.rs",
            "node/peer/table.rs",
            "node/versions/moved.rs",
            "node/versions/of_peer.rs",
            "node/versions/tombstones.rs",
            "node/versions/work.rs",
        ],
        imports: &["store", "filter", "wire", "base", "config", "limits"],
    },
    Layer {
        name: "filter",
        purpose: "Bloom filters and their synchronisation",
        holds: &["filter"],
        imports: &["base", "limits"],
    },
    Layer {
        name: "store",
        purpose: "items, index, heap, expiry",
        holds: &["store"],
        imports: &["base", "limits"],
    },
    Layer {
        name: "wire",
        purpose: "the protocol: bytes to messages and back, no state",
        holds: &["wire"],
        imports: &["base", "limits"],
    },
    Layer {
        name: "config",
        purpose: "what an operator can set",
        holds: &["config", "config.rs"],
        imports: &["base", "limits"],
    },
    Layer {
        name: "base",
        purpose: "time, slots, arena, buffers, timer wheel; knows nothing of Olivia",
        holds: &["base"],
        imports: &[],
    },
    Layer {
        name: "limits",
        purpose: "sizes and counts that bound everything",
        holds: &["limits.rs"],
        imports: &[],
    },
];

/// The layer of a file, by its path below `src/`.
pub fn layer_of(path: &str) -> Option<usize> {
    let is_in =
        |part: &str| path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'));
    let longest = |layer: &Layer| layer.holds.iter().filter(|part| is_in(part)).map(|part| part.len()).max();
    let found = LAYERS.iter().enumerate().filter_map(|(at, layer)| longest(layer).map(|length| (length, at)));
    found.max().map(|(_, at)| at)
}
