//! What hostile clients send: requests, requests with a byte wrong, and bytes that are no request.

use super::super::protocol::{quote, show};
use olivia::base::rng::Rng;

/// Few keys, so that clients meet on them, and of every kind.
const KEYS: [&[u8]; 12] = [
    b"a",
    b"b",
    b"key3",
    b"user:1",
    b"",
    b"c d",
    b"x,y",
    b"\xff\x00",
    b"\"",
    b"gr\xc3\xbc\xc3\x9fe",
    b" edge ",
    b"a-key-that-is-somewhat-longer-than-thirty-two-bytes",
];

/// Clients whose values are as large as this send large ones often.
const LARGE: u64 = 6_000;

/// The behaviour of the clients of one seed. A rate of n means one in n; 0: never.
#[derive(Debug)]
pub struct Style {
    pub keys: u64,
    pub args: u64,
    pub setex_args: u64,
    pub value_bytes: u64,
    pub seconds: u64,
    pub wrong: u64,
    pub garbage: u64,
    pub long_line: u64,
    pub fatal: u64,
    pub auth: u64,
    pub reads: u64,
}

impl Style {
    pub fn draw(rng: &mut Rng) -> Self {
        let mut pick = |choices: &[u64]| choices[at(rng, choices.len())];
        Self {
            keys: pick(&[1, 2, 4, 12]),
            args: pick(&[1, 2, 4, 12]),
            setex_args: pick(&[1, 3]),
            value_bytes: pick(&[4, 20, 200, 4_000]),
            seconds: pick(&[1, 2, 5, 60, 1_000_000_000]),
            wrong: pick(&[0, 3, 10, 50]),
            garbage: pick(&[0, 5, 50]),
            long_line: pick(&[0, 20, 200]),
            fatal: pick(&[0, 20, 100]),
            auth: pick(&[2, 5, 20]),
            reads: pick(&[2, 3, 10]),
        }
    }
}

/// Makes requests; values differ from one another, so that an old one cannot pass for a new one.
#[derive(Debug)]
pub struct Author {
    pub style: Style,
    pub password: String,
    serial: u64,
}

impl Author {
    pub fn new(style: Style, password: String) -> Self {
        Self { style, password, serial: 0 }
    }

    /// The right password, as a line.
    pub fn auth(&self) -> Vec<u8> {
        [b"AUTH ", quote(self.password.as_bytes()).as_slice(), b"\n"].concat()
    }

    /// One line, or something that is not quite one.
    pub fn line(&mut self, rng: &mut Rng) -> Vec<u8> {
        if rng.one_in(self.style.garbage) {
            return garbage(rng);
        }
        if rng.one_in(self.style.long_line) {
            let mut line = b"SET long:".to_vec();
            line.resize(1_000 + at(rng, 70_000), b'x');
            line.push(b'\n');
            return line;
        }
        let mut line = self.request(rng);
        if rng.one_in(self.style.wrong) {
            mutate(rng, &mut line);
        }
        if rng.one_in(5) {
            line.push(b'\r');
        }
        line.push(b'\n');
        line
    }

    fn request(&mut self, rng: &mut Rng) -> Vec<u8> {
        let mut line = Vec::new();
        if rng.one_in(3) {
            self.serial += 1;
            line.extend(format!("r{}:", self.serial).into_bytes());
        }
        if rng.one_in(self.style.fatal) {
            let fatal: [&[u8]; 4] = [b"QUIT", b"REQUEST disconnect", b"POST / HTTP/1.1", b"Host: x"];
            let fatal = fatal[at(rng, fatal.len())];
            return if rng.one_in(2) { fatal.to_vec() } else { [line.as_slice(), fatal].concat() };
        }
        if rng.one_in(self.style.auth) {
            let password = if rng.one_in(4) { "wrong" } else { self.password.as_str() };
            return [line.as_slice(), b"AUTH ", &quote(password.as_bytes())].concat();
        }
        let verbs: &[&[u8]] = if rng.one_in(self.style.reads) {
            &[b"SET", b"SETEX", b"EXPIRE", b"DEL", b"setex"]
        } else {
            &[
                b"GET",
                b"TTL",
                b"WHO",
                b"get",
                b"GET",
                b"GET",
                b"PING",
                b"PING 0",
                b"STATS",
                b"HELP",
                b"MESH",
                b"REQUEST peers",
                b"",
            ]
        };
        let verb = verbs[at(rng, verbs.len())];
        line.extend(verb);
        let upper = verb.to_ascii_uppercase();
        if ![&b"GET"[..], b"TTL", b"WHO", b"SET", b"SETEX", b"EXPIRE", b"DEL"].contains(&upper.as_slice()) {
            return line;
        }
        let most = match upper.as_slice() {
            b"WHO" => 1,
            b"SETEX" => self.style.setex_args,
            // More would not fit into a line.
            b"SET" if self.style.value_bytes >= LARGE => self.style.args.min(5),
            _ => self.style.args,
        };
        let args = 1 + at(rng, usize::try_from(most).unwrap());
        for arg in 0..args {
            line.push(if arg == 0 { b' ' } else { b',' });
            self.arg(rng, &upper, &mut line);
        }
        line
    }

    fn arg(&mut self, rng: &mut Rng, verb: &[u8], line: &mut Vec<u8>) {
        let number = at(rng, usize::try_from(self.style.keys).unwrap());
        let key = KEYS.get(number).map_or_else(|| format!("k{number}").into_bytes(), |key| key.to_vec());
        line.extend(if rng.one_in(3) { quote(&key) } else { show(&key, true) });
        if verb.starts_with(b"SET") {
            line.push(b':');
            let value = self.value(rng);
            line.extend(if rng.one_in(3) { quote(&value) } else { show(&value, false) });
        }
        if verb == b"SETEX" || verb == b"EXPIRE" {
            let seconds = if rng.one_in(20) { 0 } else { 1 + rng.below(self.style.seconds) };
            line.extend(format!(":{seconds}").into_bytes());
        }
    }

    fn value(&mut self, rng: &mut Rng) -> Vec<u8> {
        self.serial += 1;
        let mut value = format!("v{}", self.serial).into_bytes();
        match rng.below(if self.style.value_bytes < LARGE { 6 } else { 3 }) {
            0 => value.extend((0..rng.below(12)).map(|_| rng.next_u64().to_le_bytes()[0])),
            1 => value.extend(b", : \""),
            2 => value.resize(value.len() + at(rng, usize::try_from(self.style.value_bytes).unwrap()), b'.'),
            3 if rng.one_in(4) => value.clear(),
            _ => {}
        }
        value
    }
}

/// A number below `bound`, as an index.
pub fn at(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}

fn garbage(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![0; 1 + at(rng, 40)];
    rng.fill(&mut bytes);
    if rng.one_in(2) {
        bytes.push(b'\n');
    }
    bytes
}

/// Spoils a request by one to three bytes, which may leave it a request.
fn mutate(rng: &mut Rng, line: &mut Vec<u8>) {
    const TELLING: &[u8] = b",,::\"\"\\\\  \r\nx0*-.";
    for _ in 0..=rng.below(3) {
        let place = at(rng, line.len() + 1);
        let byte = TELLING[at(rng, TELLING.len())];
        match rng.below(5) {
            0 => line.insert(place, byte),
            1 if place < line.len() => line[place] = byte,
            2 if place < line.len() => drop(line.remove(place)),
            3 => line.truncate(place),
            _ => {
                let tail = line[place..].to_vec();
                line.extend(tail);
            }
        }
    }
}
