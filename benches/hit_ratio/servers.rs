//! Misses of real servers at equal resident memory above that of the empty server.
//!
//! KIND is `olivia`, `redis-POLICY-SAMPLES` (also for valkey), as `redis-allkeys-lru-5`, or `memcached`. The servers run
//! one after the other, each as long as its limit has to be corrected: until its resident memory after the trace is
//! within 2 % of what is wanted, four times at most. A client reads an object and sets it if it is a miss; 64 different
//! objects are read at a time.

use super::server::{Server, status};
use super::{KEY_BYTES, Trace, all_objects};
use olivia::client::bench::{Front, Protocol};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Objects read at a time.
const BATCH: usize = 64;

/// The most runs to find the limit of a server.
const RUNS_MAX: u32 = 4;

/// Runs the trace against each server, and prints its misses.
pub(super) fn report(name: &str, trace: &Trace, copies: u32, percents: &[u64], kinds: &[String]) {
    let total = all_objects(trace).0;
    for percent in percents {
        let wanted = total * percent / 100 * u64::from(copies);
        for kind in kinds {
            match at_resident(trace, copies, kind, wanted) {
                Ok(run) => println!(
                    "{name:<24} {percent:>4} % {wanted:>11} B resident wanted, {:>11} had, limit {:>11}: misses \
                     {:>6.2} %  {}",
                    run.resident,
                    run.limit,
                    100.0 * run.misses as f64 / (trace.len() as f64 * f64::from(copies)),
                    kind.split(':').next().unwrap_or_default(),
                ),
                Err(error) => println!("{kind}: {error}"),
            }
        }
    }
}

struct Run {
    limit: u64,
    /// Bytes above the empty server's.
    resident: u64,
    misses: u64,
}

/// Runs the trace with limits that come nearer and nearer to the resident memory that is wanted.
fn at_resident(trace: &Trace, copies: u32, kind: &str, wanted: u64) -> Result<Run, String> {
    let (mut limit, mut best) = (wanted, None);
    for _ in 0..RUNS_MAX {
        let run = run(trace, copies, kind, limit)?;
        let off = |run: &Run| run.resident.abs_diff(wanted);
        let resident = run.resident.max(1);
        if best.as_ref().is_none_or(|best| off(&run) < off(best)) {
            best = Some(run);
        }
        if best.as_ref().is_some_and(|best| off(best) <= wanted / 50) {
            break;
        }
        limit = (u128::from(limit) * u128::from(wanted) / u128::from(resident)).try_into().unwrap_or(limit);
    }
    best.ok_or_else(|| "no run".to_owned())
}

/// Starts a server with a limit, and runs the trace.
fn run(trace: &Trace, copies: u32, kind: &str, limit: u64) -> Result<Run, String> {
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
    let mut client = Client { stream, protocol, output: Vec::new(), input: Vec::new() };
    if protocol == Protocol::Resp {
        client.configure("maxmemory", &limit.to_string())?;
        if let Some((policy, samples)) = policy.rsplit_once('-') {
            client.configure("maxmemory-policy", policy)?;
            client.configure("maxmemory-samples", samples)?;
        }
    }
    let empty = status(server.pid(), "VmRSS")?;
    let misses = client.play(trace, copies)?;
    let resident = 1_024 * status(server.pid(), "VmRSS")?.saturating_sub(empty);
    Ok(Run { limit, resident, misses })
}

/// A connection to a server.
struct Client {
    stream: TcpStream,
    protocol: Protocol,
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

    /// Reads every object of the trace, and sets those that are misses. Returns the number of these.
    fn play(&mut self, trace: &Trace, copies: u32) -> Result<u64, String> {
        let mut misses = 0;
        let (mut batch, mut objects) = (Vec::new(), HashSet::new());
        for &(object, bytes) in trace {
            for copy in 0..copies {
                let id = u64::from(copy) << 32 | u64::from(object);
                if batch.len() == BATCH || !objects.insert(id) {
                    misses += self.read(&batch)?;
                    batch.clear();
                    objects.clear();
                    objects.insert(id);
                }
                batch.push((id, bytes));
            }
        }
        Ok(misses + self.read(&batch)?)
    }

    /// Reads different objects, and sets those that are misses. Returns the number of these.
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
            let value = vec![b'v'; (bytes as usize).saturating_sub(KEY_BYTES)];
            let tail = self.protocol.put_set(&mut self.output, &key(id), value.len());
            self.output.extend_from_slice(&value);
            self.output.extend_from_slice(tail);
        }
        self.exchange(missing.len(), |_, _| {})?;
        Ok(missing.len() as u64)
    }

    /// Sends what is to be sent, and reads so many replies.
    fn exchange(&mut self, count: usize, mut take: impl FnMut(usize, &[u8])) -> Result<(), String> {
        self.stream.write_all(&self.output).map_err(|error| error.to_string())?;
        self.output.clear();
        let (mut at, mut done) = (0, 0);
        while done < count {
            match self.protocol.front(&self.input[at..]) {
                Front::Reply(bytes) => {
                    take(done, &self.input[at..at + bytes]);
                    at += bytes;
                    done += 1;
                }
                Front::Error(bytes) => {
                    return Err(String::from_utf8_lossy(&self.input[at..at + bytes]).into_owned());
                }
                Front::Partial => {
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

/// The key of an object: eight printable characters.
fn key(id: u64) -> [u8; KEY_BYTES] {
    let mut at = 0;
    [(); KEY_BYTES].map(|()| {
        let digit = id >> (6 * at) & 63;
        at += 1;
        b'0' + digit.to_le_bytes()[0]
    })
}
