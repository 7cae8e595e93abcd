//! HTTP/1.0 and 1.1, as far as probes, scrapers and browsers need it: request heads in, response heads out.
//!
//! Only `GET` and `HEAD`, without request bodies. A head is parsed when it is complete, within [`HEAD_BYTES_MAX`];
//! lines may end in CR LF or LF. Ambiguous heads (a folded header, a space before the colon, two `Host`) are refused.

use memchr::memchr;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;

/// Bytes of one request head, from its first byte to the empty line.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The result of parsing the start of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The head is incomplete.
    Partial,
    /// The head is longer than [`HEAD_BYTES_MAX`].
    TooLong,
    /// The head cannot be served, and nothing after it can be parsed.
    Broken(BadRequest),
    /// A request.
    Request {
        /// Its head.
        request: Request<'a>,
        /// Bytes of the head.
        consumed: usize,
    },
}

/// The head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method is `HEAD`: the response has no body.
    pub is_head: bool,
    /// The target without its query.
    pub path: &'a [u8],
    /// The connection stays open after the response.
    pub keep_alive: bool,
    /// The value of `Host`.
    pub host: Option<&'a [u8]>,
    /// The value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// `Accept` names OpenMetrics.
    pub accepts_openmetrics: bool,
}

/// The reason for refusing a head. Displays as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    /// The first line is not a request of HTTP/1.x.
    RequestLine,
    /// Another method than `GET` and `HEAD`.
    Method,
    /// A header line without a name and a colon, folded, or `Host` given twice.
    Header,
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// The request has a body.
    Body,
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLine => "the first line is not a request of HTTP/1.0 or 1.1",
            Self::Method => "only GET and HEAD are served here",
            Self::Header => "a header is no `Name: value` on one line, or Host is given twice",
            Self::NoHost => "HTTP/1.1 needs a Host header",
            Self::Body => "a request with a body is not served here",
        })
    }
}

/// Whether a line, without its end, is the first line of a `GET` or `HEAD` of HTTP/1.x. No request in lines is.
pub fn is_request_line(line: &[u8]) -> bool {
    matches!(request_line(line), Some((b"GET" | b"HEAD", _, _)))
}

/// Method, target and minor version of the first line of a request.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], u8)> {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let minor = match version {
        b"HTTP/1.0" => 0,
        b"HTTP/1.1" => 1,
        _ => return None,
    };
    let is_target = target.first() == Some(&b'/') && target.iter().all(u8::is_ascii_graphic);
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    (is_target && is_method && words.next().is_none()).then_some((method, target, minor))
}

/// Parses the head at the start of `input`. O(bytes of the head).
pub fn parse(input: &[u8]) -> Parsed<'_> {
    let window = &input[..input.len().min(HEAD_BYTES_MAX)];
    let Some((head, consumed)) = split_head(window) else {
        // A first line that is not a request is an error before the rest of the head arrives.
        if let Some(end) = memchr(b'\n', window)
            && let Err(error) = start(window[..end].strip_suffix(b"\r").unwrap_or(&window[..end]))
        {
            return Parsed::Broken(error);
        }
        return if window.len() < HEAD_BYTES_MAX { Parsed::Partial } else { Parsed::TooLong };
    };
    match read(head) {
        Ok(request) => Parsed::Request { request, consumed },
        Err(error) => Parsed::Broken(error),
    }
}

/// The head up to its empty line, and the bytes of both.
fn split_head(window: &[u8]) -> Option<(&[u8], usize)> {
    let mut at = 0;
    loop {
        let end = at + memchr(b'\n', &window[at..])?;
        if at > 0 && matches!(&window[at..end], b"" | b"\r") {
            return Some((&window[..at], end + 1));
        }
        at = end + 1;
    }
}

/// Parses the first line of a request; the error is why it cannot be served.
fn start(line: &[u8]) -> Result<(&[u8], &[u8], u8), BadRequest> {
    match request_line(line) {
        Some(start @ (b"GET" | b"HEAD", _, _)) => Ok(start),
        Some(_) => Err(BadRequest::Method),
        None => Err(BadRequest::RequestLine),
    }
}

fn read(head: &[u8]) -> Result<Request<'_>, BadRequest> {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (method, target, minor) = start(lines.next().unwrap_or_default())?;
    let mut request = Request {
        is_head: method == b"HEAD",
        path: &target[..memchr(b'?', target).unwrap_or(target.len())],
        keep_alive: minor == 1,
        host: None,
        authorization: None,
        accepts_openmetrics: false,
    };
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = memchr(b':', line).ok_or(BadRequest::Header)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return Err(BadRequest::Header);
        }
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        if is(b"host") {
            if request.host.replace(value).is_some() {
                return Err(BadRequest::Header);
            }
        } else if is(b"connection") {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    request.keep_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") && minor == 0 {
                    request.keep_alive = true;
                }
            }
        } else if is(b"authorization") {
            request.authorization = Some(value);
        } else if is(b"accept") {
            request.accepts_openmetrics |=
                value.windows(OPENMETRICS.len()).any(|part| part.eq_ignore_ascii_case(OPENMETRICS));
        } else if is(b"transfer-encoding") || (is(b"content-length") && value != b"0") {
            return Err(BadRequest::Body);
        }
    }
    if minor == 1 && request.host.is_none() {
        return Err(BadRequest::NoHost);
    }
    Ok(request)
}

/// The media type of OpenMetrics, as `Accept` names it.
const OPENMETRICS: &[u8] = b"application/openmetrics-text";

/// The password of `Authorization: Basic`, whatever the user is.
pub fn basic_password(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, text) = authorization.split_at_checked(6)?;
    let pair = scheme.eq_ignore_ascii_case(b"basic ").then(|| base64(text.trim_ascii()))??;
    let colon = memchr(b':', &pair)?;
    Some(pair[colon + 1..].to_vec())
}

/// Decodes base64, with or without padding. `None`: it is invalid.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let count = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        let aligned = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&aligned.to_be_bytes()[1..=count]);
    }
    Some(bytes)
}

/// Whether a value of `Host` is an IP address, `localhost`, or one of `names`. Any other may be a foreign name that
/// resolves to this machine (DNS rebinding).
pub fn is_host_trusted<'n>(host: &[u8], mut names: impl Iterator<Item = &'n str>) -> bool {
    let Ok(text) = std::str::from_utf8(host) else { return false };
    let name = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => text.rsplit_once(':').map_or(text, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.any(|known| known.eq_ignore_ascii_case(name))
}

/// The status of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200
    Ok,
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 408
    Timeout,
    /// 421
    Misdirected,
    /// 431
    HeadTooLong,
    /// 503
    Unavailable,
}

impl Status {
    /// Code and reason.
    const fn text(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::Misdirected => "421 Misdirected Request",
            Self::HeadTooLong => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }

    /// The headers that it needs.
    const fn headers(self) -> &'static str {
        match self {
            Self::Unauthorized => "WWW-Authenticate: Basic realm=\"olivia\", charset=\"UTF-8\"\r\n",
            Self::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            Self::Ok
            | Self::BadRequest
            | Self::NotFound
            | Self::Timeout
            | Self::Misdirected
            | Self::HeadTooLong
            | Self::Unavailable => "",
        }
    }
}

/// Plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// HTML, with a policy: nothing is loaded from other origins, and no other page may frame it.
pub const HTML: &str = "text/html; charset=utf-8\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// JSON.
pub const JSON: &str = "application/json";
/// The text format of Prometheus.
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// OpenMetrics.
pub const OPENMETRICS_TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The form of a response, from its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Without the body.
    pub is_head: bool,
    /// Whether the connection stays open.
    pub keep_alive: bool,
}

/// Appends a response.
pub fn put_response(out: &mut Vec<u8>, status: Status, content_type: &str, delivery: Delivery, body: &[u8]) {
    put_response_head(out, status, content_type, delivery, body.len());
    if !delivery.is_head {
        out.extend_from_slice(body);
    }
}

/// Appends the head of a response whose body has this many bytes.
pub fn put_response_head(
    out: &mut Vec<u8>,
    status: Status,
    content_type: &str,
    delivery: Delivery,
    body_bytes: usize,
) {
    let connection = if delivery.keep_alive { "keep-alive" } else { "close" };
    // Writing to a vector does not fail.
    let _ = write!(
        out,
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {body_bytes}\r\nConnection: {connection}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{}\r\n",
        status.text(),
        status.headers(),
    );
}

#[cfg(test)]
mod tests {
    use super::{
        BadRequest, HEAD_BYTES_MAX, Parsed, base64, basic_password, is_host_trusted, is_request_line, parse,
    };

    fn broken(head: &str) -> BadRequest {
        match parse(head.as_bytes()) {
            Parsed::Broken(error) => error,
            Parsed::Partial | Parsed::TooLong | Parsed::Request { .. } => panic!("{head:?} is served"),
        }
    }

    #[test]
    fn line_of_http_is_distinguished_from_a_line_of_the_protocol() {
        for line in ["GET / HTTP/1.1", "HEAD /livez HTTP/1.0", "GET /a?b=c HTTP/1.1"] {
            assert!(is_request_line(line.as_bytes()), "{line}");
        }
        for line in [
            "GET key",
            "GET / HTTP/2",
            "POST / HTTP/1.1",
            "GET \"/ HTTP/1.1",
            "GET / HTTP/1.1 x",
            "GET /  HTTP/1.1",
            "get / HTTP/1.1",
            "GET key HTTP/1.1",
        ] {
            assert!(!is_request_line(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn head_is_complete_with_its_empty_line_and_not_before() {
        let head = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a:1\r\nAccept: text/plain;q=0.5, application/OpenMetrics-text\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(parse(&head[..cut]), Parsed::Partial, "{cut}");
        }
        let input = [&head[..], b"GET "].concat();
        let Parsed::Request { request, consumed } = parse(&input) else { panic!() };
        assert_eq!(consumed, head.len());
        assert_eq!((request.path, request.host), (&b"/metrics"[..], Some(&b"a:1"[..])));
        assert!(request.keep_alive && request.accepts_openmetrics && !request.is_head);
        assert!(matches!(parse(b"HEAD / HTTP/1.0\n\n"), Parsed::Request { request, .. } if request.is_head));
    }

    #[test]
    fn connection_stays_open_as_version_and_header_say() {
        for (version, header, expected) in [
            ("1.1", "X: y", true),
            ("1.1", "Connection: Close", false),
            ("1.0", "X: y", false),
            ("1.0", "connection: a, Keep-Alive", true),
        ] {
            let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{header}\r\n\r\n");
            let Parsed::Request { request, .. } = parse(head.as_bytes()) else { panic!("{head}") };
            assert_eq!(request.keep_alive, expected, "{head}");
        }
    }

    #[test]
    fn head_that_could_be_read_in_two_ways_is_refused() {
        assert_eq!(broken("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), BadRequest::Header);
        assert_eq!(broken("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"), BadRequest::Header);
        assert_eq!(broken("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), BadRequest::Header);
        assert_eq!(broken("GET / HTTP/1.1\r\nno colon\r\n\r\n"), BadRequest::Header);
        assert_eq!(broken("GET / HTTP/1.1\r\n\r\n"), BadRequest::NoHost);
        assert_eq!(broken("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"), BadRequest::Body);
        assert_eq!(
            broken("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
            BadRequest::Body
        );
        assert_eq!(broken("PUT / HTTP/1.1\r\nHost: a\r\n\r\n"), BadRequest::Method);
        assert_eq!(broken("GET / HTTP/3\r\n\r\n"), BadRequest::RequestLine);
    }

    #[test]
    fn head_over_its_limit_is_found_before_its_end_comes() {
        let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
        head.resize(HEAD_BYTES_MAX - 1, b'x');
        assert_eq!(parse(&head), Parsed::Partial);
        head.push(b'x');
        assert_eq!(parse(&head), Parsed::TooLong);
    }

    #[test]
    fn base64_is_decoded_or_refused() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vOmI6YXI=", "foo:b:ar")]
        {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for text in ["Z", "Zm9vY", "Zm 9", "Z=g="] {
            assert_eq!(base64(text.as_bytes()), None, "{text}");
        }
        assert_eq!(basic_password(b"basic Zm9vOmI6YXI=").as_deref(), Some(&b"b:ar"[..]));
        assert_eq!(basic_password(b"Bearer x"), None);
        assert_eq!(basic_password(b"Basic Zm9v"), None);
    }

    #[test]
    fn foreign_name_that_leads_here_is_not_trusted() {
        let trusts = |host: &str| is_host_trusted(host.as_bytes(), ["olivia-1", "Db.example"].into_iter());
        for host in [
            "127.0.0.1:5454",
            "[::1]:5454",
            "[::1]",
            "10.0.0.7",
            "localhost",
            "LOCALHOST:80",
            "db.example:5454",
        ] {
            assert!(trusts(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:5454", "", "localhost.evil", "olivia-10", "[::1"]
        {
            assert_eq!(trusts(host), host == "[::1", "{host}");
        }
    }
}
