//! The timers of the node, except those of items, and the actions when one fires.

use crate::base::time::Now;
use crate::base::wheel::Popped;
use crate::node::command::login;
use crate::node::conn::connection::ClientProtocol;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::reconcile::{reconcile, release_pool};
use crate::node::conn::session::Session;
use crate::node::conn::timeouts;
use crate::node::digest::sync;
use crate::node::ids::ConnKey;
use crate::node::lookup::remote;
use crate::node::peer::dialer;
use crate::node::peer::link;
use crate::node::state::{State, Timer, close_conn};
use crate::wire::encoder::put_error;
use crate::wire::http::{Delivery, Status, TEXT, put_response};

/// Stale timers allowed beyond one per owner before they are purged.
const STALE_SPARE: usize = 4_096;

/// Whether [`run`] has work now.
pub(in crate::node) fn has_work(state: &State, now: Now) -> bool {
    state.timers.has_work(now.mono.millis()) || has_too_many_stale(state)
}

/// Whether most timers are stale. Every short connection leaves a stale one.
fn has_too_many_stale(state: &State) -> bool {
    let mesh = &state.mesh;
    state.timers.len() > 2 * (state.conns.len() + mesh.address_book.len() + mesh.peers.len()) + STALE_SPARE
}

/// Fires up to `budget` due timers, and checks as many others if too many are stale. Returns the cost in keys.
pub(in crate::node) fn run(state: &mut State, now: Now, budget: u32) -> usize {
    let mut cost = 0;
    for _ in 0..budget {
        cost += 1;
        match state.timers.pop(now.mono.millis()) {
            Popped::Due { deadline, payload: Timer::Conn(key) } => fire(state, now, key, deadline),
            Popped::Due { deadline, payload: Timer::AddressEntry(key) } => {
                dialer::address_due(state, now, key, deadline);
            }
            Popped::Due { deadline, payload: Timer::Peer(key) } => {
                link::peer_due(state, now, key, deadline);
            }
            Popped::Due { deadline, payload: Timer::Lookups } => {
                // Ends the step: unfinished work is due at once and would fire again in this loop.
                cost += remote::run_due(state, now, deadline, budget);
                break;
            }
            Popped::Due { deadline, payload: Timer::Publish } => sync::timer_fired(state, now, deadline),
            Popped::Due { deadline, payload: Timer::Refusal(key) } => {
                login::refusal_due(state, now, key, deadline);
            }
            Popped::Due { deadline, payload: Timer::Pool } => {
                if state.pool_alarm.fired(deadline) {
                    release_pool(state, now);
                }
            }
            Popped::Due { payload: Timer::DrainEnd, .. } => end_drain(state),
            Popped::Moved => {}
            Popped::Idle => break,
        }
    }
    if has_too_many_stale(state) {
        cost += budget as usize;
        let State { conns, mesh, timers, pool_alarm, .. } = state;
        timers.purge(budget, |deadline, timer| {
            let armed = match timer {
                Timer::Conn(key) => return conns.get(key).is_some_and(|conn| conn.alarm.is_live(deadline)),
                Timer::AddressEntry(key) => {
                    return mesh.address_book.get(key).is_some_and(|entry| entry.is_live(deadline));
                }
                Timer::Peer(key) => {
                    return mesh.peers.get(key).is_some_and(|peer| peer.alarm.is_live(deadline));
                }
                Timer::Lookups => return mesh.lookups.is_live(deadline),
                Timer::Publish => return mesh.publishing.is_live(deadline),
                Timer::Refusal(key) => {
                    conns.get(key).and_then(|conn| conn.session()).and_then(Session::refusal_due)
                }
                Timer::Pool => return pool_alarm.is_live(deadline),
                Timer::DrainEnd => Some(deadline),
            };
            armed == Some(deadline)
        });
    }
    cost
}

fn fire(state: &mut State, now: Now, key: ConnKey, deadline: u64) {
    let State { conns, config, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    if !conn.alarm.fired(deadline) {
        return;
    }
    let overdue = timeouts::time_limit(conn, &config.limits).filter(|(due, _)| *due <= now.mono);
    let Some((_, reason)) = overdue else { return timeouts::arm(state, key) };
    let limits = &config.limits;
    let sentence = if reason == CloseReason::Idle && conn.is_serving() {
        let (setting, ms) = if conn.unprocessed() == 0 {
            ("first_byte_ms", limits.first_byte_ms)
        } else {
            ("request_idle_ms", limits.request_idle_ms)
        };
        format!("nothing came for too long ({setting} = {ms}); the connection ends")
    } else if reason == CloseReason::Unauthenticated && conn.is_serving() {
        let ms = limits.request_idle_ms;
        format!("the password was not given in time (request_idle_ms = {ms}); the connection ends")
    } else {
        return close_conn(state, key, reason);
    };
    let protocol = conn.speaks();
    conn.reply(pool, |out| match protocol {
        ClientProtocol::Commands(protocol) => put_error(out, protocol, b"", &sentence),
        ClientProtocol::Http => {
            let end = Delivery { is_head: false, keep_alive: false };
            put_response(out, Status::Timeout, TEXT, end, format!("{sentence}\n").as_bytes());
        }
    });
    conn.begin_closing(reason, now.mono, pool);
    reconcile(state, now, key);
}

fn end_drain(state: &mut State) {
    let keys: Vec<ConnKey> = state.conns.iter().map(|(key, _)| key).collect();
    for key in keys {
        close_conn(state, key, CloseReason::Drained);
    }
}
