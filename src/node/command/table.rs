//! The table of commands, one row per command. Dispatch, HELP, COMMAND, limits before AUTH, costs, prefetching and
//! the documentation are derived from it.

use crate::node::command::read::read;
use crate::node::command::row::{Command, Keys, Scope, Table, numbered};
use crate::node::command::{
    client, connection, info, inspect, keys, numbers, ranges, scan, server, settings, slow, status, strings,
    transaction,
};
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
        .scope(Scope::Options)
        .line("SET", "key:value", Syntax::Pairs, "SAT", "SET user:Ann,\"user:1\":\"Ann, Bo\"")
        .resp(-3, Keys::FIRST),
    Command::new("SETEX", "string", "Sets keys to values with a TTL in seconds.", strings::setex)
        .writes()
        .line("SETEX", "key:value:seconds", Syntax::Timed, "SATEX", "SETEX session:Ann:30")
        .resp(4, Keys::FIRST),
    Command::new(
        "PSETEX",
        "string",
        "Sets a key to a value with a TTL in milliseconds.",
        strings::psetex,
    )
    .writes()
    .resp(4, Keys::FIRST),
    Command::new("SETNX", "string", "Sets those keys that are not there yet.", strings::setnx)
        .writes()
        .scope(Scope::EachKey)
        .line("SETNX", "key:value", Syntax::Pairs, "SATNX", "SETNX lock:Ann")
        .resp(3, Keys::FIRST),
    Command::new("MSET", "string", "Sets keys to values, all of them or none.", strings::mset)
        .writes()
        .resp(-3, Keys::PAIRS),
    Command::new("MSETNX", "string", "Sets keys to values if none of the keys is there.", strings::msetnx)
        .writes()
        .scope(Scope::AllKeys)
        .differs("CROSSSLOT unless one node holds all keys, or would create them.")
        .resp(-3, Keys::PAIRS),
    Command::new(
        "MSETEX",
        "string",
        "Sets keys to values with an expiry, or by a condition.",
        strings::msetex,
    )
    .writes()
    .scope(Scope::Options)
        .differs("With NX or XX as MSETNX. Error texts are those of Redis 8.4; Valkey 9.1 has others.")
    .resp(-4, Keys::COUNTED_PAIRS),
    Command::new("GETSET", "string", "Sets a key and returns its old value.", strings::getset)
        .writes()
        .scope(Scope::FirstKey)
        .resp(3, Keys::FIRST),
    Command::new("GETDEL", "string", "Removes a key and returns its value.", strings::getdel)
        .writes()
        .removes()
        .scope(Scope::FirstKey)
        .needs_key()
        .resp(2, Keys::FIRST),
    Command::new("GETEX", "string", "Returns the value of a key and sets its expiry.", strings::getex)
        .writes()
        .scope(Scope::FirstKey)
        .needs_key()
        .resp(-2, Keys::FIRST),
    Command::new("DELIFEQ", "string", "Removes a key that has a given value.", strings::delifeq)
        .writes()
        .scope(Scope::FirstKey)
        .needs_key()
        .resp(3, Keys::FIRST),
    Command::new(
        "APPEND",
        "string",
        "Appends to values; a missing key counts as empty.",
        ranges::append,
    )
    .writes()
    .scope(Scope::AllKeys)
    .line("APPEND", "key:value", Syntax::Pairs, "APPENDED", "APPEND log:more")
    .resp(3, Keys::FIRST),
    Command::new("STRLEN", "string", "Returns the bytes of a value.", ranges::strlen)
        .reads()
        .resp(2, Keys::FIRST),
    Command::new("GETRANGE", "string", "Returns a part of a value.", ranges::getrange)
        .reads()
        .resp(4, Keys::FIRST),
    Command::new("SUBSTR", "string", "Returns a part of a value, as GETRANGE does.", ranges::getrange)
        .reads()
        .resp(4, Keys::FIRST),
    Command::new("SETRANGE", "string", "Overwrites a part of a value.", ranges::setrange)
        .writes()
        .scope(Scope::FirstKey)
        .resp(4, Keys::FIRST),
    Command::new(
        "LCS",
        "string",
        "Returns the longest common subsequence of two values on this node.",
        ranges::lcs,
    )
    .differs("Both keys on this node; the lengths multiplied up to 1,048,576.")
    .reads()
    .takes_a_step()
    .resp(-3, Keys::TWO),
    Command::new("INCR", "string", "Adds 1 to integers; a missing key counts as 0.", numbers::incr)
        .writes()
        .scope(Scope::AllKeys)
        .line("INCR", "key", Syntax::Keys, "COUNTS", "INCR visits")
        .resp(2, Keys::FIRST),
    Command::new(
        "DECR",
        "string",
        "Subtracts 1 from integers; a missing key counts as 0.",
        numbers::decr,
    )
    .writes()
    .scope(Scope::AllKeys)
    .line("DECR", "key", Syntax::Keys, "COUNTS", "DECR stock")
    .resp(2, Keys::FIRST),
    Command::new("INCRBY", "string", "Adds to an integer.", numbers::incr_by)
        .writes()
        .scope(Scope::FirstKey)
        .resp(3, Keys::FIRST),
    Command::new("DECRBY", "string", "Subtracts from an integer.", numbers::decr_by)
        .writes()
        .scope(Scope::FirstKey)
        .resp(3, Keys::FIRST),
    Command::new("INCRBYFLOAT", "string", "Adds to a number with a fraction.", numbers::incr_by_float)
        .differs("Adds decimals exactly, where Redis rounds long doubles; takes no hexadecimal numbers and none beyond 1.8e308.")
        .writes()
        .scope(Scope::FirstKey)
        .resp(3, Keys::FIRST),
    Command::new("DEL", "generic", "Removes keys.", keys::del)
        .writes()
        .removes()
        .scope(Scope::Claimants)
        .line("DEL", "key", Syntax::Keys, "DELETED", "DEL user,\"user:1\"")
        .resp(-2, Keys::ALL),
    Command::new("UNLINK", "generic", "Removes keys, as DEL does.", keys::del)
        .writes()
        .removes()
        .scope(Scope::Claimants)
        .resp(-2, Keys::ALL),
    Command::new("EXISTS", "generic", "Returns the keys that exist, anywhere in the mesh.", |state, call| read(state, call, &keys::PRESENT))
        .reads()
        .line("EXISTS", "key", Syntax::Keys, "EXIST", "EXISTS user,\"user:1\"")
        .resp(-2, Keys::ALL),
    Command::new("TOUCH", "generic", "Returns how many of the keys exist, as EXISTS does.", |state, call| read(state, call, &keys::PRESENT))
        .reads()
        .resp(-2, Keys::ALL),
    Command::new("TYPE", "generic", "Returns the type of a key's value, which is string.", |state, call| read(state, call, &keys::TYPE))
        .reads()
        .resp(2, Keys::FIRST),
    Command::new("EXPIRE", "generic", "Sets the TTL of keys in seconds.", keys::expire)
        .writes()
        .scope(Scope::EachKey)
        .needs_key()
        .line("EXPIRE", "key:seconds", Syntax::Numbers, "EXPIRES", "EXPIRE session:30")
        .resp(-3, Keys::FIRST),
    Command::new("PEXPIRE", "generic", "Sets the TTL of a key in milliseconds.", keys::pexpire)
        .writes()
        .scope(Scope::FirstKey)
        .needs_key()
        .resp(-3, Keys::FIRST),
    Command::new("EXPIREAT", "generic", "Sets the time at which a key expires, in seconds since 1970.", keys::expireat)
        .differs("Up to the year 9999, as every expiry.")
        .writes()
        .scope(Scope::FirstKey)
        .needs_key()
        .resp(-3, Keys::FIRST),
    Command::new(
        "PEXPIREAT",
        "generic",
        "Sets the time at which a key expires, in milliseconds since 1970.",
        keys::pexpireat,
    )
    .writes()
    .scope(Scope::FirstKey)
    .needs_key()
    .resp(-3, Keys::FIRST),
    Command::new("PERSIST", "generic", "Removes the expiry of keys.", keys::persist)
        .writes()
        .scope(Scope::EachKey)
        .needs_key()
        .line("PERSIST", "key", Syntax::Keys, "PERSISTS", "PERSIST session")
        .resp(2, Keys::FIRST),
    Command::new("TTL", "generic", "Returns the seconds left until keys expire, rounded up.", |state, call| read(state, call, &keys::TTL))
        .differs("Rounded up.")
        .reads()
        .line("TTL", "key", Syntax::Keys, "LASTS", "TTL session")
        .resp(2, Keys::FIRST),
    Command::new("PTTL", "generic", "Returns the milliseconds left until a key expires.", |state, call| read(state, call, &keys::PTTL))
        .reads()
        .resp(2, Keys::FIRST),
    Command::new(
        "EXPIRETIME",
        "generic",
        "Returns when a key expires, in seconds since 1970.",
        |state, call| read(state, call, &keys::EXPIRETIME),
    )
    .reads()
    .resp(2, Keys::FIRST),
    Command::new(
        "PEXPIRETIME",
        "generic",
        "Returns when a key expires, in milliseconds since 1970.",
        |state, call| read(state, call, &keys::PEXPIRETIME),
    )
    .reads()
    .resp(2, Keys::FIRST),
    Command::new("RENAME", "generic", "Renames a key.", keys::rename)
        .writes()
        .scope(Scope::FirstKey)
        .needs_key()
        .resp(3, Keys::TWO),
    Command::new("RENAMENX", "generic", "Renames a key, unless the new name exists.", keys::renamenx)
        .writes()
        .scope(Scope::FirstKey)
        .needs_key()
        .differs("An error if another node may hold the new name.")
        .resp(3, Keys::TWO),
    Command::new("COPY", "generic", "Copies a key to another name.", keys::copy)
        .writes()
        .scope(Scope::FirstKey)
        .needs_key()
        .differs("Without REPLACE an error if another node may hold the new name.")
        .resp(-3, Keys::TWO),
    Command::new("KEYS", "generic", "Returns the keys of this node that match a pattern.", scan::keys)
        .differs("Keys of this node; up to 1,023 characters beside `*`.")
        .takes_a_step()
        .line("KEYS", "pattern", Syntax::Field, "KEYS", "KEYS user:*")
        .resp(2, Keys::NONE),
    Command::new("SCAN", "generic", "Returns the next keys of this node after a cursor.", scan::scan)
        .differs("Keys of this node. An empty or a negative cursor is an error, as in Valkey 9.1.")
        .takes_a_step()
        .resp(-2, Keys::NONE),
    Command::new("RANDOMKEY", "generic", "Returns some key of this node.", scan::randomkey)
        .differs("Not all keys are equally likely.")
        .takes_a_step()
        .resp(1, Keys::NONE),
    Command::new("DBSIZE", "server", "Returns the number of keys of this node.", scan::dbsize)
        .resp(1, Keys::NONE),
    Command::new("COUNT", "server", "Returns the number of keys of this node.", scan::dbsize).line(
        "COUNT",
        "",
        Syntax::Bare,
        "COUNT",
        "COUNT",
    ),
    Command::new(
        "FLUSHALL",
        "server",
        "Removes all keys of this node, and with MESH those of all linked nodes.",
        scan::flush,
    )
    .takes_a_step()
    .scope(Scope::Mesh)
    .differs("Keys of this node; FLUSHALL MESH for all nodes.")
    .line("FLUSHALL", "[MESH]", Syntax::Words, "FLUSHED", "FLUSHALL MESH")
    .resp(-1, Keys::NONE),
    Command::new("FLUSHDB", "server", "Removes all keys of this node, as FLUSHALL does.", scan::flush)
        .takes_a_step()
        .scope(Scope::Mesh)
        .differs("As FLUSHALL.")
        .resp(-1, Keys::NONE),
    Command::new("WHO", "mesh", "Returns the nodes that hold a key, or whose filters claim it.", status::who)
        .line("WHO", "key", Syntax::Key, "HELD", "WHO user"),
    Command::new("PING", "connection", "Returns PONG; in lines PONG 1 with the id of the request, or 0.", connection::ping)
        .open()
        .line("PING", "", Syntax::Words, "PONG", "PING")
        .resp(-1, Keys::NONE),
    Command::new("MESH", "mesh", "Returns the other nodes that are known, one field for each.", status::mesh)
        .takes_a_step()
        .line("MESH", "", Syntax::Bare, "MESH", "MESH"),
    Command::new(
        "STATS",
        "server",
        "Returns the node's metrics, or those of some sections or names.",
        status::stats,
    )
    .takes_a_step()
    .line("STATS", "[name]", Syntax::Words, "STATS", "STATS memory,hits"),
    Command::new("AUTH", "connection", "Authenticates with the node's password.", connection::auth)
        .open()
        .line("AUTH", "password", Syntax::Field, "WELCOME", "AUTH \"open, sesame\"")
        .resp(-2, Keys::NONE),
    Command::new("REQUEST", "mesh", "Requests data about the mesh.", status::request).topics().line(
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
    .immediate()
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
    Command::new("COMMAND", "server", "Returns arity, flags and key positions of each command.", server::command)
        .topics()
        .takes_a_step()
        .resp(-1, Keys::NONE),
    Command::new("COMMAND COUNT", "server", "Returns the number of commands.", server::count)
        .resp(2, Keys::NONE),
    Command::new("COMMAND LIST", "server", "Returns the names of the commands.", server::list)
        .resp(-2, Keys::NONE),
    Command::new(
        "COMMAND INFO",
        "server",
        "Returns arity, flags and key positions of some commands.",
        server::info,
    )
    .differs("Flags are readonly, write, no_auth and fast; there are no tips and no key specifications.")
    .resp(-2, Keys::NONE),
    Command::new("COMMAND DOCS", "server", "Returns the documentation of commands.", server::docs)
        .takes_a_step()
        .resp(-2, Keys::NONE),
    Command::new("COMMAND GETKEYS", "server", "Returns the keys of a request.", server::getkeys)
        .resp(-3, Keys::NONE),
    Command::new("ECHO", "connection", "Returns its argument.", connection::echo).resp(2, Keys::NONE),
    Command::new("SELECT", "connection", "Chooses the database: 0 is the only one.", connection::select)
        .resp(2, Keys::NONE),
    Command::new("RESET", "connection", "Resets the connection to its initial state.", connection::reset)
        .open()
        .immediate()
        .resp(1, Keys::NONE),
    Command::new("READONLY", "connection", "Answers that cluster support is disabled.", connection::no_cluster).resp(1, Keys::NONE),
    Command::new("READWRITE", "connection", "Answers that cluster support is disabled.", connection::no_cluster).resp(1, Keys::NONE),
    Command::new("CLIENT", "connection", "Has subcommands about connections of clients.", server::topics)
        .topics()
        .resp(-2, Keys::NONE),
    Command::new("CLIENT ID", "connection", "Returns the number of the connection.", client::id)
        .resp(2, Keys::NONE),
    Command::new("CLIENT INFO", "connection", "Returns a line about the connection.", client::info)
        .differs("laddr and fd are not known; cmd is NULL for other clients.")
        .resp(2, Keys::NONE),
    Command::new("CLIENT LIST", "connection", "Returns a line about each client.", client::list)
        .takes_a_step()
        .differs("At most 1024 clients; see CLIENT INFO.")
        .resp(-2, Keys::NONE),
    Command::new("CLIENT GETNAME", "connection", "Returns the name of the connection.", client::getname)
        .resp(2, Keys::NONE),
    Command::new("CLIENT SETNAME", "connection", "Names the connection.", client::setname)
        .resp(3, Keys::NONE),
    Command::new("CLIENT SETINFO", "connection", "Stores name or version of the client's library.", client::setinfo)
        .resp(4, Keys::NONE),
    Command::new("CLIENT KILL", "connection", "Closes connections of clients.", client::kill)
        .takes_a_step()
        .differs("LADDR matches no client. Links of peers are never closed.")
        .resp(-3, Keys::NONE),
    Command::new("CLIENT REPLY", "connection", "Turns replies to the connection on or off.", client::reply)
        .differs("Keys are not read on other nodes for a request that is not answered.")
        .resp(3, Keys::NONE),
    Command::new("CLIENT NO-EVICT", "connection", "Accepts on and off.", client::switch)
        .differs("Without effect: the limit of all buffers holds for every client.")
        .resp(3, Keys::NONE),
    Command::new("CLIENT NO-TOUCH", "connection", "Accepts on and off.", client::switch)
        .differs("Without effect: reads count for eviction.")
        .resp(3, Keys::NONE),
    Command::new("CLIENT TRACKING", "connection", "Accepts off.", client::tracking)
        .differs("ON is an error.")
        .resp(-3, Keys::NONE),
    Command::new("MULTI", "transactions", "Begins a transaction.", transaction::multi)
        .immediate()
        .differs("At most 4096 requests or keys.")
        .resp(1, Keys::NONE),
    Command::new("EXEC", "transactions", "Carries out the transaction.", transaction::exec)
        .immediate()
        .scope(Scope::Transaction)
        .differs("After 16 MiB of copied values (APPEND, COPY, RENAME, SETRANGE) the rest gets errors. \
                  EXECABORT if no node holds all keys that queued requests depend on.")
        .resp(1, Keys::NONE),
    Command::new(
        "DISCARD",
        "transactions",
        "Ends the transaction without carrying it out.",
        transaction::discard,
    )
    .immediate()
    .resp(1, Keys::NONE),
    Command::new(
        "WATCH",
        "transactions",
        "Discards the next transaction if one of these keys changes.",
        transaction::watch,
    )
    .immediate()
    .differs("An error for a key that may be on another node.")
    .resp(-2, Keys::ALL),
    Command::new("UNWATCH", "transactions", "Drops the watched keys.", transaction::unwatch)
        .resp(1, Keys::NONE),
    Command::new("INFO", "server", "Returns the metrics of the node.", info::info)
        .takes_a_step()
        .differs("Fields that are not measured are left out; the sections Olivia and Mesh are added.")
        .resp(-1, Keys::NONE),
    Command::new("TIME", "server", "Returns the time.", inspect::time)
        .differs("To the millisecond.")
        .resp(1, Keys::NONE),
    Command::new("LOLWUT", "server", "Returns the version.", inspect::lolwut).resp(-1, Keys::NONE),
    Command::new("SHUTDOWN", "server", "Shuts the node down after the replies to all requests.", inspect::shutdown)
        .differs("Nothing is saved, whatever the options.")
        .resp(-1, Keys::NONE),
    Command::new("CONFIG", "server", "Shows and changes settings.", server::topics)
        .topics()
        .resp(-2, Keys::NONE),
    Command::new("CONFIG GET", "server", "Returns the settings that match patterns.", settings::get)
        .takes_a_step()
        .differs("The settings of Olivia, and some under Redis's names.")
        .resp(-3, Keys::NONE),
    Command::new("CONFIG SET", "server", "Changes limits until the file is read again.", settings::set)
        .takes_a_step()
        .differs("Limits only, except clients_max.")
        .resp(-4, Keys::NONE),
    Command::new(
        "CONFIG RESETSTAT",
        "server",
        "Counts requests and reads from 0 again.",
        settings::resetstat,
    )
    .resp(2, Keys::NONE),
    Command::new("CONFIG REWRITE", "server", "Returns an error.", settings::rewrite)
        .differs("An error: edit the file and send SIGHUP.")
        .resp(2, Keys::NONE),
    Command::new("MEMORY", "server", "Returns how memory is used.", server::topics)
        .topics()
        .resp(-2, Keys::NONE),
    Command::new("MEMORY USAGE", "server", "Returns the bytes of a key.", inspect::usage)
        .reads()
        .differs("Keys of this node; bytes of key and value, and the mean overhead of an item.")
        .resp(-3, Keys::FIRST),
    Command::new("MEMORY STATS", "server", "Returns how memory is used.", inspect::memory)
        .differs("The fields are those of this node.")
        .resp(2, Keys::NONE),
    Command::new("OBJECT", "generic", "Has subcommands about the item of a key.", server::topics)
        .topics()
        .resp(-2, Keys::NONE),
    Command::new(
        "OBJECT ENCODING",
        "generic",
        "Returns the encoding that Redis would report for the value.",
        inspect::encoding,
    )
    .reads()
    .differs("Keys of this node.")
    .resp(3, Keys::FIRST),
    Command::new(
        "OBJECT IDLETIME",
        "generic",
        "Returns the seconds since the last write.",
        inspect::idletime,
    )
    .reads()
    .differs("Keys of this node; reads do not count.")
    .resp(3, Keys::FIRST),
    Command::new("OBJECT FREQ", "generic", "Returns an error.", inspect::freq)
        .reads()
        .differs("Keys of this node.")
        .resp(3, Keys::FIRST),
    Command::new("OBJECT REFCOUNT", "generic", "Returns 1.", inspect::refcount)
        .reads()
        .differs("Keys of this node.")
        .resp(3, Keys::FIRST),
    Command::new("SLOWLOG", "server", "Has subcommands about slow requests.", server::topics)
        .topics()
        .resp(-2, Keys::NONE),
    Command::new("SLOWLOG GET", "server", "Returns the requests that took long, the latest first.", slow::get)
        .differs("Times count from the arrival of the request to the last byte of its reply handed to the socket. Of the arguments only the key of a lookup on peers is shown; the last element shows how the time was spent.")
        .resp(-2, Keys::NONE),
    Command::new("SLOWLOG LEN", "server", "Returns the number of slow requests that are kept.", slow::len)
        .resp(2, Keys::NONE),
    Command::new("SLOWLOG RESET", "server", "Drops the slow requests.", slow::reset).resp(2, Keys::NONE),
    Command::new("LATENCY", "server", "Has subcommands about latency.", server::topics).topics().resp(-2, Keys::NONE),
    Command::new("LATENCY LATEST", "server", "Returns the latest and the longest latency events.", slow::latest)
        .differs("Two events: command, a slow request, and event-loop, an iteration; both from slow_request_us on.")
        .resp(2, Keys::NONE),
    Command::new("LATENCY HISTORY", "server", "Returns the latency events of a kind.", slow::history)
        .resp(3, Keys::NONE),
    Command::new("LATENCY HISTOGRAM", "server", "Returns the work of this node per request, by command.", slow::histogram)
        .differs("Requests that this node answers at once; requests of one read share its time.")
        .resp(-2, Keys::NONE),
    Command::new("LATENCY RESET", "server", "Drops latency events.", slow::reset_events).resp(-2, Keys::NONE),
    Command::new("CLUSTER", "cluster", "Has subcommands about clusters.", server::topics).topics().resp(-2, Keys::NONE),
    Command::new(
        "CLUSTER INFO",
        "cluster",
        "Answers that cluster support is disabled.",
        connection::no_cluster,
    )
    .resp(2, Keys::NONE),
    Command::new(
        "CLUSTER MYID",
        "cluster",
        "Answers that cluster support is disabled.",
        connection::no_cluster,
    )
    .resp(2, Keys::NONE),
    Command::new(
        "CLUSTER NODES",
        "cluster",
        "Answers that cluster support is disabled.",
        connection::no_cluster,
    )
    .resp(2, Keys::NONE),
    Command::new(
        "CLUSTER SHARDS",
        "cluster",
        "Answers that cluster support is disabled.",
        connection::no_cluster,
    )
    .resp(2, Keys::NONE),
    Command::new(
        "CLUSTER SLOTS",
        "cluster",
        "Answers that cluster support is disabled.",
        connection::no_cluster,
    )
    .resp(2, Keys::NONE),
    Command::new("ACL", "server", "Has subcommands about users.", server::topics).topics().resp(-2, Keys::NONE),
    Command::new("ACL WHOAMI", "server", "Returns the user.", inspect::whoami).resp(2, Keys::NONE),
    Command::new("ACL USERS", "server", "Returns the one user.", inspect::users).resp(2, Keys::NONE),
    Command::new("ACL LIST", "server", "Returns the rules of the one user.", inspect::acl)
        .differs("The password is not shown, nor its hash.")
        .resp(2, Keys::NONE),
    Command::new("ACL CAT", "server", "Returns the categories, or the commands of one.", inspect::cat)
        .resp(-2, Keys::NONE),
    Command::new("OLIVIA", "mesh", "Has subcommands about this node and its mesh.", server::topics)
        .topics()
        .resp(-2, Keys::NONE),
    Command::new(
        "OLIVIA WHO",
        "mesh",
        "Returns the nodes that hold keys, or whose filters claim them.",
        status::whos,
    )
    .resp(-3, Keys::ALL),
    Command::new("OLIVIA MESH", "mesh", "Returns a line about each other node.", status::nodes)
        .takes_a_step()
        .resp(2, Keys::NONE),
    Command::new(
        "OLIVIA STATS",
        "mesh",
        "Returns the node's metrics, or those of some sections or names.",
        status::metrics,
    )
    .takes_a_step()
    .resp(-2, Keys::NONE),
];

#[cfg(test)]
mod tests {
    use super::TABLE;
    use crate::base::time::{Instant, Now};
    use crate::config::Config;
    use crate::node::Node;
    use memchr::memmem;
    use std::fmt::Write;
    use std::{env, fs};

    /// Sends each command in RESP with the fewest arguments that it takes, one less and one more: each gets a reply.
    #[test]
    fn every_row_is_answered_whatever_its_arguments() {
        let now = Now { mono: Instant::from_millis(5_000), wall_nanos: 1_700_000_000_000_000_000 };
        for row in TABLE.rows.iter().filter(|row| row.resp.is_some()) {
            let arity = row.resp.map_or(0, |form| form.arity.unsigned_abs() as usize);
            let words = row.name.split(' ').count();
            for count in words.max(arity - 1)..=arity + 1 {
                let mut node = Node::new(Config::default(), 1, now);
                let client = node.accept(now, "127.0.0.1:40000".parse().unwrap()).unwrap();
                let args = row.name.split(' ').chain(std::iter::repeat_n("1", count - words));
                let mut request = format!("*{count}\r\n");
                args.for_each(|arg| write!(request, "${}\r\n{arg}\r\n", arg.len()).unwrap());
                node.received(now, client, request.as_bytes());
                let mut ticks = 0;
                while node.has_work(now) && ticks < 1_000 {
                    node.tick(now);
                    ticks += 1;
                }
                let reply = node.outbound(client).collect::<Vec<_>>().concat();
                assert!(!reply.is_empty() || row.name == "SHUTDOWN", "{} with {count} words", row.name);
                let is_refused = memmem::find(&reply, b"wrong number of arguments for '").is_some();
                assert!(row.takes(count) || is_refused, "{} takes {count} words", row.name);
            }
        }
    }

    /// Fails when `docs/compatibility.md` differs from the table. `OLIVIA_WRITE_DOCS=1` writes it.
    #[test]
    fn documentation_of_the_commands_is_not_stale() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
        let page = page();
        if env::var_os("OLIVIA_WRITE_DOCS").is_some() {
            fs::write(path, &page).unwrap();
        }
        assert!(
            fs::read_to_string(path).unwrap_or_default() == page,
            "docs/compatibility.md is stale; make docs"
        );
    }

    fn page() -> String {
        let mut page = "# Compatibility with Redis\n\n\
            Written by `make docs` from the table in `src/node/command/table.rs`. Names, arguments, replies and \
            errors\nare those of Redis 7.2, except as stated here. Any other command gets Redis's error for an \
            unknown one.\n\n\
            ## What differs in meaning\n\n\
            - Reads find a key on any node of the mesh. A key has one value: SET is carried out by the node that \
            receives\n  it, and older values on other nodes are dropped. DEL reaches every node that may hold a key.\n\
            - A command that depends on the old value (INCR, APPEND, SET NX, GETDEL, EXPIRE, ...) is carried out \
            once, by the\n  node that holds the key. Later requests of the connection wait for its reply. If the answer \
            is lost, the error is\n  `UNKNOWN`: the command was carried out once or not at all, and no client \
            repeats it by itself. While a node that\n  cannot be reached may hold the key, nothing is done, and the error \
            is `UNREACHABLE`. `TRYAGAIN`: nothing was done.\n\
            - A new key is created on its home node, one of the linked nodes. Keys with the same `{tag}` have the same \
            home\n  node.\n\
            - MSETNX, MSETEX with NX or XX, and in lines INCR and APPEND of several keys need one node that holds \
            all keys;\n  else the error is `CROSSSLOT`. RENAME, RENAMENX and COPY are carried out on the node that \
            holds the old name.\n\
            - WATCH takes keys that are on this node or on none; a key that may be on another node is an error.\n\
            - EXEC has two parts. Requests that depend on old values, reads of keys that later requests write, and all \
            other\n  requests for the same keys are carried out on the one node that holds these keys, the rest then on \
            the node that\n  received EXEC. If no node holds all these keys, nothing is carried out: `EXECABORT`. A key of \
            another node that\n  is only read has its value at the time at which that node answers.\n\
            - There is one database, 0, and one user, `default`. Nothing is saved to disk. There are strings only.\n\
            - An answer to a wrong password comes at most once per second, and the tenth closes the connection.\n\
            - A key has at most `key_bytes_max` bytes, a value `value_bytes_max` (8 MiB), an expiry is at the latest in \
            the\n  year 9999; beyond these limits the error is Redis's for a string or a time that is too large.\n\
            - Errors that show a word of the request show control characters escaped.\n\
            - CONFIG SET holds until the configuration file is read again. `maxmemory-policy` is \
            `eviction` and\n  `eviction_only_with_ttl` in the words of Redis: each policy for all keys is shown as \
            `allkeys-lru`, each one for\n  keys with a TTL as `volatile-lru`.\n"
            .to_owned();
        let mut groups: Vec<&str> = TABLE.rows.iter().map(|row| row.group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let rows: Vec<_> =
                TABLE.rows.iter().filter(|row| row.group == group && row.resp.is_some()).collect();
            if rows.is_empty() {
                continue;
            }
            write!(
                page,
                "\n## {group}\n\n| command | since | what it does | differs from Redis |\n|---|---|---|---|\n"
            )
            .unwrap();
            for row in rows {
                writeln!(page, "| `{}` | {} | {} | {} |", row.name, row.since, row.summary, row.differs)
                    .unwrap();
            }
        }
        page
    }
}
