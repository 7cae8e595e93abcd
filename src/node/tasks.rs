//! The filter as text, written in steps: it grows with the store, and nobody waits for it but who asked.
//!
//! A request for it takes its place among the replies of its connection. One text is written at a time;
//! the blocks are those of the moment at which each is written, which is what any reader of a filter that
//! goes on changing can hope for.

use crate::base::time::Now;
use crate::node::ids::ConnKey;
use crate::node::state::{State, Text, TextBegun, mark_dirty};
use crate::wire::filter_dump::{FilterDump, FilterHead};
use crate::wire::reply::{Reply, put_error};

/// Blocks written in one step: 16 KiB of filter, 32 KiB of text, some 20 µs.
const BLOCKS_PER_STEP: usize = 256;

/// Takes a place for the filter's text among the replies of a connection. An error that can be known at
/// once is told at once.
pub(in crate::node) fn begin(state: &mut State, key: ConnKey, id: &[u8]) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let place = conn.replies.hold();
    state.texts.push_back(Text { conn: key, place, id: id.into(), begun: None });
}

/// Writes some blocks of the text whose turn it is; false if nobody waits for one.
pub(in crate::node) fn step(state: &mut State, now: Now) -> bool {
    let Some(mut text) = state.texts.pop_front() else { return false };
    if state.conns.get(text.conn).is_none() {
        return true;
    }
    let filter = state.keyspace.own_filter();
    let size = filter.size();
    if text.begun.as_ref().is_none_or(|begun| begun.size != size) {
        let limit = state.config.limits.reply_bytes_max;
        let begun = start(state, &text.id);
        // Two digits for a byte, where no run of zeroes makes it shorter, and the line's end.
        if begun.text.len() as u64 + size.bytes() * 2 + 1 > u64::from(limit) {
            let sentence = format!(
                "the filter of {} bytes would take more than the {limit} bytes of a reply; peers get it in frames",
                size.bytes()
            );
            state.stats.request_errors += 1;
            let mut error = state.pool.take();
            put_error(&mut error, &text.id, sentence);
            fill(state, now, &text, error);
            return true;
        }
        text.begun = Some(begun);
    }
    let filter = state.keyspace.own_filter();
    let Some(begun) = &mut text.begun else { return true };
    let until = size.blocks().min(begun.next + BLOCKS_PER_STEP);
    for number in begun.next..until {
        let block = filter.image(size, number).unwrap_or_default();
        begun.writer.words(&block, &mut begun.text);
    }
    begun.next = until;
    if until < size.blocks() {
        state.texts.push_front(text);
        return true;
    }
    if let Some(TextBegun { text: mut bytes, writer, .. }) = text.begun.take() {
        writer.finish(&mut bytes);
        bytes.push(b'\n');
        fill(state, now, &text, bytes);
    }
    true
}

fn start(state: &State, id: &[u8]) -> TextBegun {
    let size = state.keyspace.own_filter().size();
    let head = state.keyspace.changelog().head();
    let head = FilterHead {
        blocks: size.blocks() as u64,
        keys: state.keyspace.store().len() as u64,
        epoch: head.epoch,
        seq: head.seq,
    };
    let mut text = Vec::new();
    let reply = Reply::begin(&mut text, id, "FULFILLED");
    let writer = reply.open(|out| FilterDump::begin(&head, out));
    TextBegun { text, writer, size, next: 0 }
}

fn fill(state: &mut State, now: Now, text: &Text, bytes: Vec<u8>) {
    let State { conns, pool, .. } = state;
    if let Some(conn) = conns.get_mut(text.conn) {
        conn.fill(now.mono, text.place, &bytes, pool);
    }
    pool.give(bytes);
    mark_dirty(state, text.conn);
}
