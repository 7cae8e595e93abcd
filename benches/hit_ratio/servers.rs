//! Misses of real servers at equal resident memory above that of the empty server.
//!
//! KIND is `olivia`, `redis-POLICY-SAMPLES` (also for valkey), such as `redis-allkeys-lru-5`, or `memcached`. The
//! servers run one after the other, each up to four times with an adjusted limit, until its resident memory after the
//! trace is within 2 % of the target; a server begins with the adjustment of its last trace. A client reads an object
//! and sets it if it is a miss; 128 different objects are read at a time.
//!
//! With TTLs (of 1 to 40 seconds, fixed per object) the client sends 50,000 requests per second, or fewer if the server
//! is slower, so that the same number of items expires in each server.

use super::server::{Server, status};
use super::{KEY_BYTES, Trace, all_objects};
use olivia::client::bench::{Parsed, Protocol};
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Objects read at a time.
const BATCH: usize = 128;

/// Requests per second with TTLs.
const RATE: f64 = 50_000.0;

/// The longest value of a trace.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Maximum number of runs to find the limit of a server.
const RUNS_MAX: u32 = 4;

/// Runs the trace against each server, and prints its misses.
pub(super) fn report(
    name: &str,
    trace: &Trace,
    copies: u32,
    percents: &[u64],
    kinds: &[&str],
    has_ttl: bool,
) {
    let (total, objects, payload) = all_objects(trace);
    println!(
        "{name}: {} requests, {} objects of {} bytes in all",
        trace.len() as u64 * u64::from(copies),
        objects * u64::from(copies),
        payload * u64::from(copies),
    );
    // Limit by resident memory.
    let mut corrections: HashMap<&str, f64> = HashMap::new();
    for percent in percents {
        let wanted = total * percent / 100 * u64::from(copies);
        for kind in kinds {
            let correction = corrections.entry(kind).or_insert(1.0);
            match at_resident(trace, copies, kind, wanted, correction, has_ttl) {
                Ok(run) => println!(
                    "{name:<24} {percent:>4} % {wanted:>11} B resident wanted, {:>11} had, limit {:>11}: misses \
                     {:>6.2} %  {} ({:.0} s)",
                    run.resident,
                    run.limit,
                    100.0 * run.misses as f64 / (trace.len() as f64 * f64::from(copies)),
                    kind.split(':').next().unwrap_or_default(),
                    run.took.as_secs_f64(),
                ),
                Err(error) => println!("{kind}: {error}"),
            }
        }
    }
}

struct Run {
    limit: u64,
    /// Resident bytes above those of the empty server.
    resident: u64,
    misses: u64,
    took: Duration,
}

/// Runs the trace with limits that approach the target of resident memory.
fn at_resident(
    trace: &Trace,
    copies: u32,
    kind: &str,
    wanted: u64,
    correction: &mut f64,
    has_ttl: bool,
) -> Result<Run, String> {
    let mut best = None;
    for _ in 0..RUNS_MAX {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of bytes")]
        let limit = (wanted as f64 * *correction) as u64;
        let run = run(trace, copies, kind, limit, has_ttl)?;
        let off = |run: &Run| run.resident.abs_diff(wanted);
        *correction = limit as f64 / run.resident.max(1) as f64;
        if best.as_ref().is_none_or(|best| off(&run) < off(best)) {
            best = Some(run);
        }
        if best.as_ref().is_some_and(|best| off(best) <= wanted / 50) {
            break;
        }
    }
    best.ok_or_else(|| "no run".to_owned())
}

/// Starts a server with a limit, and runs the trace.
fn run(trace: &Trace, copies: u32, kind: &str, limit: u64, has_ttl: bool) -> Result<Run, String> {
    let (kind, program) = kind.split_once(':').unwrap_or((kind, ""));
    let (family, policy) = kind.split_once('-').unwrap_or((kind, ""));
    let server = match family {
        "olivia" => Server::olivia(None)?,
        "memcached" => {
            let program = if program.is_empty() { "memcached" } else { program };
            Server::memcached_with(program, None, limit.div_ceil(1 << 20))?
        }
        _ => Server::redis(if program.is_empty() { "redis-server" } else { program }, None)?,
    };
    let protocol = if family == "memcached" { Protocol::Memcached } else { Protocol::Resp };
    let stream = TcpStream::connect(server.addr()).map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let value = vec![b'v'; VALUE_BYTES_MAX];
    let mut client = Client { stream, protocol, has_ttl, value, output: Vec::new(), input: Vec::new() };
    if protocol == Protocol::Resp {
        client.configure("maxmemory", &limit.to_string())?;
        if let Some((policy, samples)) = policy.rsplit_once('-') {
            client.configure("maxmemory-policy", policy)?;
            client.configure("maxmemory-samples", samples)?;
        }
    }
    let empty = status(server.pid(), "VmRSS")?;
    let begin = Instant::now();
    let misses = client.play(trace, copies)?;
    let took = begin.elapsed();
    let resident = 1_024 * status(server.pid(), "VmRSS")?.saturating_sub(empty);
    Ok(Run { limit, resident, misses, took })
}

/// A connection to a server.
struct Client {
    stream: TcpStream,
    protocol: Protocol,
    has_ttl: bool,
    value: Vec<u8>,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Client {
    fn configure(&mut self, name: &str, value: &str) -> Result<(), String> {
        let words = ["CONFIG", "SET", name, value];
        let bulks = words.map(|word| format!("${}\r\n{word}\r\n", word.len())).concat();
        self.output.extend_from_slice(format!("*{}\r\n{bulks}", words.len()).as_bytes());
        self.exchange(1, |_, _| {}).map_err(|error| format!("CONFIG SET {name} {value}: {error}"))
    }

    /// Reads every object of the trace, and sets the misses. Returns their number.
    fn play(&mut self, trace: &Trace, copies: u32) -> Result<u64, String> {
        let mut misses = 0;
        let (mut batch, mut objects) = (Vec::new(), HashSet::new());
        let (begin, mut sent) = (Instant::now(), 0);
        for &(object, bytes) in trace {
            for copy in 0..copies {
                let id = u64::from(copy) << 32 | u64::from(object);
                if batch.len() == BATCH || !objects.insert(id) {
                    misses += self.read(&batch)?;
                    sent += batch.len();
                    if self.has_ttl {
                        let due = Duration::from_secs_f64(sent as f64 / RATE);
                        std::thread::sleep(due.saturating_sub(begin.elapsed()));
                    }
                    batch.clear();
                    objects.clear();
                    objects.insert(id);
                }
                batch.push((id, bytes));
            }
        }
        Ok(misses + self.read(&batch)?)
    }

    /// Reads different objects, and sets the misses. Returns their number.
    fn read(&mut self, batch: &[(u64, u32)]) -> Result<u64, String> {
        for &(id, _) in batch {
            self.protocol.put_get(&mut self.output, &key(id));
        }
        let (mut missing, miss) = (Vec::new(), self.protocol.miss());
        self.exchange(batch.len(), |at, reply| {
            if reply == miss {
                missing.push(at);
            }
        })?;
        for &at in &missing {
            let (id, bytes) = batch[at];
            let value = &self.value[..(bytes as usize).saturating_sub(KEY_BYTES)];
            let tail = if self.has_ttl {
                put_set_with_ttl(self.protocol, &mut self.output, &key(id), value.len(), ttl_seconds(id))
            } else {
                self.protocol.put_set(&mut self.output, &key(id), value.len())
            };
            self.output.extend_from_slice(value);
            self.output.extend_from_slice(tail);
        }
        self.exchange(missing.len(), |_, _| {})?;
        Ok(missing.len() as u64)
    }

    /// Sends the pending output, and reads `count` replies.
    fn exchange(&mut self, count: usize, mut take: impl FnMut(usize, &[u8])) -> Result<(), String> {
        self.stream.write_all(&self.output).map_err(|error| error.to_string())?;
        self.output.clear();
        let (mut at, mut done) = (0, 0);
        while done < count {
            match self.protocol.parse_reply(&self.input[at..]) {
                Parsed::Reply(bytes) => {
                    take(done, &self.input[at..at + bytes]);
                    at += bytes;
                    done += 1;
                }
                Parsed::Error(bytes) => {
                    return Err(String::from_utf8_lossy(&self.input[at..at + bytes]).into_owned());
                }
                Parsed::Partial => {
                    let mut chunk = [0; 64 * 1024];
                    let read = self.stream.read(&mut chunk).map_err(|error| error.to_string())?;
                    if read == 0 {
                        return Err("the server closed the connection".to_owned());
                    }
                    self.input.drain(..at);
                    at = 0;
                    self.input.extend_from_slice(&chunk[..read]);
                }
            }
        }
        self.input.drain(..at);
        Ok(())
    }
}

/// Returns the TTL of an object: 1 to 40 seconds.
fn ttl_seconds(id: u64) -> u64 {
    1 + (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 40
}

/// Appends the part before the value of a SET of `key` with a TTL; returns the part after it.
fn put_set_with_ttl(
    protocol: Protocol,
    out: &mut Vec<u8>,
    key: &[u8],
    value_bytes: usize,
    ttl_seconds: u64,
) -> &'static [u8] {
    let (ttl, key) = (ttl_seconds.to_string(), String::from_utf8_lossy(key));
    let head = if protocol == Protocol::Memcached {
        format!("set {key} 0 {ttl} {value_bytes}\r\n")
    } else {
        format!("*4\r\n$5\r\nSETEX\r\n$8\r\n{key}\r\n${}\r\n{ttl}\r\n${value_bytes}\r\n", ttl.len())
    };
    out.extend_from_slice(head.as_bytes());
    b"\r\n"
}

/// Returns the key of an object: eight printable characters.
fn key(id: u64) -> [u8; KEY_BYTES] {
    let mut at = 0;
    [(); KEY_BYTES].map(|()| {
        let digit = id >> (6 * at) & 63;
        at += 1;
        b'0' + digit.to_le_bytes()[0]
    })
}
