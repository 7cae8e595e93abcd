//! Suggestions for unknown verbs.

use crate::node::command::row::Table;

/// Bytes of the longest verb that is compared with the known ones.
const VERB_BYTES_MAX: usize = 16;

/// Verbs of Redis and of other programs, with suggestions.
const KNOWN: [(&str, &str); 39] = [
    ("MGET", "GET takes several keys: GET a,b"),
    ("MSET", "SET takes several pairs: SET a:1,b:2"),
    ("PUT", "did you mean SET?"),
    ("ADD", "did you mean SETNX?"),
    ("INCRBY", "INCR adds 1: INCR visits"),
    ("DECRBY", "DECR subtracts 1: DECR stock"),
    ("PSETEX", "SETEX takes whole seconds: SETEX session:Ann:30"),
    ("PEXPIRE", "EXPIRE takes whole seconds: EXPIRE session:30"),
    ("PTTL", "TTL returns seconds: TTL session"),
    ("DELETE", "did you mean DEL?"),
    ("REMOVE", "did you mean DEL?"),
    ("RM", "did you mean DEL?"),
    ("UNLINK", "did you mean DEL?"),
    ("SCAN", "KEYS returns the keys that match a pattern: KEYS user:*"),
    ("DBSIZE", "did you mean COUNT?"),
    ("FLUSHDB", "did you mean FLUSHALL?"),
    ("EXIT", "did you mean QUIT?"),
    ("BYE", "did you mean QUIT?"),
    ("LOGIN", "did you mean AUTH?"),
    ("INFO", "did you mean STATS?"),
    ("NODES", "did you mean MESH?"),
    ("VERSION", "STATS shows it: STATS version"),
    ("SAVE", NO_DISK),
    ("BGSAVE", NO_DISK),
    ("LPUSH", STRINGS_ONLY),
    ("RPUSH", STRINGS_ONLY),
    ("LPOP", STRINGS_ONLY),
    ("LRANGE", STRINGS_ONLY),
    ("HSET", STRINGS_ONLY),
    ("HGET", STRINGS_ONLY),
    ("HGETALL", STRINGS_ONLY),
    ("SADD", STRINGS_ONLY),
    ("SMEMBERS", STRINGS_ONLY),
    ("ZADD", STRINGS_ONLY),
    ("XADD", STRINGS_ONLY),
    ("SUBSCRIBE", NO_MESSAGES),
    ("PUBLISH", NO_MESSAGES),
    ("EVAL", "there are no scripts here"),
    ("MONITOR", "STATS counts requests; olivia top shows them"),
];

const NO_DISK: &str = "nothing is written to disk here";
const STRINGS_ONLY: &str = "values are strings here; there are no lists, hashes or sets";
const NO_MESSAGES: &str = "there is no pub/sub here";

/// The suggestion for an unknown verb: for verbs of other programs, for typing errors, and for a verb that was parsed
/// as the id because no space follows it.
pub(in crate::node) fn suggestion(table: &Table, id: &[u8], verb: &[u8]) -> String {
    let letters = id.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let command = if letters > 0 { table.find(&id[..letters]) } else { None };
    if let Some(form) = command.and_then(|command| command.line.as_ref()) {
        return format!("a verb is followed by a space, as in: {}", form.example);
    }
    let verb = String::from_utf8_lossy(&verb[..verb.len().min(VERB_BYTES_MAX + 1)]).to_uppercase();
    if let Some((_, instead)) = KNOWN.iter().find(|(known, _)| *known == verb) {
        return (*instead).to_owned();
    }
    if !verb.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return "try HELP".to_owned();
    }
    let errors_max = if verb.len() <= 4 { 1 } else { 2 };
    let verbs = table.rows.iter().filter(|row| row.line.is_some() && !row.name.contains(' '));
    let errors = verbs.map(|row| (strsim::osa_distance(row.name, &verb), row.name));
    match errors.min().filter(|&(errors, name)| errors <= errors_max && errors < name.len() - 1) {
        Some((_, name)) if verb.len() <= VERB_BYTES_MAX => format!("did you mean {name}?"),
        Some(_) | None if table.find(verb.as_bytes()).is_some() => {
            "it is for clients of Redis; try HELP".to_owned()
        }
        Some(_) | None => "try HELP".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::suggestion;
    use crate::node::command::table::TABLE;

    #[test]
    fn near_verb_is_suggested_and_a_far_one_is_not() {
        for (verb, instead) in [
            ("mget", "GET takes several keys: GET a,b"),
            ("exit", "did you mean QUIT?"),
            ("GTE", "did you mean GET?"),
            ("expier", "did you mean EXPIRE?"),
            ("STAT", "did you mean STATS?"),
            ("TYPE", "it is for clients of Redis; try HELP"),
            ("FOO", "try HELP"),
            ("X", "try HELP"),
            ("", "try HELP"),
        ] {
            assert_eq!(suggestion(&TABLE, b"7", verb.as_bytes()), instead, "{verb}");
        }
        assert_eq!(suggestion(&TABLE, b"", &[0xff; 100_000]), "try HELP");
        for id in ["GET", "get", "GET\ta"] {
            assert_eq!(
                suggestion(&TABLE, id.as_bytes(), b"1"),
                "a verb is followed by a space, as in: GET user,\"user:1\""
            );
        }
    }
}
