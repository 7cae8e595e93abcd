//! The footprint of an idle node: memory per idle connection, CPU without requests, the size of the program, the time
//! from its start to the first reply.
//!
//! `cargo bench --bench footprint`; with `-- --quick` a tiny form. Needs Linux' /proc. Not here: the cost of requests,
//! which `olivia bench` measures.

#[path = "../support/options.rs"]
mod options;
#[path = "../support/server.rs"]
mod server;

use options::Takes;
use server::{Server, cpu_ns, status};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// File descriptors in addition to the connections.
const SPARE_FILES: u64 = 64;

/// The extent of the measurements.
#[derive(Debug, Clone, Copy)]
struct Scale {
    connections: u32,
    starts: u32,
    idle: Duration,
}

const FULL: Scale = Scale { connections: 5_000, starts: 20, idle: Duration::from_secs(10) };
const QUICK: Scale = Scale { connections: 50, starts: 2, idle: Duration::from_millis(50) };

fn main() -> ExitCode {
    options::run(Takes { flags: &[], values: &[], words: &[] }, |options| run(options.quick))
}

/// Measures, and prints the table.
///
/// # Errors
/// A sentence, when the node cannot be started or does not answer.
pub(crate) fn run(is_quick: bool) -> Result<(), String> {
    let scale = if is_quick { QUICK } else { FULL };
    let program = fs::metadata(env!("CARGO_BIN_EXE_olivia")).map_err(|error| error.to_string())?;
    println!("program                {:>9} bytes", program.len());
    println!("start to first reply   {:>9.2} ms (median of {})", start_ms(scale.starts)?, scale.starts);

    let server = Server::olivia(None)?;
    println!("memory at start        {:>9} KiB resident", status(server.pid(), "VmRSS")?);
    print_idle(&server, 0, scale.idle)?;
    let limit = rlimit::increase_nofile_limit(u64::from(scale.connections) + SPARE_FILES);
    limit.map_err(|error| format!("cannot open {} files: {error}", scale.connections))?;
    let before = status(server.pid(), "VmRSS")?;
    let mut clients = connect(server.addr(), scale.connections)?;
    print_memory("silent", &server, before, scale.connections)?;
    print_idle(&server, scale.connections, scale.idle)?;
    for client in &mut clients {
        call(client, b"GET nothing\n", b":GOT \n")?;
    }
    print_memory("answered", &server, before, scale.connections)
}

fn print_memory(what: &str, server: &Server, before: u64, connections: u32) -> Result<(), String> {
    let kib = status(server.pid(), "VmRSS")?.saturating_sub(before);
    let each = kib as f64 * 1024.0 / f64::from(connections);
    println!("memory, {what:<8}       {each:>9.0} bytes a connection ({connections} of them)");
    Ok(())
}

/// Prints the CPU time and iterations of a node without requests.
fn print_idle(server: &Server, connections: u32, time: Duration) -> Result<(), String> {
    let woken = || status(server.pid(), "voluntary_ctxt_switches");
    let (ns, switches) = (cpu_ns(server.pid())?, woken()?);
    std::thread::sleep(time);
    let (ns, switches) = (cpu_ns(server.pid())? - ns, woken()? - switches);
    println!(
        "idle for {time:>5?}         {:>9} ms of CPU, woken {switches} times ({connections} connections)",
        ns / 1_000_000
    );
    Ok(())
}

/// Returns the time from the start of the process to its first reply, in ms.
fn start_ms(starts: u32) -> Result<f64, String> {
    let mut times = Vec::new();
    for _ in 0..starts {
        let begin = Instant::now();
        let server = Server::olivia(None)?;
        connect(server.addr(), 1)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e3)
}

/// Makes connections, and waits for a reply on the last one: by then all have been accepted.
fn connect(addr: SocketAddr, count: u32) -> Result<Vec<TcpStream>, String> {
    let made: Result<Vec<TcpStream>, _> = (0..count).map(|_| TcpStream::connect(addr)).collect();
    let mut made = made.map_err(|error| format!("{addr}: {error}"))?;
    if let Some(last) = made.last_mut() {
        call(last, b"PING\n", b"0:PONG 1\n")?;
    }
    Ok(made)
}

fn call(client: &mut TcpStream, request: &[u8], expected: &[u8]) -> Result<(), String> {
    let mut reply = vec![0; expected.len()];
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .and_then(|()| client.write_all(request))
        .and_then(|()| client.read_exact(&mut reply))
        .map_err(|error| format!("no reply to {}: {error}", request.escape_ascii()))?;
    if reply == expected { Ok(()) } else { Err(format!("'{}' is the wrong reply", reply.escape_ascii())) }
}
