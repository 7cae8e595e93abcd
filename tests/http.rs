//! HTTP over TCP: the probes, the metrics, the document of the page, and slow heads. Short and constant replies are in
//! `tests/sessions/http.txt`.

mod common;

use common::mesh::free_port;
use common::server::{Launch, Server};
use common::wait_until;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

struct Response {
    status: u16,
    content_type: String,
    body: String,
}

/// Gets a path with one more header line, and closes the connection.
fn get(server: &Server, path: &str, header: &str) -> Response {
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let host = server.addr();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches([':', ' ']).to_owned()
    };
    assert_eq!(field("Content-Length").parse(), Ok(body.len()), "{head}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, content_type: field("Content-Type"), body: body.to_owned() }
}

/// Checks an exposition as far as every scraper does: families in one piece with their comments first, no sample twice,
/// and numbers for values. Returns the names of the families.
fn families(text: &str) -> BTreeSet<String> {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let mut family = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (keyword, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            if keyword == "HELP" {
                family = name.to_owned();
                assert!(families.insert(family.clone()), "{name} comes twice");
            } else {
                assert_eq!((keyword, name), ("TYPE", family.as_str()));
                assert!(["counter", "gauge", "histogram", "info"].contains(&rest), "{line}");
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        assert!(sample.starts_with(&family), "{line} in {family}");
        assert!(samples.insert(sample.to_owned()), "{sample} comes twice");
    }
    families
}

#[test]
fn metrics_are_read_by_scrapers_in_both_formats() {
    let first = Launch::new("http-first").start();
    let second = Launch::new("http-second").peer(first.addr()).start();
    let mut client = second.connect();
    assert_eq!(client.call("SET a:1,b:2"), ":SAT a:1,b:2");
    wait_until("they are linked", || client.stat("peers_linked") == 1);
    let text = get(&second, "/metrics", "Accept: text/html");
    assert_eq!((text.status, text.content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let names = families(&text.body);
    for name in [
        "olivia_keys",
        "olivia_hits_total",
        "olivia_memory_bytes",
        "olivia_uptime_seconds",
        "olivia_ready",
        "olivia_iteration_max_seconds",
        "olivia_filter_fill_ratio",
        "olivia_loop_busy_ratio",
        "olivia_build_info",
        "olivia_connections_closed_total",
        "olivia_loop_iteration_seconds",
        "olivia_peer_round_trip_seconds",
    ] {
        assert!(names.contains(name), "{name} is missing");
    }
    assert!(
        text.body.contains("\nolivia_keys 2\n")
            && text.body.contains("\nolivia_calls_total{command=\"set\"} 1\n")
    );
    let peer = format!("\nolivia_peer_filter_known{{peer=\"{}\"}} 1\n", first.addr());
    wait_until("the peer has a row", || get(&second, "/metrics", "A: b").body.contains(&peer));
    let open =
        get(&second, "/metrics", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert_eq!(open.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.ends_with("\n# EOF\n") && open.body.contains("\n# TYPE olivia_hits counter\n"));
    assert!(families(&open.body).contains("olivia_build"));
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    parts.filter(|part| part.starts_with("olivia_")).collect()
}

#[test]
fn dashboard_and_alerts_name_only_metrics_that_there_are() {
    let server = Launch::new("http-dashboard").start();
    let families = families(&get(&server, "/metrics", "A: b").body);
    for (name, text) in [
        ("docs/grafana.json", include_str!("../docs/grafana.json")),
        ("docs/alerts.yml", include_str!("../docs/alerts.yml")),
    ] {
        let named = metrics(text);
        assert!(named.len() > 10, "{name} names {named:?}");
        for metric in named {
            let ends = ["_bucket", "_sum", "_count"];
            let of_histogram = ends.iter().find_map(|end| metric.strip_suffix(end));
            let is_there = families.contains(metric) || of_histogram.is_some_and(|of| families.contains(of));
            assert!(is_there, "{name} names {metric}");
        }
    }
}

#[test]
fn readiness_counts_the_configured_peers_that_are_linked() {
    let server = Launch::new("http-ready").peer(([127, 0, 0, 1], free_port()).into()).start();
    wait_until("the peer was tried", || get(&server, "/readyz", "A: b").status == 200);
    assert_eq!(get(&server, "/readyz", "A: b").body, "ready\nconfigured peers linked: 0/1\n");
    assert_eq!(get(&server, "/livez", "A: b").body, "live\n");
}

#[test]
fn page_and_status_show_metrics_but_no_keys_and_no_values() {
    let server = Launch::new("http-page").start();
    let mut client = server.connect();
    client.call("SET topsecretkey:topsecretvalue");
    client.call("GET topsecretkey");
    let status = get(&server, "/status.json", "A: b");
    assert_eq!((status.status, status.content_type.as_str()), (200, "application/json"));
    assert!(
        status.body.contains("\"keys\":1,") && status.body.ends_with("\"peers\":[\n]}\n"),
        "{}",
        status.body
    );
    assert!(status.body.contains("\"spans\":{\"minute\":{\"seconds\":"), "{}", status.body);
    let history = get(&server, "/history.json", "A: b");
    assert_eq!((history.status, history.content_type.as_str()), (200, "application/json"));
    assert!(history.body.starts_with("{\"hour\":{\"seconds\":3600,"), "{}", history.body);
    let page = get(&server, "/", "A: b");
    assert_eq!((page.status, page.content_type.as_str()), (200, "text/html; charset=utf-8"));
    assert!(
        page.body.contains("<dt title=\"Keys stored on this node.\">keys</dt><dd>1</dd>"),
        "{}",
        page.body
    );
    assert!(page.body.ends_with("</html>\n") && !page.body.contains("{{"), "{}", page.body);
    for caption in ["Slow requests", "Clients by traffic", "Peers"] {
        assert!(page.body.contains(&format!("-title\">{caption}</caption>")), "{caption} in {}", page.body);
    }
    for tag in ["table", "svg", "section", "div", "dl", "figure", "span", "tbody", "tr", "td", "th"] {
        let [begun, ended] = [format!("<{tag}[ >]"), format!("</{tag}>")];
        let begun = page.body.matches(&begun.replace("[ >]", " ")).count()
            + page.body.matches(&begun.replace("[ >]", ">")).count();
        assert_eq!(begun, page.body.matches(&ended).count(), "{tag}");
    }
    assert!(page.body.contains("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>"));
    for text in [&status.body, &history.body, &page.body, &get(&server, "/metrics", "A: b").body] {
        assert!(!text.contains("topsecret"), "{text}");
    }
    assert!(
        !page.body.contains("http://") || !page.body.replace("http://www.w3.org", "").contains("http://")
    );
    assert_eq!(client.stat("http_requests"), 4);
}

#[test]
fn many_metrics_requested_in_a_row_are_answered_one_by_one() {
    let server = Launch::new("http-pipeline").start();
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let requests = 300;
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let writer = std::thread::spawn(move || {
        for _ in 0..requests {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
    });
    for _ in 0..requests {
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(text) = line.strip_prefix("Content-Length: ") {
                length = text.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        assert!(body.starts_with(b"# HELP "), "{}", body.escape_ascii());
    }
    writer.join().unwrap();
}

#[test]
fn head_that_does_not_end_is_answered_and_closed() {
    let server = Launch::new("http-slow").limit("request_idle_ms", 300).start();
    let mut client = server.connect();
    client.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n");
    let (text, _) = client.rest();
    assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text:?}");
}

#[test]
fn tls_is_answered_at_once_with_an_error() {
    let server = Launch::new("http-tls").start();
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The beginning of a hello, without a byte that ends a line.
    stream.write_all(&[&[0x16, 3, 1, 0, 198, 1, 0, 0, 194, 3, 3][..], &[0x55; 32]].concat()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with(":ERR this port does not speak TLS"), "{text}");
}
