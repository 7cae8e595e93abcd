//! The layers of `src/` from top to bottom, with the permitted imports of each.

/// Files that stand together in the architecture.
pub struct Layer {
    pub name: &'static str,
    pub purpose: &'static str,
    holds: &'static str,
    imports: &'static str,
}

impl Layer {
    /// Files and folders. A file belongs to the layer that names the longest part of its path.
    pub fn holds(&self) -> Vec<&'static str> {
        self.holds.split_whitespace().collect()
    }

    /// The layers that it may import, all of them below it.
    pub fn imports(&self) -> Vec<&'static str> {
        self.imports.split_whitespace().collect()
    }
}

/// Below the one named `BOUNDARY` there is neither clock nor socket.
pub const BOUNDARY: &str = "node";

pub const LAYERS: [Layer; 20] = [
    layer("main", "arguments, configuration, logger, exit code", "main.rs", "shell client config"),
    layer("client", "subcommands that talk to a running node, and load it", "client", "batch wire base"),
    layer("lib", "the map of the sources", "lib.rs", ""),
    layer(
        "shell",
        "the event loop: sockets, signals and real time",
        "shell",
        "batch node wire base config limits",
    ),
    layer("batch", "reads and writes of many sockets in one system call", "batch batch.rs", ""),
    layer(
        "node",
        "sans-IO boundary: bytes, keys and `now` in, bytes and actions out",
        "node node/conn/reader.rs node/conn/serving.rs node/conn/requests.rs",
        "command versions lookup peer digest conn state records filter wire base config limits",
    ),
    layer(
        "command",
        "requests of clients to replies",
        "node/command node/http",
        "versions lookup peer digest conn state records store filter wire base config limits",
    ),
    layer(
        "peer",
        "discovery, dialling, handshake, links, frames",
        "node/peer",
        "versions lookup digest conn state records store filter wire base config limits",
    ),
    layer(
        "versions",
        "one value per key: notices of newer versions",
        "node/versions",
        "lookup digest conn state records store filter wire base limits",
    ),
    layer(
        "lookup",
        "queries to peers, and from peers",
        "node/lookup",
        "digest conn state records store filter wire base limits",
    ),
    layer(
        "digest",
        "own filter and filters of peers, kept equal",
        "node/digest",
        "conn state records filter wire base limits",
    ),
    layer(
        "conn",
        "one connection: order of replies, timeouts, output of links",
        "node/conn node/peer/link_output.rs",
        "state records filter wire base config limits",
    ),
    layer("state", "all that a node has", "node/state.rs", "records store filter wire base config limits"),
    layer(
        "records",
        "the tables of a node, and its one write path",
        "node/alarm.rs node/history.rs node/ids.rs node/latency.rs node/logins.rs node/metrics.rs \
         node/schedule.rs node/slow_log.rs node/tasks.rs node/keyspace.rs node/hybrid_clock.rs \
         node/command/dump.rs node/command/key_scan.rs node/http/draft.rs node/conn/buffered.rs \
         node/conn/connection.rs node/conn/phase.rs node/conn/replies.rs node/conn/role.rs \
         node/conn/session.rs node/conn/traffic.rs node/conn/turn.rs node/conn/fragments.rs \
         node/conn/in_flight.rs node/digest/following.rs node/digest/own_filter.rs \
         node/digest/publishing.rs node/lookup/answers.rs node/lookup/forwarded.rs \
         node/lookup/key_reply.rs node/lookup/operation.rs node/lookup/pending_request.rs \
         node/lookup/queries.rs node/lookup/table.rs node/peer/absent.rs node/peer/address_book.rs \
         node/peer/clock_offsets.rs node/peer/dials.rs node/peer/health.rs node/peer/link_queues.rs \
         node/peer/losses.rs node/peer/mesh.rs node/peer/stream.rs node/peer/table.rs node/versions/moved.rs \
         node/versions/of_peer.rs node/versions/tombstones.rs node/versions/work.rs",
        "store filter wire base config limits",
    ),
    layer("filter", "Bloom filters and their synchronisation", "filter", "base limits"),
    layer("store", "items, index, heap, expiry", "store", "base limits"),
    layer("wire", "the protocol: bytes to messages and back, no state", "wire", "base limits"),
    layer("config", "what an operator can set", "config config.rs", "base limits"),
    layer("base", "time, slots, arena, buffers, timer wheel; knows nothing of Olivia", "base", ""),
    layer("limits", "sizes and counts that bound everything", "limits.rs", ""),
];

/// A layer; `holds` and `imports` have blanks between their names.
const fn layer(
    name: &'static str,
    purpose: &'static str,
    holds: &'static str,
    imports: &'static str,
) -> Layer {
    Layer { name, purpose, holds, imports }
}

/// The layer of a file, by its path below `src/`.
pub fn layer_of(path: &str) -> Option<usize> {
    let is_in =
        |part: &str| path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'));
    let longest = |layer: &Layer| layer.holds().into_iter().filter(|part| is_in(part)).map(str::len).max();
    let found = LAYERS.iter().enumerate().filter_map(|(at, layer)| longest(layer).map(|length| (length, at)));
    found.max().map(|(_, at)| at)
}
