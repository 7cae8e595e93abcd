//! Faults: the beginning and the end of each.

use super::alone::Alone;
use super::host::{Kind, State};
use super::net::MS;
use super::plan::Fault;
use super::world::{Event, World};

/// The end of a fault.
#[derive(Debug, Clone, Copy)]
pub enum Undo {
    Resume(usize),
    Start(usize),
    Join { from: usize, to: usize },
    Hurry { from: usize, to: usize, more: u64 },
    Speak(usize),
    Widen(usize),
    Nothing,
}

/// Room of a connection whose receiver is slow.
const NARROW_BYTES: u64 = 300;

impl World {
    fn one_of(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap()
    }

    /// Lets the next fault begin, and another one later.
    pub fn fault(&mut self) {
        if !self.faults_on {
            return;
        }
        let later = self.rng.below(2 * self.plan.fault_every);
        self.agenda.put(self.net.now + later, Event::Fault);
        // Not all hosts at once, for too long.
        if self.faults as usize > self.members {
            return;
        }
        let Some(fault) = self.plan.fault(&mut self.rng) else { return };
        let host = self.one_of(self.plan.hosts());
        let other = self.one_of(self.plan.hosts());
        self.trace.note(self.net.now, "fault", host, other as u64, format!("{fault:?}").as_bytes());
        self.seen.add(fault.name(), 1);
        let lasts = MS + self.rng.below(2 * self.plan.fault_lasts);
        match fault {
            Fault::Pause => self.pause(host, lasts),
            Fault::Kill => self.kill(host, lasts, true),
            Fault::Vanish => self.kill(host, lasts, false),
            Fault::End => self.end(host),
            Fault::CutOneWay => self.cut(host, other, lasts),
            Fault::CutBothWays => {
                self.cut(host, other, lasts);
                self.cut(other, host, lasts);
            }
            Fault::Split => self.split(lasts),
            Fault::Slow => self.slow(host, other, lasts),
            Fault::Mute => {
                self.net.is_mute[host] = true;
                self.begins(lasts, Undo::Speak(host));
            }
            Fault::Reset => self.reset_one(),
            Fault::Narrow => self.narrow(lasts),
            Fault::Clock => {
                // Back and forth, and mostly within what nodes accept.
                let far = if self.rng.one_in(16) { 100_000_000 } else { 200 };
                let jump = i64::try_from(self.rng.below(2 * far)).unwrap() - i64::try_from(far).unwrap();
                self.has_wrong_clock |= far > 200;
                self.oracle.has_wrong_clocks |= far > 200;
                self.hosts[host].skew_ms = jump;
                self.furthest_skew_ms = self.furthest_skew_ms.max(jump);
                self.begins(MS, Undo::Nothing);
            }
            Fault::Stale => self.stale(host),
        }
    }

    fn begins(&mut self, lasts: u64, undo: Undo) {
        self.faults += 1;
        self.agenda.put(self.net.now + lasts, Event::Undo(undo));
    }

    /// Ends a fault.
    pub fn undo(&mut self, undo: Undo) {
        self.faults -= 1;
        self.has_wrong_clock = false;
        self.faulty_until = self.net.now;
        match undo {
            Undo::Resume(host) => self.resume(host),
            Undo::Start(host) => {
                if self.hosts[host].state == State::Down {
                    self.start(host);
                }
            }
            Undo::Join { from, to } => {
                self.net.path_mut(from, to).cuts -= 1;
                self.net.release(&mut self.agenda);
            }
            Undo::Hurry { from, to, more } => self.net.path_mut(from, to).more -= more,
            Undo::Speak(host) => {
                self.net.is_mute[host] = false;
                self.net.release(&mut self.agenda);
            }
            Undo::Widen(wire) => self.net.set_room(&mut self.agenda, wire, self.plan.manners.room),
            Undo::Nothing => {}
        }
    }

    fn pause(&mut self, host: usize, lasts: u64) {
        if self.hosts[host].state == State::Runs {
            self.hosts[host].state = State::Paused;
            self.hosts[host].paused_at = self.net.now;
            self.begins(lasts, Undo::Resume(host));
        }
    }

    fn resume(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.state == State::Paused {
            host.paused += self.net.now - host.paused_at;
            host.state = State::Runs;
            host.turn_at = None;
            self.trace.note(self.net.now, "resume", at, 0, b"");
            self.wake(at, self.net.now);
        }
    }

    fn kill(&mut self, host: usize, lasts: u64, is_traced: bool) {
        if self.hosts[host].state != State::Down && !self.hosts[host].is_ending {
            self.resume(host);
            self.stop(host, is_traced);
            self.begins(lasts, Undo::Start(host));
        }
    }

    pub fn end(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.state != State::Runs || host.is_ending || host.node.is_none() {
            return;
        }
        host.is_ending = true;
        let now = host.now(self.net.now);
        if let Some(node) = &mut host.node {
            node.drain(now);
        }
        self.net.is_deaf[at] = true;
        self.faults += 1;
        self.moment += 1;
        self.after_call(at);
        self.wake(at, self.net.now);
    }

    fn cut(&mut self, from: usize, to: usize, lasts: u64) {
        if from != to {
            self.net.path_mut(from, to).cuts += 1;
            self.begins(lasts, Undo::Join { from, to });
        }
    }

    fn split(&mut self, lasts: u64) {
        let hosts = self.plan.hosts();
        let side: Vec<bool> = (0..hosts).map(|_| self.rng.one_in(2)).collect();
        for from in 0..hosts {
            for to in 0..hosts {
                if side[from] != side[to] {
                    self.cut(from, to, lasts);
                }
            }
        }
    }

    fn slow(&mut self, from: usize, to: usize, lasts: u64) {
        let more = self.rng.below(200 * MS);
        self.net.path_mut(from, to).more += more;
        self.begins(lasts, Undo::Hurry { from, to, more });
    }

    fn reset_one(&mut self) {
        if let Some(wire) = self.net.any_open() {
            let side = usize::from(self.rng.one_in(2));
            self.break_wire(wire, side);
            self.begins(MS, Undo::Nothing);
        }
    }

    /// Breaks a connection in the middle: both ends learn it, each in its time.
    pub fn break_wire(&mut self, wire: usize, side: usize) {
        for (side, later) in [(side, 0), (1 - side, self.rng.below(5 * MS))] {
            let port = super::net::Port { wire, side };
            self.agenda.put(self.net.now + later, Event::Reset(port));
        }
    }

    fn narrow(&mut self, lasts: u64) {
        if let Some(wire) = self.net.any_open() {
            let room = 1 + self.one_of(usize::try_from(NARROW_BYTES).unwrap());
            self.net.set_room(&mut self.agenda, wire, room);
            self.begins(lasts, Undo::Widen(wire));
        }
    }

    fn stale(&mut self, at: usize) {
        let count = self.hosts[at].gone.len();
        if count == 0 || self.hosts[at].state != State::Runs {
            return;
        }
        let which = self.one_of(count);
        let key = self.hosts[at].gone[which];
        let choice = self.rng.below(5);
        self.alone.iter_mut().for_each(Alone::added_stale);
        self.call(at, "stale", key, &choice.to_le_bytes(), |node, now| match choice {
            0 => node.received(now, key, b"SET a:stale\n"),
            1 => node.read_closed(now, key),
            2 => node.lost(now, key, &"connection reset"),
            3 => node.connected(now, key),
            _ => node.wrote(now, key, 1),
        });
        self.wake(at, self.net.now);
    }

    /// No faults from here on.
    pub fn heal(&mut self) {
        (self.faults_on, self.is_healed) = (false, true);
        if self.alone.is_none() && self.rng.one_in(3) {
            // A node that starts now gets the snapshots of all the others.
            let host = self.one_of(self.members);
            self.kill(host, MS, true);
        }
        // What has begun ends at its time, the longest after twice `fault_lasts`.
        let end = self.net.now + 2 * self.plan.fault_lasts + 200 * MS;
        self.run_until(end);
        for _ in 0..600 {
            if self.faults == 0 {
                break;
            }
            self.run_until(self.net.now + 100 * MS);
        }
        assert_eq!(self.faults, 0, "a node does not come to its end");
        for at in 0..self.hosts.len() {
            if self.hosts[at].kind == Kind::Hostile {
                self.stop(at, true);
            }
        }
        // No clock is behind what any node has seen.
        let ahead = self.hosts.iter().map(|host| host.skew_ms).max().unwrap_or(0).max(self.furthest_skew_ms);
        self.hosts.iter_mut().for_each(|host| host.skew_ms = ahead);
        self.faulty_until = self.net.now;
    }
}
