//! CONFIG: the settings of the running node, under their own names and under Redis's.

use crate::base::glob;
use crate::config;
use crate::limits::{EvictionPolicy, Limits};
use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, CommandResult, Effect};
use crate::node::metrics::Calls;
use crate::node::state::State;

/// The meaning of a setting of Redis.
enum Alias {
    /// This setting.
    Of(&'static str),
    /// A constant.
    Always(&'static str),
    /// `slow_request_us`, in µs: -1 (never) is 0 there, and 0 (always) is 1.
    SlowerThan,
    /// `eviction` and `eviction_only_with_ttl`.
    Policy,
}

/// The setting with the time from which requests are slow.
const SLOW_REQUEST: &str = "limits.slow_request_us";

const ALIASES: [(&str, Alias); 17] = [
    ("maxmemory", Alias::Of("limits.memory_max")),
    ("maxmemory-policy", Alias::Policy),
    ("maxclients", Alias::Of("limits.clients_max")),
    ("proto-max-bulk-len", Alias::Of("limits.value_bytes_max")),
    ("port", Alias::Of("listen_port")),
    ("appendonly", Alias::Always("no")),
    ("save", Alias::Always("")),
    ("databases", Alias::Always("1")),
    ("timeout", Alias::Always("0")),
    ("cluster-enabled", Alias::Always("no")),
    ("notify-keyspace-events", Alias::Always("")),
    ("io-threads", Alias::Always("1")),
    ("slowlog-log-slower-than", Alias::SlowerThan),
    ("slowlog-max-len", Alias::Of("limits.slow_requests_max")),
    ("latency-monitor-threshold", Alias::Always("0")),
    ("replica-read-only", Alias::Always("no")),
    ("dir", Alias::Always("")),
];

/// CONFIG GET: the settings whose names match one of the patterns.
pub(super) fn get<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let own = config::settings(&state.config);
    let value_of = |path: &str| own.iter().find(|(name, _)| name == path).map(|(_, value)| value.as_str());
    let aliases = ALIASES.iter().map(|(name, alias)| match alias {
        Alias::Of(path) => (*name, value_of(path).unwrap_or_default()),
        Alias::Always(value) => (*name, *value),
        Alias::SlowerThan if state.config.limits.slow_request_us == 0 => (*name, "-1"),
        Alias::SlowerThan => (*name, value_of(SLOW_REQUEST).unwrap_or_default()),
        Alias::Policy => (*name, policy_name(&state.config.limits)),
    });
    let all = aliases.chain(own.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let is_meant = |name: &str| {
        call.args.iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let found: Vec<(&str, &str)> = all.filter(|(name, _)| is_meant(name)).collect();
    call.reply.map(found.len());
    for (name, value) in found {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    Ok(Effect::Reply)
}

/// The eviction policy of Redis that is nearest to that of the node.
pub(in crate::node) const fn policy_name(limits: &Limits) -> &'static str {
    match limits.eviction {
        EvictionPolicy::S3Fifo if limits.eviction_only_with_ttl => "volatile-lru",
        EvictionPolicy::S3Fifo => "allkeys-lru",
        EvictionPolicy::Refuse => "noeviction",
    }
}

/// The limits with the policy that is nearest to one of Redis.
fn with_policy(limits: &Limits, name: &str) -> Result<Limits, &'static str> {
    let (eviction, eviction_only_with_ttl) = match name {
        "allkeys-lru" | "allkeys-lfu" | "allkeys-random" => (EvictionPolicy::S3Fifo, false),
        "volatile-lru" | "volatile-lfu" | "volatile-random" | "volatile-ttl" => {
            (EvictionPolicy::S3Fifo, true)
        }
        "noeviction" => (EvictionPolicy::Refuse, limits.eviction_only_with_ttl),
        _ => {
            return Err(
                "argument must be one of the following: volatile-lru, volatile-lfu, volatile-random, volatile-ttl, \
                 allkeys-lru, allkeys-lfu, allkeys-random, noeviction",
            );
        }
    };
    Ok(Limits { eviction, eviction_only_with_ttl, ..limits.clone() })
}

/// CONFIG SET: changes limits until the configuration file is read again, all of them or none.
pub(super) fn set<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax(call.command.name, b""));
    }
    let mut limits = state.config.limits.clone();
    for [name, _] in call.args.tuples::<2>() {
        let given = String::from_utf8_lossy(name);
        if !is_setting(&given.to_ascii_lowercase()) {
            return Err(CommandError::Sentence(format!(
                "Unknown option or number of arguments for CONFIG SET - '{given}'"
            )));
        }
    }
    for [name, text] in call.args.tuples::<2>() {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        limits = changed(&limits, &name, &String::from_utf8_lossy(text))?;
    }
    apply(state, limits);
    call.reply.ok();
    Ok(Effect::Reply)
}

/// Whether there is a setting of this name, in the configuration or in Redis.
fn is_setting(name: &str) -> bool {
    let limit = Limits::default().with(name, "");
    limit.is_some()
        || ALIASES.iter().any(|(alias, _)| *alias == name)
        || config::settings(&config::Config::default()).iter().any(|(path, _)| path == name)
}

/// The limits after the change of one existing setting.
fn changed<'a>(limits: &Limits, name: &str, text: &str) -> Result<Limits, CommandError<'a>> {
    let failed = |reason: &str| {
        let sentence = format!("CONFIG SET failed (possibly related to argument '{name}') - {reason}");
        CommandError::Sentence(sentence)
    };
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let (path, text) = match alias {
        Some((_, Alias::Of(path))) => (*path, in_bytes(text)),
        Some((_, Alias::SlowerThan)) => (SLOW_REQUEST, in_micros(text)),
        Some((_, Alias::Policy)) => return with_policy(limits, &text.to_ascii_lowercase()).map_err(failed),
        // Many programs set constants to the values that they have.
        Some((_, Alias::Always(value))) if *value == text => return Ok(limits.clone()),
        Some((_, Alias::Always(_))) => return Err(failed("can't set immutable config")),
        None => (name, text.to_owned()),
    };
    let limit = path.strip_prefix("limits.").unwrap_or(path);
    if limit == "clients_max" {
        return Err(failed(
            "can't set immutable config: clients_max depends on file descriptors; set it in the file",
        ));
    }
    match limits.with(limit, &text) {
        Some(Ok(limits)) => Ok(limits),
        Some(Err(reason)) => Err(failed(&reason)),
        None => Err(failed("can't set immutable config")),
    }
}

/// Converts a time of Redis in µs (-1: never, 0: always) to `slow_request_us`.
fn in_micros(text: &str) -> String {
    let own = match text {
        "-1" => "0",
        "0" => "1",
        other => other,
    };
    own.to_owned()
}

/// Converts a size of Redis, as `100mb`, to bytes; returns other text unchanged.
fn in_bytes(text: &str) -> String {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return text.to_owned(),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.map_or_else(|| text.to_owned(), |bytes| bytes.to_string())
}

/// Applies limits to the running node.
pub(in crate::node) fn apply(state: &mut State, limits: Limits) {
    state.keyspace.set_limits(&limits);
    let (used, max) = (state.keyspace.store().memory_bytes(), limits.memory_max);
    if max != 0 && used > max {
        let effect = match limits.eviction {
            EvictionPolicy::S3Fifo if limits.eviction_only_with_ttl => "items with a TTL are evicted",
            EvictionPolicy::S3Fifo => "items are evicted",
            EvictionPolicy::Refuse => "writes fail until memory is freed",
        };
        log::warn!("memory_max is {max} bytes, below the {used} bytes in use; {effect}");
    }
    state.mesh.filters.set_bytes_max(limits.peer_filters_max);
    state.slow_log.limit(&limits);
    state.config.limits = limits;
}

/// CONFIG RESETSTAT: resets the counts of requests, calls and reads, the histograms of work, and the longest iteration.
pub(super) fn resetstat<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    state.stats.reset();
    state.calls = Calls::default();
    state.loop_times.reset_max();
    state.latency.reset_work();
    call.reply.ok();
    Ok(Effect::Reply)
}

/// CONFIG REWRITE: an error, since a node does not write its configuration file.
pub(super) fn rewrite<'a>(_: &mut State, _: &mut Call<'a>) -> CommandResult<'a> {
    Err(CommandError::Plain("the node does not write its configuration file; edit it and send SIGHUP"))
}
