//! Runs the work that lower layers have queued for the command layer, before the call that caused it returns.

use crate::base::chunk_queue::ChunkQueue;
use crate::base::time::Now;
use crate::node::command::dispatch::{execute_all_silently, fail_transaction, finish_transaction};
use crate::node::command::find::find_command;
use crate::node::command::forwarding::{carry_out_one, carry_out_own, serve};
use crate::node::conn::pending;
use crate::node::ids::PendingKey;
use crate::node::lookup::answers::Answer;
use crate::node::lookup::forwarded::QueuedCommand;
use crate::node::state::State;
use crate::wire::remote_reply::RemoteReply;

/// Runs all queued commands. Returns their cost in keys, with the work that they cause, at least one per command.
pub(in crate::node) fn run(state: &mut State, now: Now) -> usize {
    let mut cost = 0;
    while let Some(command) = state.mesh.queued_commands.next() {
        let keys = match command {
            QueuedCommand::FromPeer(command) => serve(state, now, &command),
            QueuedCommand::Own(lookup) => carry_out_own(state, now, lookup),
            QueuedCommand::Transaction(pending) => end_transaction(state, now, pending),
        };
        cost += keys.max(1) + state.keyspace.take_uncharged();
    }
    cost
}

/// Carries out the rest of a transaction after another node has carried out its part, and replies. Returns the cost in
/// keys.
fn end_transaction(state: &mut State, now: Now, key: PendingKey) -> usize {
    let Some(mut pending) = pending::take(state, key) else { return 1 };
    let Some((requests, is_there)) = pending.take_transaction() else { return 1 };
    let (conn, protocol) = (pending.conn(), pending.protocol());
    let remote = match pending.part(0) {
        Some((_, Answer::Reply(bytes))) => RemoteReply::read(bytes.as_slice()).map(|remote| (bytes, remote)),
        Some((key, Answer::Failed(failure))) => {
            if pending.slot().is_some() {
                fail_transaction(state, now, conn, protocol, failure, key);
            }
            None
        }
        Some(_) | None => None,
    };
    let Some((bytes, remote)) = remote else { return 1 };
    let all = requests.iter().zip(is_there.iter().copied());
    let mut rest = all.clone().filter(|(_, is_done)| !is_done).map(|(words, _)| words);
    if state.conns.get(conn).is_none() {
        // A transaction is carried out whole, even if its client has disconnected.
        let mut results = ChunkQueue::new();
        for words in rest {
            if let Ok((command, args)) = find_command(words, &state.config.limits) {
                carry_out_one(state, now, conn, protocol, command, args, &mut results);
            }
        }
        1
    } else if pending.slot().is_none() {
        execute_all_silently(state, now, conn, protocol, &mut rest)
    } else {
        let results = remote.results().map(|result| bytes.part(result.bytes));
        finish_transaction(state, now, conn, protocol, (requests.len(), all), results)
    }
}
