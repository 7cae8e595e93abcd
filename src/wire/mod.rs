//! # The protocol
//!
//! One port, 5454. This page specifies what is sent over it. The files of this folder parse bytes into messages and
//! encode them. They keep no state between messages, and depend on neither store nor clock.
//!
//! ## Lines
//!
//! One request per line, one reply per line, in request order. LF ends a line; a CR before it is ignored.
//! Empty lines are ignored.
//!
//! ```text
//! request = [id ":"] verb [" " arg *("," arg)]
//! arg     = field                      GET INCR DEL TTL … the whole of a bare field is the key, colons included
//!         | key ":" value              SET                  the first colon ends a bare key; the rest is the value
//!         | key ":" value ":" seconds  SETEX                the last colon begins the seconds
//!         | key ":" seconds            EXPIRE               the last colon begins the seconds
//!         | word "=" field             REQUEST connect      see "Between nodes"
//! id      = 1 to 64 bytes without space, colon, comma, quote, CR, LF; repeated before the reply
//! verb    = letters, any case
//! field   = bare, spaces around it trimmed | "quoted", with \" \\ \n \r \t \0 \xHH
//! ```
//!
//! Key and value are trimmed. A quote opens a quoted field only as its first byte; a quote inside a bare
//! field, spaces inside a bare key, bytes after the closing quote, an empty argument and an empty bare key are
//! errors; an empty value is fine. AUTH and WHO take exactly one field: quote a password that holds a comma.
//! Spaces around a whole line are ignored.
//!
//! A reply is `id:WORD fields`. Without an id it begins with the colon; without fields it keeps its space. A field of
//! a reply is quoted if it begins or ends with a space, contains a quote, a comma, a colon, CR, LF or another control
//! byte, or is not UTF-8; a key also if it is empty or contains a space. So every reply can be parsed back, and the
//! pairs that `GET` returns can be pasted into a `SET`.
//!
//! | request | reply | note |
//! |---|---|---|
//! | `SET key1:value1,key2:value2` | `:SAT key1:value1,key2:value2` | all or none; of equal keys the last one is stored |
//! | `GET key2` | `:GOT key2:value2` | |
//! | `GET key1,nope,key3` | `:GOT key1:value1,key3:value3` | missing keys are left out, in request order |
//! | `GET nope` | `:GOT ` | with the space |
//! | `SETEX key:value:30` | `:SATEX key:value:30` | whole seconds, from 1 up |
//! | `4f2a:GET key2` | `4f2a:GOT key2:value2` | |
//! | `GET user:1` | `:GOT "user:1":Ann` | |
//! | `INCR visits,n` | `:COUNTS visits:2,n:1` | adds 1 to whole numbers, from 0; all or none; an expiry stays |
//! | `DECR stock` | `:COUNTS stock:-1` | subtracts 1 |
//! | `SETNX a:1,b:2` | `:SATNX b:2` | the pairs whose keys did not exist |
//! | `APPEND log:more` | `:APPENDED log:8` | bytes of the new value; a missing key is created |
//! | `EXISTS key1,nope` | `:EXIST key1` | the keys that exist, on any node |
//! | `DEL key1,nope` | `:DELETED key1` | the keys that existed |
//! | `EXPIRE key:30` | `:EXPIRES key:30` | the keys that exist |
//! | `PERSIST key` | `:PERSISTS key` | the keys whose expiry was removed |
//! | `KEYS user:*` | `:KEYS "user:1","user:2"` | keys of this node by a pattern: `*`, `?`, `[a-z]`, `\\*` |
//! | `COUNT` | `:COUNT 2` | keys of this node |
//! | `FLUSHALL` | `:FLUSHED 2` | removes all keys of this node |
//! | `FLUSHALL MESH` | `:FLUSHED 3 nodes` | removes all keys of all linked nodes; later sets stay |
//! | `TTL a,b,nope` | `:LASTS a:27,b:never` | seconds, rounded up |
//! | `PING` or `PING 0` | `0:PONG 1` | with an id: the reply has that id |
//! | `REQUEST bloomfilter` | `:FULFILLED v=1,blocks=…,keys=…,epoch=…,seq=…,bits=…` | the node's filter; [`filter_dump`] |
//! | `REQUEST peers` | `:FULFILLED 10.0.0.2:5454,"10.0.0.3:5454 backup"` | the addresses of the linked peers, then up to 1,024 others, each with its state as in MESH |
//! | `REQUEST connect` | as `REQUEST bloomfilter` | bare, by a person; with arguments: the handshake of a node |
//! | `REQUEST disconnect` | `:FULFILLED bye` | then the connection closes |
//! | `WHO key` | `:HELD key:here,key:10.0.0.2:5454` | the nodes that hold the key, or whose filter claims it, the nearest first |
//! | `MESH` | `:MESH "10.0.0.2:5454 linked; …"` | one quoted field for each peer, for people |
//! | `AUTH password` | `:WELCOME ` | if a password is set, all verbs except PING, HELP and QUIT are `ERR` before it |
//! | `STATS` | `:STATS name:value,…` | the names are stable |
//! | `STATS memory,hits` | `:STATS …` | the metrics of sections or names; `calls`: of each command |
//! | `HELP` | `:HELP …` | the verbs, on one line |
//! | `HELP SET` | `:HELP SET key:value: … Example: …` | the form and effect of a verb |
//! | `QUIT` | `:BYE ` | then the connection closes; a node that shuts down sends the same |
//!
//! An error is `id:ERR sentence`: it names what was wrong, where, and what would be right; nothing was changed. Some
//! errors close the connection: a line over its limit, since its end is unknown; a timeout inside a request or before
//! the first; a refused handshake. A last line without LF, cut by the end of the stream, is an error and is not
//! executed.
//!
//! A line that begins with `POST ` or `Host:` closes the connection without a reply and is logged: it comes from a
//! hostile page in a browser. A connection whose first line is a `GET` or `HEAD` of HTTP/1.x speaks HTTP. A bare
//! `PING` ended by CR LF is answered `+PONG` CR LF, as health checkers written for Redis expect.
//!
//! ## RESP
//!
//! A connection whose first byte is `*` speaks RESP2, and RESP3 after `HELLO 3`; see [`resp`]. The commands are
//! those of the same table, with the names, arguments, replies and errors of Redis 7.2. A request cut by the end of the
//! stream is not executed; a stream that is not RESP gets one `-ERR Protocol error: …` and is closed.
//!
//! ## HTTP
//!
//! `GET` and `HEAD`, HTTP/1.0 and 1.1 with keep-alive, heads of up to 8 KiB. Keys and values are not accessible. See
//! [`http`].
//!
//! | path | response |
//! |---|---|
//! | `/livez` | 200 while the event loop runs |
//! | `/readyz` | 200, or 503 with the reasons, one per line |
//! | `/metrics` | the metrics of STATS and of each linked peer: OpenMetrics if the client accepts it, else Prometheus text |
//! | `/status.json` | the metrics of the page |
//! | `/history.json` | samples of the last hour and day |
//! | `/` | a page about this node and its mesh, for people |
//!
//! With a password all paths except the two probes need Basic authentication: any user, the password. A `Host` that
//! is neither an IP address, nor `localhost`, nor a name in `remote_peers` gets 421 (DNS rebinding). 400, 404, 405,
//! 408 and 431 have a sentence as body; all of them except 404 close the connection.
//!
//! ## Between nodes
//!
//! A link begins with a handshake in lines, which can be read in a capture and typed by hand; frames follow. The
//! handshake is the first request on its connection and needs no AUTH:
//!
//! ```text
//! A> h1:REQUEST connect proto=2,node=<32 hex>,listen=<host:port>,nonce=<32 hex>,hash=<16 hex>,clock=<ms>
//! B> h1:FULFILLED proto=2,node=<32 hex>,listen=<host:port>,nonce=<32 hex>,hash=<16 hex>,clock=<ms>,proof=<64 hex>
//! A> h2:REQUEST connect proof=<64 hex>
//! B> h2:FULFILLED welcome
//! ```
//!
//! The arguments are `word=field`, split at the first `=`, in any order; unknown words are ignored, a word given
//! twice is an error. A line has at most 1 KiB. `node` is the node id, new at each start; `nonce` is new for each
//! handshake. `listen` is the address that the node listens on; an unspecified host there (`0.0.0.0`, `[::]`) stands
//! for the source address of the connection. `hash` is the hash of `olivia hash check 2` and the 16 bytes of the
//! nonce, which depends on the mesh secret. `clock` is the wall clock, milliseconds since 1970: a node more than 500
//! ms ahead is refused. `links` is `none` if the node has no link, and `full` if it has `active_peers` or more;
//! otherwise it is left out. A node without room for the link answers the proof with `h2:FULFILLED
//! full,10.0.0.2:5454,…`: up to 8 addresses of other nodes. There is room below `active_peers` links, and for a node
//! without a link.
//!
//! The proofs are HMAC-SHA-256 under the mesh secret of: the label `olivia accept 1` (B's) or `olivia connect 1`
//! (A's), a zero byte, then both nonces, both ids, both `listen` texts, each after its length (u32, little-endian),
//! the prover's first. Without a secret `proof=` is empty, and both ends must be on loopback. An unknown `proto`, a
//! different `hash`, a wrong proof, or a proof under the receiver's own id gets an error line that names it; then the
//! connection closes. The dialler sends no frame before `welcome`.
//!
//! A frame is a header and a payload, integers little-endian:
//!
//! ```text
//!  0      1      2        4          8          12             20
//!  | 0xB1 | kind | flags  | length   | request  | clock        | payload ...
//!  | u8   | u8   | u16    | u32      | u32      | u64          | `length` bytes
//! ```
//!
//! `clock` is at least the highest version that the sender has assigned, and at least its wall clock. A *position* is
//! an epoch (u64, larger after each start of the node) and a seq (u64, the number of the next addition in its
//! changelog). Kinds:
//!
//! | kind | name | request | payload |
//! |---|---|---|---|
//! | 1 | BEAT | counts heartbeats; an answer (flag 1) repeats it | the position at the end of the sender's changelog, its wall clock (u64, ms), the highest `clock` of the receiver whose frame it has processed (u64) |
//! | 2 | DELTA | low half of the first one's seq | hashes of added keys (u64), of consecutive seqs |
//! | 3 | BLOCK | low half of the first change | rebuilt blocks: number (u32), 64 bytes; of consecutive changes |
//! | 5 | SNAP | low half of the next change of blocks | a snapshot of the filter begins: its position, log2 of its blocks (u8) |
//! | 6 | PIECE | number of the first block | blocks of it, 64 bytes each |
//! | 7 | SNAPEND | 0 | none: the snapshot is complete |
//! | 8 | RESYNC | low half of the next change of blocks | none: requests a snapshot; or the position from which changes are to be sent |
//! | 9 | GET | number of the query on this link | a key; flag 1: only its TTL is requested |
//! | 10 | VALUE | repeated | hash (u64), version (u64), milliseconds left (u64; all ones: no TTL), value |
//! | 11 | NONE | repeated | hash (u64), a version that is known to be elsewhere (u64; 0: none), hints; no payload: the key, or the arguments, are longer than the node accepts |
//! | 12 | PEERS | 0 | nodes: id (16 bytes; zeroes: unknown), 4 or 6 (u8), IP (4 or 16 bytes), port (u16) |
//! | 13 | BYE | 0 | the reason as text, at most 128 bytes; after `the node is shutting down` the node does not come back |
//! | 14 | INVALIDATE | 0 | version (u64) and key: the receiver must drop older values; flag 1: the version is that of a deletion |
//! | 15 | NEWER | 0 | the same, as the answer to an INVALIDATE of a lower version |
//! | 16 | DELETE | number of the query | version (u64; the deletion gets it or a higher one), key |
//! | 17 | DELETED | repeated | hash (u64), version of the deletion (u64), hints; flag 1: there was a value |
//! | 18 | EXECUTE | number of the query | deadline (u64, a `clock` of the sender), ids of up to four nodes that have answered NOTHOLDER after their number (u8), the protocol of the client (u8: 1 lines, 2 RESP2, 3 RESP3), the name of a command after its length (u8), its arguments, each after its length (u32); flag 1: it may create the key |
//! | 19 | EXECUTED | repeated | hash (u64), version of the key (u64; 0: none), the reply ([`remote_reply`]); flag 1: the key no longer exists |
//! | 20 | NOTHOLDER | repeated | as NONE |
//! | 21 | FLOOR | number of the query | a version (u64): the receiver must drop all keys up to it |
//! | 22 | FLOORED | repeated | the version (u64) |
//! | 23 | NOTDONE | repeated | hash (u64): the deadline has passed, or there is no room; nothing was done |
//! | 24 | DISCARDED | number of the first block | highest version (u64), blocks of the filter of deletions that are not remembered individually, 64 bytes each |
//! | 25 | FRAGMENT | 0 | the next bytes of a VALUE or EXECUTED that is longer than 128 KiB; `clock` is 0 |
//!
//! *Hints* are up to four ids (16 bytes) of nodes that may hold the key. A version is 44 bits of milliseconds since
//! 1970 and 20 bits of their fraction; a value, deletion or floor more than a second ahead of the receiver's clock
//! closes the link. Of two equal versions a deletion wins over a value, and of two values that of the node with the
//! greater id.
//!
//! Additions are numbered by seq; rebuilt blocks and new sizes have their own numbers, as *changes of blocks*. A
//! filter of another size is sent as a snapshot while additions continue; its position is the addition that the
//! receiver expects next.
//!
//! Long answers are sent in fragments: the payloads of consecutive FRAGMENT frames are exactly one other frame. Frames
//! of other kinds may come between them, fragments of another frame may not.
//!
//! Undefined flags are 0. A payload has at most 64 KiB, a fragment 128 KiB; hashes and blocks 16 KiB, a key 16 MiB, a value 512 MiB,
//! arguments and replies 64 KiB more. A header that violates this closes the link before its payload arrives. A key
//! over the receiver's `key_bytes_max` or a value over its `value_bytes_max` is skipped as it arrives, not buffered:
//! the query is answered by a NONE without a payload, the answer counts as "not found".

pub mod args;
pub mod encoder;
pub mod field;
pub mod filter_dump;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod line;
pub mod line_form;
pub mod lookahead;
pub mod owned_args;
pub mod remote_reply;
pub mod request_error;
pub mod resp;
