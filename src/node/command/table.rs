//! The table of commands: one row for each. Dispatch, HELP, COMMAND, limits before AUTH, costs, prefetching and
//! the documentation are derived from it.

use crate::node::command::row::{Command, Keys, Table, numbered};
use crate::node::command::{connection, keys, server, status, strings};
use crate::wire::line_form::Syntax;

/// All commands.
pub(in crate::node) static TABLE: Table = Table::new(&ROWS);

static ROWS: [Command; LIST.len()] = numbered(LIST);

const LIST: &[Command] = &[
    Command::new("GET", "string", "Returns the values of keys, wherever in the mesh they are.", strings::get)
        .reads()
        .line("GET", "key", Syntax::Keys, "GOT", "GET user,\"user:1\"")
        .resp(2, Keys::FIRST),
    Command::new(
        "MGET",
        "string",
        "Returns the values of keys, wherever in the mesh they are.",
        strings::mget,
    )
    .reads()
    .resp(-2, Keys::ALL),
    Command::new("SET", "string", "Sets keys to values, all of them or none.", strings::set)
        .writes()
        .line("SET", "key:value", Syntax::Pairs, "SAT", "SET user:Ann,\"user:1\":\"Ann, Bo\"")
        .resp(3, Keys::FIRST),
    Command::new("SETEX", "string", "Sets keys to values that expire after so many seconds.", strings::setex)
        .writes()
        .line("SETEX", "key:value:seconds", Syntax::Timed, "SATEX", "SETEX session:Ann:30")
        .resp(4, Keys::FIRST),
    Command::new("INCR", "string", "Adds 1 to whole numbers, from 0 where there is no key.", strings::incr)
        .writes()
        .line("INCR", "key", Syntax::Keys, "COUNTS", "INCR visits")
        .resp(2, Keys::FIRST),
    Command::new("DEL", "generic", "Removes keys.", keys::del)
        .writes()
        .line("DEL", "key", Syntax::Keys, "DELETED", "DEL user,\"user:1\"")
        .resp(-2, Keys::ALL),
    Command::new("EXPIRE", "generic", "Has keys expire after so many seconds.", keys::expire).writes().line(
        "EXPIRE",
        "key:seconds",
        Syntax::Numbers,
        "EXPIRES",
        "EXPIRE session:30",
    ),
    Command::new("TTL", "generic", "Returns the seconds left until keys expire, rounded up.", keys::ttl)
        .reads()
        .line("TTL", "key", Syntax::Keys, "LASTS", "TTL session")
        .resp(2, Keys::FIRST),
    Command::new("WHO", "mesh", "Returns the nodes that hold a key, or whose filters claim it.", status::who)
        .line("WHO", "key", Syntax::Key, "HELD", "WHO user"),
    Command::new("PING", "connection", "Returns a sign of life.", connection::ping)
        .open()
        .line("PING", "", Syntax::Words, "PONG", "PING")
        .resp(-1, Keys::NONE),
    Command::new("MESH", "mesh", "Returns the other nodes that are known, one field for each.", status::mesh)
        .takes_a_step()
        .line("MESH", "", Syntax::Bare, "MESH", "MESH"),
    Command::new(
        "STATS",
        "server",
        "Returns the node's figures, or those of some sections or names.",
        status::stats,
    )
    .takes_a_step()
    .line("STATS", "[name]", Syntax::Words, "STATS", "STATS memory,hits"),
    Command::new("AUTH", "connection", "Gives the node's password.", connection::auth)
        .open()
        .line("AUTH", "password", Syntax::Field, "WELCOME", "AUTH \"open, sesame\"")
        .resp(-2, Keys::NONE),
    Command::new("REQUEST", "mesh", "Asks about the mesh.", status::request).topics().line(
        "REQUEST",
        "topic",
        Syntax::Raw,
        "FULFILLED",
        "REQUEST peers",
    ),
    Command::new("REQUEST PEERS", "mesh", "Returns the addresses of the other nodes.", status::peers)
        .takes_a_step()
        .line("REQUEST peers", "", Syntax::Bare, "FULFILLED", "REQUEST peers"),
    Command::new(
        "REQUEST BLOOMFILTER",
        "mesh",
        "Returns the Bloom filter of this node's keys.",
        status::filter,
    )
    .line("REQUEST bloomfilter", "", Syntax::Bare, "FULFILLED", "REQUEST bloomfilter"),
    Command::new(
        "REQUEST CONNECT",
        "mesh",
        "Returns the Bloom filter; with arguments, begins a link between nodes.",
        status::connect,
    )
    .open()
    .line("REQUEST connect", "", Syntax::Raw, "FULFILLED", "REQUEST connect"),
    Command::new("REQUEST DISCONNECT", "mesh", "Ends the connection.", connection::disconnect).line(
        "REQUEST disconnect",
        "",
        Syntax::Bare,
        "FULFILLED",
        "REQUEST disconnect",
    ),
    Command::new("HELP", "server", "Returns the verbs, or what one of them does.", server::help).open().line(
        "HELP",
        "[verb]",
        Syntax::Words,
        "HELP",
        "HELP SET",
    ),
    Command::new(
        "QUIT",
        "connection",
        "Ends the connection after the replies to all requests.",
        connection::quit,
    )
    .open()
    .line("QUIT", "", Syntax::Bare, "BYE", "QUIT")
    .resp(-1, Keys::NONE),
    Command::new(
        "HELLO",
        "connection",
        "Chooses the version of RESP, and may authenticate.",
        connection::hello,
    )
    .open()
    .resp(-1, Keys::NONE),
    Command::new("COMMAND", "server", "Returns what clients need to know of each command.", server::command)
        .topics()
        .resp(-1, Keys::NONE),
    Command::new("COMMAND COUNT", "server", "Returns the number of commands.", server::count)
        .resp(2, Keys::NONE),
    Command::new("COMMAND LIST", "server", "Returns the names of the commands.", server::list)
        .resp(2, Keys::NONE),
    Command::new(
        "COMMAND INFO",
        "server",
        "Returns what clients need to know of some commands.",
        server::info,
    )
    .resp(-2, Keys::NONE),
    Command::new("COMMAND DOCS", "server", "Returns what commands do.", server::docs).resp(-2, Keys::NONE),
    Command::new("COMMAND GETKEYS", "server", "Returns the keys of a request.", server::getkeys)
        .resp(-3, Keys::NONE),
];
