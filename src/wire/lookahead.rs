//! Lookahead: the ends of the next lines, or the arguments of the next RESP requests, parsed before they are
//! executed, so that their keys can be prefetched. Each result is used when its request is executed: nothing is
//! parsed twice.

use super::resp::parse::Batch;
use memchr::memchr;

/// Lines per scan.
const LINES_MAX: usize = 64;

/// The requests of one input that were parsed in advance and not taken yet; `T` is known of one in RESP. Its memory is
/// reused for the next input.
#[derive(Debug, Default)]
pub struct Lookahead<T> {
    /// Bytes of each line, up to its line feed.
    lines: Vec<usize>,
    taken: usize,
    /// Requests in RESP.
    pub requests: Batch<T>,
}

impl<T: Copy> Lookahead<T> {
    /// Drops everything that was parsed. Must be called before other input.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.taken = 0;
        self.requests.clear();
    }

    /// Takes the position of the line feed of the next line; `None` if it was not scanned.
    #[inline]
    pub fn next_line(&mut self) -> Option<usize> {
        let end = self.lines.get(self.taken).copied();
        self.taken += usize::from(end.is_some());
        end
    }

    /// Whether every scanned line was taken.
    pub fn is_out_of_lines(&self) -> bool {
        self.taken == self.lines.len()
    }

    /// Scans up to `LINES_MAX` complete lines at the start of `input`, and calls `visit` with each.
    pub fn scan_lines<'a>(&mut self, input: &'a [u8], mut visit: impl FnMut(&'a [u8])) {
        self.lines.clear();
        self.taken = 0;
        let mut rest = input;
        while self.lines.len() < LINES_MAX
            && let Some(end) = memchr(b'\n', rest)
        {
            self.lines.push(end);
            visit(&rest[..end]);
            rest = &rest[end + 1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lookahead;
    use crate::wire::resp::parse::RequestLimits;

    #[test]
    fn scanned_lines_and_requests_are_taken_in_order() {
        let mut lookahead = Lookahead::default();
        let mut lines = Vec::new();
        lookahead.scan_lines(b"GET a\r\n\nSET b:c\nGET d", |line| lines.push(line.to_vec()));
        assert_eq!(lines, [&b"GET a\r"[..], b"", b"SET b:c"]);
        assert_eq!([(); 4].map(|()| lookahead.next_line()), [Some(6), Some(0), Some(7), None]);
        assert!(lookahead.is_out_of_lines());
        let limits = RequestLimits {
            args_max: 10,
            bulk_bytes_max: 100,
            request_bytes_max: 1_000,
            is_unauthenticated: false,
        };
        let mut rest = &b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*0\r\n*1\r\n$4\r\nPING\r\n*1\r\n$9"[..];
        assert_eq!(lookahead.requests.parse(rest, limits, |args| args.len()), 3);
        let mut taken = Vec::new();
        while let Some((request, args)) = lookahead.requests.take(rest) {
            assert_eq!(request.args().len(), args);
            taken.push(request.args().iter().map(<[u8]>::to_vec).collect::<Vec<_>>().concat());
            rest = &rest[request.consumed..];
        }
        let whole = vec![b"GETa".to_vec(), b"".to_vec(), b"PING".to_vec()];
        assert_eq!((taken, rest), (whole, &b"*1\r\n$9"[..]));
        assert!(lookahead.requests.is_empty());
    }
}
