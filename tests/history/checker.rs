//! The check of a history of requests for anomalies, in the manner of Jepsen's register and set tests.
//!
//! Each value is written once, so a read identifies its write. Two writes are ordered by real time only if one ended
//! before the other began; where clocks may differ, by more than this difference. Without an order there is no anomaly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Time limit for the propagation of a write to other nodes, long enough for a machine with other load.
const DELAY: Duration = Duration::from_secs(2);
/// A node reads its clock just before a request, and may be interrupted between the two. Of two writes on different
/// nodes that are closer together than this, the later may have the older version.
const INTERRUPTION: Duration = Duration::from_millis(50);

/// The verb of a request. The number of a write is its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Set(u64),
    Get,
    Del,
    Incr,
    /// SET NX
    Lock(u64),
}

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Carried out; a read of nothing.
    Done,
    /// A read, or the new value of a counter.
    Value(u64),
    /// Certainly not carried out, or a read for which the nodes had not answered each other in time.
    Nothing,
    /// Carried out or not.
    Unknown,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Op {
    pub node: usize,
    pub key: String,
    pub verb: Verb,
    pub begin: Duration,
    pub end: Duration,
    pub result: End,
}

/// The faults of a run.
#[derive(Debug, Default)]
pub struct Faults {
    /// From the begin of a fault until all nodes were linked again.
    pub windows: Vec<(Duration, Duration)>,
    /// The killed nodes, with the time.
    pub kills: Vec<(usize, Duration)>,
    /// Maximum difference between the clocks of two nodes.
    pub skew: Duration,
}

/// The anomalies, some of which `docs/consistency.md` allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// A value that was never written, or before it was written.
    Invented,
    /// A node returned less than was written through it.
    OlderThanOwn,
    /// A value that was overwritten, or deleted, long before, while all nodes were linked.
    Stale,
    /// No value, although the key had been there for long, while all nodes were linked.
    Missing,
    /// Nodes differ at the end.
    Differ,
    /// The value at the end was overwritten or deleted by a later request.
    LaterLost,
    /// No value at the end, although the last request was a write.
    Lost,
    /// Two increments returned the same number.
    SameNumber,
    /// A counter is at the end below the increments that were answered, or above those that were sent.
    Miscounted,
    /// Two clients got one lock, while all nodes were linked.
    TwoOwners,
    /// Two clients got one lock, about when a node was cut off or killed. `docs/consistency.md` allows it.
    TwoOwnersAcrossFault,
}

impl Faults {
    /// All nodes were linked, and no node was lost that may have held something.
    fn is_calm(&self, from: Duration, to: Duration) -> bool {
        self.windows.iter().all(|(begin, end)| to < *begin || from > *end + DELAY)
    }

    fn was_killed(&self, node: usize, since: Duration) -> bool {
        self.kills.iter().any(|(killed, at)| *killed == node && *at >= since)
    }

    fn had_kill(&self, since: Duration, until: Duration) -> bool {
        self.kills.iter().any(|(_, at)| *at >= since && *at <= until)
    }

    /// Whether one request certainly has an older version than another.
    fn precedes(&self, one: &Op, other: &Op) -> bool {
        let margin = if one.node == other.node { Duration::ZERO } else { self.skew + INTERRUPTION };
        one.end + margin < other.begin
    }
}

/// Whether a request changed its key, or may have.
fn is_write(op: &Op) -> bool {
    matches!(op.verb, Verb::Set(_) | Verb::Del) && op.result != End::Nothing
}

/// Examines a history whose reads by `finals` are the last of all. One line per anomaly.
pub fn check(ops: &[Op], finals: &[Op], faults: &Faults) -> BTreeMap<Anomaly, Vec<String>> {
    let mut found: BTreeMap<Anomaly, Vec<String>> = BTreeMap::new();
    let mut report = |anomaly, text: String| found.entry(anomaly).or_default().push(text);
    let keys: BTreeSet<&str> = ops.iter().map(|op| op.key.as_str()).collect();
    for key in keys {
        let of_key: Vec<&Op> = ops.iter().filter(|op| op.key == key).collect();
        let last: Vec<&Op> = finals.iter().filter(|op| op.key == key).collect();
        if of_key.iter().any(|op| op.verb == Verb::Incr) {
            check_counter(&of_key, &last, faults, &mut report);
        } else if of_key.iter().any(|op| matches!(op.verb, Verb::Lock(_))) {
            check_lock(&of_key, faults, &mut report);
        } else {
            check_register(&of_key, &last, faults, &mut report);
        }
        let values: BTreeSet<Option<u64>> = last.iter().map(|op| value_of(op)).collect();
        if values.len() > 1 {
            report(Anomaly::Differ, format!("{key}: {values:?}"));
        }
    }
    found
}

fn value_of(op: &Op) -> Option<u64> {
    if let End::Value(value) = op.result { Some(value) } else { None }
}

fn check_register(ops: &[&Op], last: &[&Op], faults: &Faults, report: &mut impl FnMut(Anomaly, String)) {
    let writes: Vec<&Op> = ops.iter().copied().filter(|op| is_write(op)).collect();
    let write_of = |value: u64| writes.iter().copied().find(|op| op.verb == Verb::Set(value));
    let reads =
        ops.iter().filter(|op| op.verb == Verb::Get && matches!(op.result, End::Done | End::Value(_)));
    for read in reads.copied().chain(last.iter().copied()) {
        // Writes that were answered before the read began.
        let earlier = writes.iter().filter(|write| write.result == End::Done && write.end < read.begin);
        let Some(value) = value_of(read) else {
            let is_missing = earlier.clone().any(|write| {
                matches!(write.verb, Verb::Set(_))
                    && write.end + DELAY < read.begin
                    && faults.is_calm(write.begin, read.end)
                    && !faults.had_kill(write.begin, read.end)
                    && !writes.iter().any(|del| {
                        del.verb == Verb::Del && !faults.precedes(del, write) && del.begin < read.end
                    })
            });
            if is_missing {
                report(Anomaly::Missing, format!("{read:?}"));
            }
            continue;
        };
        let Some(write) = write_of(value).filter(|write| write.begin < read.end) else {
            report(Anomaly::Invented, format!("{read:?}"));
            continue;
        };
        for later in earlier.filter(|later| faults.precedes(write, later)) {
            let text = || format!("{read:?}\n    written {write:?}\n    then {later:?}");
            // A killed node may have held the later value, or one that had replaced it.
            if faults.had_kill(write.begin, read.end) {
                continue;
            }
            let has_own = later.node == read.node;
            if has_own && matches!(later.verb, Verb::Set(_)) {
                report(Anomaly::OlderThanOwn, text());
            } else if later.end + DELAY < read.begin && faults.is_calm(write.begin, read.end) {
                report(Anomaly::Stale, text());
            }
        }
    }
    check_last(&writes, last, faults, report);
}

/// The value at the end is one that no later request replaced.
fn check_last(writes: &[&Op], last: &[&Op], faults: &Faults, report: &mut impl FnMut(Anomaly, String)) {
    let Some(read) = last.first() else { return };
    let final_write = value_of(read).and_then(|value| writes.iter().find(|op| op.verb == Verb::Set(value)));
    // What a killed node held is lost.
    let stays = |op: &Op| op.result == End::Done && !faults.was_killed(op.node, op.begin);
    match final_write {
        Some(write) => {
            let later = writes.iter().find(|later| {
                let is_lost_with_others = later.verb == Verb::Del && !faults.kills.is_empty();
                stays(later) && faults.precedes(write, later) && !is_lost_with_others
            });
            if let Some(later) = later {
                report(Anomaly::LaterLost, format!("{write:?}\n    then {later:?}"));
            }
        }
        None => {
            // A write after which nothing can have removed or replaced it, but what a killed node held.
            let lost = writes.iter().find(|write| {
                let may_replace = |other: &&&Op| {
                    let is_delete = other.verb == Verb::Del || faults.was_killed(other.node, other.begin);
                    is_delete && !faults.precedes(other, write)
                };
                matches!(write.verb, Verb::Set(_))
                    && stays(write)
                    && !writes.iter().any(|other| may_replace(&other))
            });
            if let Some(write) = lost {
                report(Anomaly::Lost, format!("{write:?}"));
            }
        }
    }
}

fn check_counter(ops: &[&Op], last: &[&Op], faults: &Faults, report: &mut impl FnMut(Anomaly, String)) {
    if !faults.kills.is_empty() {
        return;
    }
    let mut numbers: BTreeMap<u64, &Op> = BTreeMap::new();
    let increments = ops.iter().copied().filter(|op| op.verb == Verb::Incr);
    for op in increments.clone() {
        if let Some(other) = value_of(op).and_then(|number| numbers.insert(number, op)) {
            report(Anomaly::SameNumber, format!("{op:?}\n    and {other:?}"));
        }
    }
    let answered = increments.clone().filter(|op| value_of(op).is_some()).count() as u64;
    let sent = increments.filter(|op| op.result != End::Nothing).count() as u64;
    for read in last {
        let number = value_of(read).unwrap_or(0);
        if !(answered..=sent).contains(&number) {
            report(Anomaly::Miscounted, format!("{}: {number}, {answered} answered, {sent} sent", read.key));
        }
    }
}

fn check_lock(ops: &[&Op], faults: &Faults, report: &mut impl FnMut(Anomaly, String)) {
    let owners: Vec<&Op> =
        ops.iter().copied().filter(|op| matches!(op.verb, Verb::Lock(_)) && op.result == End::Done).collect();
    if let [one, other, ..] = owners[..] {
        let is_calm = faults.is_calm(one.begin.min(other.begin), one.end.max(other.end));
        let anomaly = if is_calm { Anomaly::TwoOwners } else { Anomaly::TwoOwnersAcrossFault };
        report(anomaly, format!("{one:?}\n    and {other:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::{Anomaly, End, Faults, Op, Verb, check};
    use std::time::Duration;

    /// A request of node `node` from `begin` to `end` in seconds.
    fn op(node: usize, key: &str, verb: Verb, begin: u64, end: u64, result: End) -> Op {
        let seconds = Duration::from_secs;
        Op { node, key: key.to_owned(), verb, begin: seconds(begin), end: seconds(end), result }
    }

    #[test]
    fn each_anomaly_is_noticed() {
        let kill = |node, at| Faults { kills: vec![(node, Duration::from_secs(at))], ..Faults::default() };
        let cut = || Faults {
            windows: vec![(Duration::from_secs(3), Duration::from_secs(9))],
            ..Faults::default()
        };
        let calm = Faults::default;
        let at_once =
            || Faults { windows: vec![(Duration::ZERO, Duration::from_secs(9))], ..Faults::default() };
        let set = |node, value, at| op(node, "r", Verb::Set(value), at, at, End::Done);
        let get = |node, value: u64, at| {
            op(node, "r", Verb::Get, at, at, if value == 0 { End::Done } else { End::Value(value) })
        };
        let del = |at| op(0, "r", Verb::Del, at, at, End::Done);
        let incr = |number, at| op(0, "c", Verb::Incr, at, at, End::Value(number));
        let lock = |node| op(node, "l", Verb::Lock(1), 0, 1, End::Done);
        let cases = [
            (vec![set(0, 1, 0), get(1, 2, 9)], vec![get(0, 1, 20)], calm(), Some(Anomaly::Invented)),
            (
                vec![set(0, 1, 0), set(1, 2, 1), get(1, 1, 2)],
                vec![get(0, 2, 20)],
                calm(),
                Some(Anomaly::OlderThanOwn),
            ),
            (
                vec![set(0, 1, 0), set(1, 2, 1), get(0, 1, 9)],
                vec![get(0, 2, 20)],
                calm(),
                Some(Anomaly::Stale),
            ),
            (vec![set(0, 1, 0), set(1, 2, 5), get(0, 1, 8)], vec![get(0, 2, 20)], cut(), None),
            (vec![set(0, 1, 0), del(1), get(0, 1, 9)], vec![get(0, 0, 20)], calm(), Some(Anomaly::Stale)),
            (vec![set(0, 1, 0), get(1, 0, 9)], vec![get(0, 1, 20)], calm(), Some(Anomaly::Missing)),
            (vec![set(0, 1, 0), get(1, 0, 1)], vec![get(0, 1, 20)], calm(), None),
            (vec![set(0, 1, 0)], vec![get(0, 1, 20), get(1, 0, 20)], cut(), Some(Anomaly::Differ)),
            (vec![set(0, 1, 0), set(1, 2, 4)], vec![get(0, 1, 10)], cut(), Some(Anomaly::LaterLost)),
            (vec![set(0, 1, 0), set(1, 2, 4)], vec![get(0, 1, 20)], kill(1, 5), None),
            (vec![set(0, 1, 0)], vec![get(0, 0, 10)], cut(), Some(Anomaly::Lost)),
            (vec![set(0, 1, 0)], vec![get(0, 0, 10)], kill(0, 5), None),
            (
                vec![incr(1, 0), incr(1, 1)],
                vec![op(0, "c", Verb::Get, 9, 9, End::Value(2))],
                calm(),
                Some(Anomaly::SameNumber),
            ),
            (
                vec![incr(1, 0), incr(2, 1)],
                vec![op(0, "c", Verb::Get, 9, 9, End::Value(1))],
                calm(),
                Some(Anomaly::Miscounted),
            ),
            (vec![lock(0), lock(1)], vec![], calm(), Some(Anomaly::TwoOwners)),
            (vec![lock(0), lock(1)], vec![], at_once(), Some(Anomaly::TwoOwnersAcrossFault)),
        ];
        for (at, (ops, finals, faults, expected)) in cases.into_iter().enumerate() {
            let found = check(&ops, &finals, &faults);
            let names: Vec<Anomaly> = found.keys().copied().collect();
            assert!(
                expected.map_or(names.is_empty(), |anomaly| names.contains(&anomaly)),
                "case {at}: {found:?}"
            );
        }
    }
}
