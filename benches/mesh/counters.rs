//! Commands on the old value: INCR of a key of this node and of another node, and many clients that increment one key
//! through all nodes.

use super::options::Options;
use super::processes::{Conn, Mesh};
use super::report::{Report, digits, micros, nanos};
use super::server::cpu_ns;
use olivia::client::bench::Times;
use std::time::{Duration, Instant};

/// Nodes of each mesh.
const NODES: usize = 3;

/// Clients of one counter.
const CLIENTS: usize = 100;

/// No command is measured that timed out: a busy machine delays a node for longer than the default.
const LOOKUP_TIMEOUT: [(&str, &str); 1] = [("OLIVIA_MESH_LOOKUP_TIMEOUT_MS", "5000")];

/// Requests of one kind before the other has its turn.
const BLOCK: usize = 250;

/// Ping-pong on one connection; local and remote requests take turns. CPU time is that of all nodes.
pub(crate) fn incr(options: &Options) -> Result<(), String> {
    let blocks = if options.quick { 1 } else { 80 };
    let mut mesh = Mesh::start_with(NODES, &LOOKUP_TIMEOUT)?;
    mesh.conns[0].call("SET here:0,read_here:0\n")?;
    mesh.conns[1].call("SET there:0,read_there:0\n")?;
    for key in ["there", "read_there"] {
        while mesh.conns[0].call(&format!("GET {key}\n"))? == ":GOT" {}
    }
    let requests = ["INCR here\n", "INCR there\n", "GET read_here\n", "GET read_there\n"];
    let mut times = requests.map(|_| (Times::default(), 0));
    for _ in 0..blocks {
        for (request, (times, used)) in requests.iter().zip(&mut times) {
            let before = cpu_of_all(&mesh)?;
            for _ in 0..BLOCK {
                let begin = Instant::now();
                mesh.conns[0].call(request)?;
                times.add(nanos(begin.elapsed()), 1);
            }
            *used += cpu_of_all(&mesh)? - before;
        }
    }
    let head = ["title: INCR and GET by where the key is, ping-pong on one connection", "kind: table"];
    let columns = [
        "command",
        "here p50 us",
        "there p50 us",
        "ratio of p50",
        "here CPU us",
        "there CPU us",
        "ratio of CPU",
    ];
    let mut report = Report::new("incr", &head, &columns);
    let cpu = |used: u64| used as f64 / (blocks * BLOCK) as f64 / 1e3;
    for (command, [here, there]) in ["INCR", "GET"].iter().zip(times.as_chunks::<2>().0) {
        let [p50, far] = [here, there].map(|(times, _)| micros(times, 500));
        let [used, used_far] = [here, there].map(|(_, used)| cpu(*used));
        let (ratio, of_cpu) = (far / p50, used_far / used);
        println!(
            "incr      {command:4}: here p50 {p50:.1} us, there {far:.1} us, {ratio:.2} times; \
             CPU of all nodes {used:.1} and {used_far:.1} us, {of_cpu:.2} times"
        );
        report.row(&[
            command,
            &digits(p50, 1),
            &digits(far, 1),
            &digits(ratio, 2),
            &digits(used, 1),
            &digits(used_far, 1),
            &digits(of_cpu, 2),
        ]);
    }
    report.finish(options.has("--write"))
}

fn cpu_of_all(mesh: &Mesh) -> Result<u64, String> {
    mesh.servers.iter().map(|server| cpu_ns(server.pid())).sum()
}

/// Many clients, each on a connection of its own to one of the nodes, increment one key. Fails if an increment is lost.
pub(crate) fn counter(options: &Options) -> Result<(), String> {
    let requests = if options.quick { 5 } else { 2_000 };
    let head = ["title: 100 clients that increment one key through 3 nodes", "kind: table"];
    let columns = ["key", "increments", "lost", "increments/s", "p50 ms", "p99 ms"];
    let mut report = Report::new("counter", &head, &columns);
    let mut mesh = Mesh::start_with(NODES, &LOOKUP_TIMEOUT)?;
    for key in ["held", "new"] {
        if key == "held" {
            mesh.conns[0].call("SET held:0\n")?;
            while mesh.conns[1].call("GET held\n")? == ":GOT" {}
        }
        let clients = (0..CLIENTS).map(|n| Conn::open(mesh.servers[n % NODES].addr()));
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        let begin = Instant::now();
        let (times, errors) = count_together(clients, key, requests)?;
        let took = begin.elapsed();
        let sent = (CLIENTS * requests) as u64;
        let reply = mesh.conns[2].call(&format!("GET {key}\n"))?;
        let value = reply.strip_prefix(&format!(":GOT {key}:")).and_then(|value| value.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("{reply} as the counter"))?;
        if value + errors != sent {
            return Err(format!("{value} after {sent} increments of which {errors} failed"));
        }
        let per_second = value as f64 / took.as_secs_f64();
        let ms = |permille| micros(&times, permille) / 1e3;
        println!(
            "counter   {key:5} key: {value} of {sent} increments, none lost, {errors} refused; {per_second:.0}/s, p50 {:.2} p99 {:.2} ms",
            ms(500),
            ms(990)
        );
        report.row(&[&key, &value, &0, &digits(per_second, 0), &digits(ms(500), 2), &digits(ms(990), 2)]);
    }
    report.finish(options.has("--write"))
}

/// Returns the times of all requests and the number of failed ones, which are those that nodes refused.
fn count_together(clients: Vec<Conn>, key: &str, requests: usize) -> Result<(Times, u64), String> {
    let line = format!("INCR {key}\n");
    let count = |mut client: Conn| {
        let mut times: Vec<Duration> = Vec::with_capacity(requests);
        let mut refused = 0;
        for _ in 0..requests {
            let begin = Instant::now();
            match client.call(&line) {
                Ok(_) => times.push(begin.elapsed()),
                Err(error) if error.contains("nothing was done") => refused += 1,
                Err(error) => return Err(error),
            }
        }
        Ok((times, refused))
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| count(client))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a client has failed".to_owned()))
            .collect()
    });
    let (mut all, mut errors) = (Times::default(), 0);
    for result in ended {
        let (times, refused) = result??;
        times.into_iter().for_each(|time| all.add(nanos(time), 1));
        errors += refused;
    }
    Ok((all, errors))
}
