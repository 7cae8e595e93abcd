//! The handshake of a link: its four lines, and the proofs that both ends know the mesh secret.
//!
//! The lines can be read in a capture and typed by hand; frames follow them. Reading allocates nothing, and each
//! error is a sentence that names the wrong word. The order and timeouts of the lines are in the node.

mod proof;

pub use proof::{
    HASH_SECRET_BYTES, Proof, Prover, derive_hash_secret, keyed_bytes, other_key, public_hash_secret,
};

use super::args::trim;
use super::field::Excerpt;
use super::line::{Parsed, Request, parse, split_word};
use crate::base::address::is_loopback;
use memchr::{memchr, memchr2};
use std::fmt::{self, Write};
use std::net::SocketAddr;

/// The version of the protocol between nodes.
pub const PROTO: &str = "2";

/// Bytes of each line of the handshake, without its end.
pub const LINE_BYTES_MAX: usize = 1_024;

/// Addresses of other nodes in a refusal.
pub const HINTS_MAX: usize = 8;

/// The text whose hash proves that two nodes have the same hash secret. It contains the nonce of the offer, so that the
/// hash can neither be replayed nor precomputed.
pub fn hash_check_text(nonce: &[u8; 16]) -> [u8; 35] {
    let mut text = *b"olivia hash check 2................";
    text[19..].copy_from_slice(nonce);
    text
}

/// The id of the dialler's first request, the offer, and of its second, the proof.
const OFFER_ID: &[u8] = b"h1";
const PROOF_ID: &[u8] = b"h2";

/// The offer of a node: its identity and address. In one that was read, `listen` has the form of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<'a> {
    /// Its node id, new at each start.
    pub node: [u8; 16],
    /// The address it listens on, as text: `host:port`.
    pub listen: &'a [u8],
    /// Drawn for this handshake.
    pub nonce: [u8; 16],
    /// The hash of [`hash_check_text`] under its hash secret.
    pub hash: u64,
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether it has no link, or no room for another.
    pub links: Links,
}

/// The number of links of a node, as its offer states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// None: the other end makes room above its `active_peers`.
    None,
    /// Not stated: between none and `active_peers`.
    Unstated,
    /// `active_peers` or more: it has room only for a node without links.
    Full,
}

impl Offer<'_> {
    /// The address to dial the node at. `seen`, its address as seen from here, replaces an unspecified host, and a
    /// loopback host of another machine. `None` if `listen` is not an address.
    pub fn listen_addr(&self, seen: SocketAddr) -> Option<SocketAddr> {
        let listen = address(self.listen)?;
        let is_here = |addr: SocketAddr| is_loopback(addr.ip());
        if !listen.ip().is_unspecified() && (is_here(seen) || !is_here(listen)) {
            return Some(listen);
        }
        let mut addr = match seen {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => seen,
            // A socket for both families shows IPv4 addresses as mapped ones.
            SocketAddr::V6(_) | SocketAddr::V4(_) => SocketAddr::new(seen.ip().to_canonical(), 0),
        };
        addr.set_port(listen.port());
        Some(addr)
    }
}

/// An address in the form `IP:port`, with a port that can be dialled.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let addr: SocketAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(addr).filter(|addr| addr.port() != 0)
}

/// The words of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The version of the protocol between nodes.
    Proto,
    /// The identity.
    Node,
    /// The address.
    Listen,
    /// The nonce.
    Nonce,
    /// The check of the hash secret.
    Hash,
    /// The wall clock.
    Clock,
    /// How many links there are.
    Links,
    /// The proof.
    Proof,
}

const WORDS: [Word; 8] =
    [Word::Proto, Word::Node, Word::Listen, Word::Nonce, Word::Hash, Word::Clock, Word::Links, Word::Proof];

/// The fields of [`Word::Links`]. Any other states nothing.
const LINKS_NONE: &str = "none";
const LINKS_FULL: &str = "full";

impl Word {
    const fn name(self) -> &'static str {
        match self {
            Self::Proto => "proto",
            Self::Node => "node",
            Self::Listen => "listen",
            Self::Nonce => "nonce",
            Self::Hash => "hash",
            Self::Clock => "clock",
            Self::Links => "links",
            Self::Proof => "proof",
        }
    }

    /// The form that its field must have.
    const fn takes(self) -> &'static str {
        match self {
            Self::Proto => "a number",
            Self::Node | Self::Nonce => "32 hex digits",
            Self::Listen => "IP:port, such as 10.0.0.2:5454 or [fd00::2]:5454",
            Self::Hash => "16 hex digits",
            Self::Clock => "milliseconds since 1970",
            Self::Links => "none or full",
            Self::Proof => "64 hex digits, or nothing where there is no secret",
        }
    }
}

/// An error in a line of the handshake. Displays as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeError<'a> {
    /// Longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// An empty argument.
    EmptyArgument,
    /// An argument without `=`.
    NoEquals(&'a [u8]),
    /// A quoted field without its end.
    OpenQuote,
    /// Bytes after a closing quote.
    AfterQuote(&'a [u8]),
    /// A word that is given twice.
    Twice(Word),
    /// A required word that is missing.
    Missing(Word),
    /// A field that its word does not accept.
    Wrong(Word, &'a [u8]),
    /// A protocol version that this node does not speak.
    Proto(&'a [u8]),
    /// A proof in the first line.
    EarlyProof,
    /// A line that is not an answer of a handshake.
    NoAnswer(&'a [u8]),
}

impl fmt::Display for HandshakeError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong => write!(f, "connect has a line longer than {LINE_BYTES_MAX} bytes"),
            Self::EmptyArgument => f.write_str("connect has an empty argument; leave out the comma"),
            Self::NoEquals(arg) => write!(f, "connect takes word=field; '{}' has no =", Excerpt(arg)),
            Self::OpenQuote => f.write_str("connect has a quote that never closes; end the field with \""),
            Self::AfterQuote(rest) => {
                write!(f, "connect has '{}' after a closing quote; a quoted field ends there", Excerpt(rest))
            }
            Self::Twice(word) => write!(f, "connect has {} twice", word.name()),
            Self::Missing(word) => write!(f, "connect needs {}: {}", word.name(), word.takes()),
            Self::Wrong(word, field) => {
                write!(f, "connect has {} '{}'; it takes {}", word.name(), Excerpt(field), word.takes())
            }
            Self::Proto(proto) => {
                write!(
                    f,
                    "proto '{}' is not spoken here; this node speaks {PROTO}: run one version",
                    Excerpt(proto)
                )
            }
            Self::EarlyProof => f.write_str("connect takes proof in a second request, alone"),
            Self::NoAnswer(line) => write!(f, "'{}' does not answer a handshake", Excerpt(line)),
        }
    }
}

/// The arguments of a `REQUEST connect`.
#[derive(Debug, Clone, Copy)]
pub enum ConnectArgs<'a> {
    /// The first: the identity of the dialler.
    Offer(Offer<'a>),
    /// The second: its proof.
    Proof(Proof),
}

/// The answer to the dialler.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// To the first request: the identity of the acceptor, and its proof.
    Offer(Offer<'a>, Proof),
    /// To the second: the link is up, and frames may follow.
    Welcome,
    /// To the second: the node has `active_peers` links; the hints may have room.
    Full(Hints<'a>),
    /// To either: a refusal, with the reason as a sentence.
    Refused(&'a [u8]),
}

/// Addresses of other nodes in a refusal.
#[derive(Debug, Clone, Copy)]
pub struct Hints<'a>(&'a [u8]);

impl Hints<'_> {
    /// The addresses, at most [`HINTS_MAX`]; invalid entries are skipped.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.split(|&byte| byte == b',').filter_map(address).take(HINTS_MAX)
    }
}

/// Reads the arguments of a `REQUEST connect`. O(bytes), at most [`LINE_BYTES_MAX`].
///
/// # Errors
/// The first error; an unknown `proto` is reported before missing words.
pub fn read_request(args: &[u8]) -> Result<ConnectArgs<'_>, HandshakeError<'_>> {
    let fields = Fields::read(args)?;
    let has_offer = WORDS.iter().any(|&word| word != Word::Proof && fields.get(word).is_some());
    match fields.get(Word::Proof) {
        None => fields.offer().map(ConnectArgs::Offer),
        Some(_) if has_offer => Err(HandshakeError::EarlyProof),
        Some(_) => fields.proof().map(ConnectArgs::Proof),
    }
}

/// Reads an answer on the dialler's side: one line, without its end. O(bytes).
///
/// # Errors
/// As [`read_request`], and `NoAnswer` for any other line.
pub fn read_answer(line: &[u8]) -> Result<Answer<'_>, HandshakeError<'_>> {
    if line.len() > LINE_BYTES_MAX {
        return Err(HandshakeError::TooLong);
    }
    let no_answer = HandshakeError::NoAnswer(line);
    let colon = memchr(b':', line).ok_or(no_answer)?;
    let (id, reply) = (&line[..colon], &line[colon + 1..]);
    if let Some(sentence) = reply.strip_prefix(b"ERR ") {
        return Ok(Answer::Refused(sentence));
    }
    match (id, reply.strip_prefix(b"FULFILLED ")) {
        (OFFER_ID, Some(args)) => {
            let fields = Fields::read(args)?;
            Ok(Answer::Offer(fields.offer()?, fields.proof()?))
        }
        (PROOF_ID, Some(b"welcome")) => Ok(Answer::Welcome),
        (PROOF_ID, Some(args)) => match args.strip_prefix(b"full") {
            Some(hints) if matches!(hints, [] | [b',', ..]) => Ok(Answer::Full(Hints(hints))),
            Some(_) | None => Err(no_answer),
        },
        _ => Err(no_answer),
    }
}

/// Appends the dialler's first line.
pub fn put_offer(out: &mut Vec<u8>, own: &Offer<'_>) {
    put_start(out, OFFER_ID, "REQUEST connect ");
    put_words(out, own);
    out.push(b'\n');
}

/// Appends the answer to it, under its id.
pub fn put_counter_offer(out: &mut Vec<u8>, id: &[u8], own: &Offer<'_>, proof: &Proof) {
    put_start(out, id, "FULFILLED ");
    put_words(out, own);
    out.push(b',');
    put_proof_word(out, proof);
    out.push(b'\n');
}

/// Whether the first line of `input` begins a handshake; `None`: the line is incomplete.
pub fn begins_handshake(input: &[u8]) -> Option<bool> {
    match parse(input, LINE_BYTES_MAX) {
        Parsed::Partial => None,
        Parsed::TooLong => Some(false),
        Parsed::Line(line) => {
            let request = line.request().and_then(Result::ok);
            Some(request.is_some_and(|Request { verb, body, .. }| {
                let (what, words) = split_word(body);
                let is_connect =
                    verb.eq_ignore_ascii_case(b"REQUEST") && what.eq_ignore_ascii_case(b"connect");
                is_connect && !words.is_empty()
            }))
        }
    }
}

/// Appends the dialler's second line.
pub fn put_proof(out: &mut Vec<u8>, proof: &Proof) {
    put_start(out, PROOF_ID, "REQUEST connect ");
    put_proof_word(out, proof);
    out.push(b'\n');
}

/// Appends the answer to it, under its id. Frames may follow.
pub fn put_welcome(out: &mut Vec<u8>, id: &[u8]) {
    put_start(out, id, "FULFILLED welcome\n");
}

/// Appends the refusal of a node with `active_peers` links, with up to [`HINTS_MAX`] addresses of others.
pub fn put_full(out: &mut Vec<u8>, id: &[u8], hints: impl Iterator<Item = SocketAddr>) {
    put_start(out, id, "FULFILLED full");
    for hint in hints.take(HINTS_MAX) {
        out.extend_from_slice(format!(",{hint}").as_bytes());
    }
    out.push(b'\n');
}

fn put_start(out: &mut Vec<u8>, id: &[u8], words: &str) {
    out.extend_from_slice(id);
    out.push(b':');
    out.extend_from_slice(words.as_bytes());
}

/// Appends the words of an offer; `listen` is an address and needs no quotes.
fn put_words(out: &mut Vec<u8>, offer: &Offer<'_>) {
    let Offer { node, listen, nonce, hash, wall_ms, links } = offer;
    out.extend_from_slice(format!("proto={PROTO},node={},listen=", Hex(node)).as_bytes());
    out.extend_from_slice(listen);
    out.extend_from_slice(format!(",nonce={},hash={hash:016x},clock={wall_ms}", Hex(nonce)).as_bytes());
    let links = match links {
        Links::None => LINKS_NONE,
        Links::Unstated => return,
        Links::Full => LINKS_FULL,
    };
    out.extend_from_slice(format!(",links={links}").as_bytes());
}

fn put_proof_word(out: &mut Vec<u8>, proof: &Proof) {
    let bytes: &[u8] = proof.0.as_ref().map_or(&[], |bytes| bytes);
    out.extend_from_slice(format!("proof={}", Hex(bytes)).as_bytes());
}

/// Bytes as lower-case hex digits.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
        self.0.iter().try_for_each(|byte| {
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(byte & 15))
        })
    }
}

/// `N` bytes from exactly 2 N hex digits of either case.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = [0; N];
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// A decimal number.
fn number(text: &[u8]) -> Option<u64> {
    let is_plain = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok()?.parse().ok().filter(|_| is_plain)
}

/// The field of each word of [`WORDS`], in that order; `None` if it is missing.
#[derive(Debug, Default)]
struct Fields<'a> {
    fields: [Option<&'a [u8]>; WORDS.len()],
}

impl<'a> Fields<'a> {
    fn read(args: &'a [u8]) -> Result<Self, HandshakeError<'a>> {
        if args.len() > LINE_BYTES_MAX {
            return Err(HandshakeError::TooLong);
        }
        let mut found = Self::default();
        let mut rest = args;
        loop {
            let end = match memchr2(b'=', b',', rest) {
                Some(end) if rest[end] == b'=' => end,
                end => {
                    let arg = trim(&rest[..end.unwrap_or(rest.len())]);
                    let is_empty = arg.is_empty();
                    return Err(if is_empty {
                        HandshakeError::EmptyArgument
                    } else {
                        HandshakeError::NoEquals(arg)
                    });
                }
            };
            let word = trim(&rest[..end]);
            let (field, after) = field(&rest[end + 1..])?;
            let at = WORDS.iter().position(|known| known.name().as_bytes() == word);
            if let Some(at) = at
                && found.fields[at].replace(field).is_some()
            {
                return Err(HandshakeError::Twice(WORDS[at]));
            }
            match after.split_first() {
                None => return Ok(found),
                Some((_comma, next)) => rest = next,
            }
        }
    }

    fn get(&self, word: Word) -> Option<&'a [u8]> {
        self.fields[word as usize]
    }

    /// The field of a required word, read by `read`.
    fn need<T>(&self, word: Word, read: fn(&'a [u8]) -> Option<T>) -> Result<T, HandshakeError<'a>> {
        let field = self.get(word).ok_or(HandshakeError::Missing(word))?;
        read(field).ok_or(HandshakeError::Wrong(word, field))
    }

    fn offer(&self) -> Result<Offer<'a>, HandshakeError<'a>> {
        let proto = self.need(Word::Proto, Some)?;
        if proto != PROTO.as_bytes() {
            return Err(HandshakeError::Proto(proto));
        }
        Ok(Offer {
            node: self.need(Word::Node, unhex)?,
            listen: self.need(Word::Listen, |text| address(text).map(|_| text))?,
            nonce: self.need(Word::Nonce, unhex)?,
            hash: self.need(Word::Hash, unhex).map(u64::from_be_bytes)?,
            wall_ms: self.need(Word::Clock, number)?,
            links: match self.get(Word::Links) {
                Some(links) if links == LINKS_NONE.as_bytes() => Links::None,
                Some(links) if links == LINKS_FULL.as_bytes() => Links::Full,
                Some(_) | None => Links::Unstated,
            },
        })
    }

    fn proof(&self) -> Result<Proof, HandshakeError<'a>> {
        self.need(Word::Proof, |text| match text {
            b"" => Some(Proof(None)),
            _ => unhex(text).map(|bytes| Proof(Some(bytes))),
        })
    }
}

/// The field at the start of `rest`, bare or quoted, and the rest, which is empty or begins with a comma. Escapes stay:
/// no known word accepts a field with one.
fn field(rest: &[u8]) -> Result<(&[u8], &[u8]), HandshakeError<'_>> {
    let start = rest.iter().position(|&byte| byte != b' ').unwrap_or(rest.len());
    let rest = &rest[start..];
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let (field, after) = rest.split_at(memchr(b',', rest).unwrap_or(rest.len()));
        return Ok((trim(field), after));
    };
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', quoted.get(at..).unwrap_or_default()).ok_or(HandshakeError::OpenQuote)?;
        if quoted[at] == b'"' {
            break;
        }
        at += 2;
    }
    let (field, after) = (&quoted[..at], &quoted[at + 1..]);
    let (between, after) = after.split_at(memchr(b',', after).unwrap_or(after.len()));
    match trim(between) {
        b"" => Ok((field, after)),
        surplus => Err(HandshakeError::AfterQuote(surplus)),
    }
}

#[cfg(test)]
mod tests;
