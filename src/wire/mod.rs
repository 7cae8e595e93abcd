//! # The protocol
//!
//! One port, 5454. This page is the specification of what goes over it; the files of this folder turn
//! bytes into messages and back, hold no state between messages, and know neither store nor clock.
//!
//! ## Lines
//!
//! One request a line, one reply a line, in request order. LF ends a line; a CR before it is ignored.
//! An empty line is ignored.
//!
//! ```text
//! request = [id ":"] verb [" " arg *("," arg)]
//! arg     = field                      GET DEL TTL WHO      the whole of a bare field is the key, colons included
//!         | key ":" value              SET                  the first colon ends a bare key; the rest is the value
//!         | key ":" value ":" seconds  SETEX                the last colon begins the seconds
//!         | key ":" seconds            EXPIRE               the last colon begins the seconds
//! id      = 1 to 64 bytes without space, colon, comma, quote, CR, LF; sent back in front of the reply
//! verb    = letters, any case
//! field   = bare, spaces around it trimmed | "quoted", with \" \\ \n \r \t \0 \xHH
//! ```
//!
//! Key and value are trimmed each. A quote opens a quoted field only as its first byte; bytes after the
//! closing quote, an empty argument and an empty bare key are errors; an empty value is fine. AUTH and
//! WHO take exactly one field: quote a password that holds a comma. Spaces around a whole line are
//! ignored.
//!
//! A reply is `id:WORD fields`, and without an id it begins with the colon; a reply without fields keeps
//! its space. A field of a reply is quoted when bare it would read differently: when it begins or ends
//! with a space or with a quote, holds a comma, CR, LF or another control byte, or is not UTF-8, and,
//! for a key, when it is empty or holds a colon. So every reply can be parsed back, and what `GET` shows
//! can be pasted into a `SET`.
//!
//! | request | reply | note |
//! |---|---|---|
//! | `SET key1:value1,key2:value2` | `:SAT key1:value1,key2:value2` | all or none; of equal keys the last stands |
//! | `GET key2` | `:GOT key2:value2` | |
//! | `GET key1,nope,key3` | `:GOT key1:value1,key3:value3` | what is missing is left out, order kept |
//! | `GET nope` | `:GOT ` | with the space |
//! | `SETEX key:value:30` | `:SATEX key:value:30` | whole seconds, from 1 up |
//! | `4f2a:GET key2` | `4f2a:GOT key2:value2` | |
//! | `GET user:1` | `:GOT "user:1":Ann` | |
//! | `DEL key1,nope` | `:DELETED key1` | those that were there |
//! | `EXPIRE key:30` | `:EXPIRES key:30` | those that were there |
//! | `TTL a,b,nope` | `:LASTS a:27,b:never` | seconds, rounded up |
//! | `PING` or `PING 0` | `0:PONG 1` | with an id, that id |
//! | `REQUEST bloomfilter` | an error | until nodes publish filters |
//! | `REQUEST peers` | `:FULFILLED ` | the peers' addresses, active first; none yet |
//! | `REQUEST connect` | an error | until nodes link |
//! | `REQUEST disconnect` | `:FULFILLED bye` | then the connection closes |
//! | `WHO key` | `:HELD key:here` or `:HELD ` | the nodes that hold the key |
//! | `MESH` | `:MESH ` | one quoted field for each peer |
//! | `AUTH password` | `:WELCOME ` | before it all but PING, HELP and QUIT answer `ERR`, where a password is set |
//! | `STATS` | `:STATS name:value,…` | the names are stable |
//! | `HELP` | `:HELP …` | the verbs, on one line |
//! | `QUIT` | `:BYE ` | then the connection closes; a node that ends says the same |
//!
//! An error is `id:ERR sentence`: it says what was wrong, where, and what would be right; nothing was
//! changed. Three errors are followed by the end of the connection: a line over its limit, since its
//! end cannot be known; a first byte `*`, which begins another protocol; silence inside a request. A
//! last line without LF, cut by the end of the stream, is answered with an error and not carried out.
//!
//! A line that begins with `POST ` or `Host:` closes the connection without a reply and is logged: a
//! browser was made to talk to us. A bare `PING` ended by CR LF is answered `+PONG` CR LF, as health
//! checkers written for Redis expect.

pub mod args;
pub mod filter_text;
pub mod line;
pub mod mistake;
pub mod reply;
pub mod request;
