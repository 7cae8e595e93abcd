//! The permitted replies to a request, and the time at which a request counts as carried out.

use super::appended;
use super::boundary;
use super::host::{Host, Kind};
use super::hostile_peer::forged_value;
use super::net::MS;
use super::oracle::{Item, Local, Stamp, key_shown, key_text};
use super::pending::{Expected, PendingRequest, What};
use super::protocol::Verb;
use super::world::World;
use olivia::node::Node;
use std::collections::BTreeMap;

/// Time limit until a key is found from every node, in addition to the delay of the network.
const FOUND_WITHIN: u64 = 10 * MS;

/// By how much a TTL sent to a peer may be too short: whole milliseconds at both ends, and an iteration.
const TOLD_SHORTER: u64 = 3 * MS;

/// Time limit until the memory of an expired key is freed.
const GONE_WITHIN: u64 = 1_000 * MS;

impl World {
    fn stamp(&self) -> Stamp {
        Stamp { call: self.moment, nanos: self.net.now }
    }

    /// Carries out here what a node has certainly carried out: all that it was given on connections that it
    /// reads on.
    pub fn carry_out_given(&mut self, host: usize) {
        if let Some(node) = &self.hosts[host].node {
            self.oracle.heads[host] = node.own_position().seq;
        }
        let mut all = std::mem::take(&mut self.reconciled);
        let sockets = self.hosts[host].sockets.values();
        all.extend(sockets.filter_map(|socket| Some((socket.client?, socket.contract.is_stopped))));
        for (client, is_stopped) in all.drain(..) {
            let given =
                self.clients[client].pending.iter().take_while(|request| request.given.is_some()).count();
            let done = self.clients[client].pending.iter().take(given).rposition(|request| request.is_done);
            for at in done.map_or(0, |done| done + 1)..given {
                let now = self.stamp();
                let request = &self.clients[client].pending[at];
                let is_new = request.given == Some(now);
                if is_stopped && is_new {
                    self.make_uncertain(host, client, at);
                } else if !is_stopped {
                    self.done(host, client, at);
                }
            }
        }
        self.reconciled = all;
    }

    fn make_uncertain(&mut self, host: usize, client: usize, at: usize) {
        let now = self.stamp();
        if let What::Keys(verb @ (Verb::Set | Verb::SetEx | Verb::Del | Verb::Expire), items) =
            &self.clients[client].pending[at].what
        {
            for item in items {
                let deadline = self.deadline(host, *verb, item);
                self.oracle.make_uncertain(host, *verb, item, now, deadline);
                self.newest.note_command(item.key, now.nanos);
                if *verb == Verb::Expire {
                    // For one of several keys it is carried out at once, though the reply waits for others.
                    self.oracle.perhaps_elsewhere(item.key, deadline);
                }
            }
            self.clients[client].pending[at].is_uncertain = true;
        }
        if let What::Keys(Verb::Get | Verb::Ttl, items) = &self.clients[client].pending[at].what {
            // When it is carried out, lookups that it joins may have ended already.
            let expected =
                items.iter().map(|item| Expected { local: Local::Unsure, ..self.expect(host, item, now) });
            self.clients[client].pending[at].expected = expected.collect();
        }
    }

    /// Marks the requests of a closed connection as possibly carried out.
    pub fn perhaps_done(&mut self, host: usize, client: usize) {
        for at in 0..self.clients[client].pending.len() {
            let request = &self.clients[client].pending[at];
            if request.given.is_some() && !request.is_done {
                self.done(host, client, at);
            }
        }
    }

    /// A request has been carried out: at this moment if it was given at this moment, else some time since.
    fn done(&mut self, host: usize, client: usize, at: usize) {
        let now = self.stamp();
        let mut request = std::mem::replace(&mut self.clients[client].pending[at], PendingRequest::nothing());
        request.is_done = true;
        let given = request.given.unwrap_or(now);
        request.is_prompt = given == now;
        if let What::Keys(verb, items) = &request.what {
            match verb {
                Verb::Set | Verb::SetEx | Verb::Del | Verb::Expire => {
                    for item in items {
                        request.expected.push(self.expect(host, item, given));
                        let deadline = self.deadline(host, *verb, item);
                        let version = self.note_change(host, *verb, item.key);
                        if let Some(value) = self.oracle.values.get_mut(item.value) {
                            value.version = version;
                        }
                        let may_be_refused = self.plan.is_tight && matches!(verb, Verb::Del | Verb::Expire);
                        if may_be_refused && !request.is_uncertain {
                            self.oracle.make_uncertain(host, *verb, item, now, deadline);
                            self.oracle.reconcile(host, *verb, item, (given, now), deadline);
                        } else if !request.is_uncertain {
                            self.oracle.apply(host, *verb, item, now, deadline);
                        } else {
                            self.oracle.reconcile(host, *verb, item, (given, now), deadline);
                        }
                    }
                }
                Verb::Get | Verb::Ttl | Verb::Who | Verb::Append if request.expected.is_empty() => {
                    for item in items {
                        let mut expected = self.expect(host, item, given);
                        if given != now {
                            expected.local = Local::Unsure;
                        }
                        request.expected.push(expected);
                    }
                    request.linked = self.linked_for(host, &request);
                }
                Verb::Get | Verb::Ttl | Verb::Who | Verb::Append => {}
            }
        }
        if matches!(request.what, What::Peers) && request.is_prompt {
            request.linked = self.linked_hosts(host);
        }
        self.clients[client].pending[at] = request;
    }

    /// The peers that a node is linked to and queries, if a miss is checked by them.
    fn linked_for(&self, host: usize, request: &PendingRequest) -> Vec<usize> {
        let is_here = request.expected.iter().all(|expected| matches!(expected.local, Local::Here(..)));
        if is_here || self.calm_since() > self.net.now || !self.is_strict {
            return Vec::new();
        }
        let Some(node) = &self.hosts[host].node else { return Vec::new() };
        let silent = boundary::silent(node, self.hosts[host].now(self.net.now));
        let mut linked = self.linked_hosts(host);
        linked.retain(|other| !silent.contains(&self.hosts[*other].addr));
        linked
    }

    /// The hosts that a node is linked to.
    pub fn linked_hosts(&self, host: usize) -> Vec<usize> {
        let Some(node) = &self.hosts[host].node else { return Vec::new() };
        let linked = boundary::linked(node, self.hosts[host].now(self.net.now));
        let is_linked = |other: &usize| linked.contains(&self.hosts[*other].addr);
        (0..self.members).filter(is_linked).collect()
    }

    /// Since when, as far as a lookup of a key goes that begins now, answers from elsewhere count: one
    /// that was under way for an earlier request may answer this one too.
    fn expect(&self, host: usize, item: &Item, given: Stamp) -> Expected {
        let local = self.oracle.local(host, item.key, self.net.now);
        let mut from = given;
        let sockets = self.hosts[host].sockets.values().filter_map(|socket| socket.client);
        for request in sockets.flat_map(|client| &self.clients[client].pending) {
            let What::Keys(Verb::Get | Verb::Ttl, items) = &request.what else { continue };
            if let Some(earlier) = request.given.filter(|given| *given < from)
                && items.iter().any(|other| other.key == item.key)
            {
                from = earlier;
            }
        }
        // The clients may be gone while their lookup is in flight.
        let orphans =
            self.hosts[host].orphans.iter().filter(|(key, earlier)| *key == item.key && *earlier < from);
        from = orphans.map(|(_, earlier)| *earlier).min().unwrap_or(from);
        let timeout = u64::from(self.plan.lookup_timeout_ms) * MS + self.sluggishness();
        let paused = self.hosts[host].paused_until(self.net.now);
        if paused == 0 && from.nanos + timeout < given.nanos {
            from = Stamp { call: 0, nanos: given.nanos - timeout };
        }
        // What is changed here takes no answer from before.
        if given == self.stamp() {
            from = from.max(self.oracle.changed(host, item.key));
        }
        Expected { local, from }
    }

    /// When what a request gives a key ends, on the clock of the world.
    fn deadline(&self, host: usize, verb: Verb, item: &Item) -> u64 {
        if !matches!(verb, Verb::SetEx | Verb::Expire) {
            return u64::MAX;
        }
        let host = &self.hosts[host];
        let mono_ms = host.now(self.net.now).mono.millis();
        (mono_ms + item.seconds * 1_000).saturating_mul(MS) - host.offset
    }

    /// Checks the bytes that a node sends to a client.
    pub fn check_replies(&mut self, host: usize, client: usize, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut self.clients[client].partial);
            line.extend_from_slice(piece);
            if line.last() != Some(&b'\n') {
                self.clients[client].partial = line;
                continue;
            }
            line.pop();
            self.trace.note(self.net.now, "    reply", host, client as u64, &line);
            self.check_line(host, client, &line);
        }
        assert!(self.clients[client].partial.is_empty(), "a reply without its end");
    }

    fn check_line(&mut self, host: usize, client: usize, line: &[u8]) {
        let shown = line[..line.len().min(300)].escape_ascii().to_string();
        if line == b":BYE " && self.hosts[host].is_ending
            || line.starts_with(b":ERR nothing came for too long")
        {
            return self.client_dismissed(client);
        }
        if line.starts_with(b":ERR the last line has no line end") {
            return;
        }
        let pending = &mut self.clients[client].pending;
        let is_given = pending.front().is_some_and(|request| request.given.is_some());
        assert!(is_given, "host {host} sends {shown} to client {client}, which has no request pending");
        if !self.clients[client].pending[0].is_done {
            self.done(host, client, 0);
        }
        let now = self.stamp();
        let last_reply = std::mem::replace(&mut self.clients[client].last_reply, now);
        let Some(mut request) = self.clients[client].pending.pop_front() else { return };
        request.is_fresh = last_reply.call < now.call;
        self.replies += 1;
        if let Err(wrong) = self.check_reply(host, &request, line) {
            panic!("wrong: {wrong}\nhost {host} said {shown} to {request:?} of client {client}");
        }
    }

    fn check_reply(&mut self, host: usize, request: &PendingRequest, line: &[u8]) -> Result<(), String> {
        if request.is_prompt {
            self.check_waiting_time(host, request.given.unwrap_or_default().nanos)?;
        }
        let is_bare_ping = matches!(request.what, What::Ping) && request.id.is_empty();
        let id = if is_bare_ping { "0" } else { &request.id };
        let rest = line.strip_prefix(id.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
        let rest = rest.ok_or("another id")?;
        let (word, fields) = match rest.iter().position(|byte| *byte == b' ') {
            Some(space) => (&rest[..space], &rest[space + 1..]),
            None => return Err("no word".to_owned()),
        };
        let expected: &[u8] = match &request.what {
            What::Keys(verb, _) => verb.word().as_bytes(),
            What::Peers | What::Filter => b"FULFILLED",
            What::Stats => b"STATS",
            What::Mesh => b"MESH",
            What::Ping => b"PONG",
            What::Quit => b"BYE",
        };
        if word == b"ERR" {
            return self.check_error(request, fields);
        }
        if word != expected {
            return Err("another word".to_owned());
        }
        self.note_deletions(host, request);
        self.note_appended(request);
        match &request.what {
            What::Keys(verb, items) => self.check_keys(host, request, *verb, items, fields),
            What::Peers => self.check_peer_list(host, request, fields),
            What::Stats => self.check_stats(host, request, fields),
            What::Filter => self.check_filter(host, request, fields),
            What::Mesh | What::Quit => Ok(()),
            What::Ping => {
                if fields == b"1" {
                    Ok(())
                } else {
                    Err("not 1".to_owned())
                }
            }
        }
    }

    fn check_error(&self, request: &PendingRequest, sentence: &[u8]) -> Result<(), String> {
        let is_tight = sentence
            .ends_with(b"keys are being looked up on other nodes, the limit (lookups_max); try again")
            && self.plan.is_tight;
        let is_big = matches!(request.what, What::Filter);
        let text = String::from_utf8_lossy(sentence);
        let has = |part: &str| text.contains(part);
        // While links are down, nodes that may hold a key cannot be reached.
        let is_cut = match request.what {
            What::Keys(Verb::Del, _) => has("is deleted on all other nodes, but may be on"),
            What::Keys(Verb::Expire | Verb::Append, _) => {
                has("nothing was done: ") || has("outcome unknown: ")
            }
            What::Keys(..)
            | What::Peers
            | What::Stats
            | What::Mesh
            | What::Filter
            | What::Ping
            | What::Quit => false,
        };
        if is_tight || is_big || is_cut { Ok(()) } else { Err("no reason for an error".to_owned()) }
    }

    /// Counters add up, and the memory of expired keys is freed.
    fn check_stats(&self, host: usize, request: &PendingRequest, fields: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(fields).map_err(|error| error.to_string())?;
        let number = |name: &str| -> Result<u64, String> {
            let fields = text.split(',').filter_map(|field| field.split_once(':'));
            let value = fields.filter(|(field, _)| *field == name).map(|(_, value)| value).next();
            value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("no {name}"))
        };
        let (hits, misses) = (number("hits")?, number("misses")?);
        demand(hits + misses <= number("gets")?, "hits and misses are more than gets")?;
        if !self.is_healed || self.calm_since() > self.net.now || request.given != Some(self.stamp()) {
            return Ok(());
        }
        let past = self.net.now.saturating_sub(GONE_WITHIN);
        let (least, most) = self.oracle.count(host, past, self.net.now);
        let most = most + appended::KEYS;
        let keys = usize::try_from(number("keys")?).unwrap();
        let is_right = (least..=most).contains(&keys);
        if is_right { Ok(()) } else { Err(format!("it has {least} to {most} keys")) }
    }

    /// The filter dump equals the node's filter, bit by bit, if it was written at once.
    fn check_filter(&self, host: usize, request: &PendingRequest, fields: &[u8]) -> Result<(), String> {
        let (blocks, words) = filter_of(fields).ok_or("no text of a filter")?;
        demand(words.len() == 8 * blocks, "another number of words than of blocks")?;
        let node = self.hosts[host].node.as_ref().filter(|_| request.given == Some(self.stamp()));
        let Some(filter) = node.map(Node::own_filter) else { return Ok(()) };
        demand(blocks == filter.size().blocks(), "another size")?;
        demand(filter.words() == words, "other bits")
    }

    /// No reply takes longer than a lookup may take.
    fn check_waiting_time(&self, host: usize, given: u64) -> Result<(), String> {
        let host = &self.hosts[host];
        let waited = self.net.now - given;
        let limit = u64::from(self.plan.lookup_timeout_ms) * MS + FOUND_WITHIN + self.sluggishness();
        let paused = host.paused_until(self.net.now) + self.plan.busy_slack();
        if self.plan.is_tight || waited <= limit + paused {
            return Ok(());
        }
        Err(format!("it took {} ms", waited / MS))
    }

    fn check_peer_list(&self, host: usize, request: &PendingRequest, fields: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(fields).map_err(|error| error.to_string())?;
        // Each with whether it is shown as linked.
        let mut seen = BTreeMap::new();
        for field in text.split(',').filter(|field| !field.is_empty()) {
            // Those without a link are in quotes, each with its state.
            let shown = field.strip_prefix('"').and_then(|field| field.split(' ').next()).unwrap_or(field);
            let addr: std::net::SocketAddr = shown.parse().map_err(|_| format!("{field} is no address"))?;
            if seen.insert(addr, shown == field).is_some() {
                return Err(format!("{addr} twice"));
            }
            if addr == self.hosts[host].addr {
                return Err("itself".to_owned());
            }
        }
        let linked = request.linked.iter().map(|other| self.hosts[*other].addr);
        match linked.into_iter().find(|addr| seen.get(addr) != Some(&true)) {
            Some(addr) => Err(format!("{addr} was linked and is missing")),
            None => Ok(()),
        }
    }

    fn check_keys(
        &self,
        host: usize,
        request: &PendingRequest,
        verb: Verb,
        items: &[Item],
        fields: &[u8],
    ) -> Result<(), String> {
        let mut rest = fields;
        let mut is_first = true;
        for (item, expected) in items.iter().zip(&request.expected) {
            let key = key_shown(item.key);
            let behind = if is_first { Some(rest) } else { rest.strip_prefix(b",") };
            let behind = behind.and_then(|rest| rest.strip_prefix(key.as_slice()));
            let has_value = !matches!(verb, Verb::Del);
            let behind = if has_value { behind.and_then(|rest| rest.strip_prefix(b":")) } else { behind };
            let shown = behind.filter(|rest| has_value || rest.is_empty() || rest[0] == b',').map(|rest| {
                let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                rest.split_at(end)
            });
            if let Some((_, behind)) = shown {
                (rest, is_first) = (behind, false);
            }
            let shown = shown.map(|(shown, _)| shown);
            self.check_item(host, request, verb, item, *expected, shown)
                .map_err(|wrong| format!("{}: {wrong}; {expected:?}", key.escape_ascii()))?;
            if verb == Verb::Who {
                // The others are claims.
                rest = b"";
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("what is {}?", rest.escape_ascii())) }
    }

    fn check_item(
        &self,
        host: usize,
        request: &PendingRequest,
        verb: Verb,
        item: &Item,
        expected: Expected,
        shown: Option<&[u8]>,
    ) -> Result<(), String> {
        if verb == Verb::Get && appended::is_appended(item.key) {
            return self.check_appended(request, item.key, shown);
        }
        if verb == Verb::Get
            && let Some(value) = shown.and_then(|shown| self.oracle.value_of(shown))
        {
            let lag = FOUND_WITHIN + self.sluggishness() + self.plan.slowest_path();
            let version = self.oracle.values[value].version.unwrap_or(u64::MAX);
            let was_deleted = self.newest.was_deleted(item.key, version, expected.from.nanos, lag);
            demand(!was_deleted || !self.is_strict, "it was deleted everywhere")?;
        }
        match (verb, expected.local, shown) {
            (Verb::Append, _, shown) => {
                let length = shown.and_then(|shown| std::str::from_utf8(shown).ok()?.parse::<usize>().ok());
                demand(length.is_some(), "no length")
            }
            (Verb::Set | Verb::SetEx, _, shown) => {
                let mut text = self.oracle.text(item.value);
                if verb == Verb::SetEx {
                    text.extend(format!(":{}", item.seconds).bytes());
                }
                demand(shown == Some(&text), "not what was set")
            }
            (Verb::Del, Local::Here(..), shown) => demand(shown.is_some(), "it was there"),
            (Verb::Expire, Local::Here(..), shown) => {
                demand(shown == Some(item.seconds.to_string().as_bytes()), "it was there")
            }
            (Verb::Expire, Local::Absent, Some(shown)) => {
                demand(shown == item.seconds.to_string().as_bytes(), "another time")
            }
            (Verb::Who, Local::Here(..), shown) => demand(shown == Some(b"here"), "it was here"),
            (Verb::Who, Local::Absent, shown) => demand(shown != Some(b"here"), "it was not here"),
            // A node that holds it has deleted it, or has set its expiry.
            (Verb::Del, Local::Absent, _) | (Verb::Expire, Local::Absent, None) => Ok(()),
            (Verb::Del | Verb::Expire | Verb::Who, Local::Unsure, _) => Ok(()),
            // Read at once, though it may be written only after earlier replies.
            (Verb::Get, Local::Here(value, _), Some(shown)) => {
                demand(shown == self.oracle.text(value), "another value than that which is here")
            }
            (Verb::Ttl, Local::Here(_, deadline), Some(shown)) => {
                check_ttl(shown, deadline, (request.given.unwrap_or_default(), self.stamp()), 0)
            }
            (Verb::Get | Verb::Ttl, Local::Here(_, deadline), None) => {
                demand(deadline <= self.net.now, "it was here")
            }
            (Verb::Get, Local::Absent | Local::Unsure, Some(shown)) => {
                self.check_remote(host, request, item.key, expected.from, shown)
            }
            (Verb::Ttl, Local::Absent | Local::Unsure, Some(shown)) => {
                let now = self.stamp();
                let mut values = self.oracle.between(item.key, expected.from, now);
                let is_right = values.any(|value| {
                    let mut deadlines = self.oracle.values[value].deadlines();
                    let from = expected.from;
                    deadlines.any(|deadline| check_ttl(shown, deadline, (from, now), TOLD_SHORTER).is_ok())
                });
                let is_open = self.has_hostile_peers || self.oracle.is_changing(item.key);
                demand(is_right || is_open, "no value lasts so long")
            }
            (Verb::Get | Verb::Ttl, Local::Absent, None) => self.check_miss(host, request, item.key),
            (Verb::Get | Verb::Ttl, Local::Unsure, None) => Ok(()),
        }
    }

    fn check_remote(
        &self,
        host: usize,
        request: &PendingRequest,
        key: u32,
        from: Stamp,
        shown: &[u8],
    ) -> Result<(), String> {
        if shown.starts_with(b"hostile_peer.") {
            let is_stranger = self.hosts[host].kind == Kind::Stranger;
            let is_about = shown == forged_value(&key_text(key));
            return demand(
                self.has_hostile_peers && !is_stranger && is_about,
                "a forged value that no hostile peer sent",
            );
        }
        let Some(value) = self.oracle.value_of(shown) else { return Err("that was never set".to_owned()) };
        let record = &self.oracle.values[value];
        demand(record.key == key, "the value of another key")?;
        let is_other_mesh = (self.hosts[record.host].kind == Kind::Stranger)
            != (self.hosts[host].kind == Kind::Stranger)
            || (self.hosts[host].kind == Kind::Stranger && record.host != host);
        demand(!is_other_mesh, "the value of another mesh")?;
        let is_over = record.deadlines().all(|deadline| deadline <= self.net.now);
        demand(!(request.is_fresh && is_over), "served past its deadline")?;
        if self.oracle.may_be_seen(value, from, self.stamp()) {
            return self.check_addition_before_answer(host, value);
        }
        Err(format!("no node held that at the time: {record:?}"))
    }

    /// A miss is wrong if a node that was linked, well and reachable all the time has held the key for long
    /// enough.
    fn check_miss(&self, host: usize, request: &PendingRequest, key: u32) -> Result<(), String> {
        let given = request.given.unwrap_or_default().nanos;
        if self.calm_since() > given {
            return Ok(());
        }
        let lag = FOUND_WITHIN + self.sluggishness() + self.plan.slowest_path();
        let since = given.saturating_sub(lag);
        let until = 2 * self.net.now - given + lag;
        // Where two nodes hold the key, the value that was found first may have expired while the rest of
        // the request was waited for.
        if self.oracle.runs_out(key, since, until) {
            return Ok(());
        }
        let holds = |other: &usize| {
            let other_host: &Host = &self.hosts[*other];
            *other != host && other_host.is_well() && self.oracle.surely_held(*other, key, since, until)
        };
        let (Some(node), now) = (&self.hosts[host].node, self.hosts[host].now(self.net.now)) else {
            return Ok(());
        };
        match request.linked.iter().copied().find(holds) {
            Some(other) => {
                let held = self.oracle.describe(other, key);
                let peers = boundary::describe(node, now);
                Err(format!("host {other} is linked and holds it: {held}; peers: {peers}"))
            }
            None => Ok(()),
        }
    }
}

fn demand(is_right: bool, wrong: &str) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(wrong.to_owned()) }
}

/// Whether the seconds shown fit a TTL that ends at `deadline`, or up to `shorter` before, seen between
/// two moments.
fn check_ttl(shown: &[u8], deadline: u64, (from, to): (Stamp, Stamp), shorter: u64) -> Result<(), String> {
    if deadline == u64::MAX {
        return demand(shown == b"never", "it has no deadline");
    }
    let seconds: u64 =
        std::str::from_utf8(shown).ok().and_then(|text| text.parse().ok()).ok_or("no number")?;
    // The TTL of a remote key counts from the query on, and so may be too short.
    let least = deadline.saturating_sub(shorter + 2 * to.nanos - from.nanos).div_ceil(1_000 * MS);
    let most = deadline.saturating_sub(from.nanos).div_ceil(1_000 * MS);
    let text = format!("it lasts {least} to {most} s");
    if (least..=most).contains(&seconds) { Ok(()) } else { Err(text) }
}

/// The blocks that the text of a filter states, and its words.
fn filter_of(text: &[u8]) -> Option<(usize, Vec<u64>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (head, mut bits) = text.split_once(",bits=")?;
    let (blocks, _) = head.strip_prefix("v=1,blocks=")?.split_once(',')?;
    let mut words = Vec::new();
    while !bits.is_empty() {
        if let Some(run) = bits.strip_prefix('z') {
            let (run, rest) = run.split_once('.')?;
            words.resize(words.len() + run.parse::<usize>().ok()?, 0);
            bits = rest;
        } else {
            let (word, rest) = bits.split_at_checked(16)?;
            words.push(u64::from_str_radix(word, 16).ok()?);
            bits = rest;
        }
    }
    Some((blocks.parse().ok()?, words))
}
