//! Fuzz target: the lines of a handshake, from either side. A valid line is encoded and decoded again with the same
//! result; an invalid one gets one error of printable text.

use olivia::wire::handshake::{
    Answer, ConnectArgs, HandshakeError, LINE_BYTES_MAX, Offer, Proof, put_counter_offer, put_full,
    put_offer, put_proof, read_answer, read_request,
};
use std::net::{Ipv4Addr, SocketAddr};

/// Bytes that no sentence about a handshake needs more of.
const SENTENCE_BYTES_MAX: usize = 400;

/// The text before the arguments that [`read_request`] reads.
const REQUEST: &str = ":REQUEST connect ";

/// The input is a line, read as what the dialler sent and as what it was answered.
pub fn run(data: &[u8]) {
    match read_request(data) {
        Ok(ConnectArgs::Offer(offer)) => {
            check_offer(&offer);
            let again = written(|out| put_offer(out, &offer));
            assert!(matches!(request(&again), ConnectArgs::Offer(same) if same == offer), "{offer:?}");
        }
        Ok(ConnectArgs::Proof(proof)) => {
            let again = written(|out| put_proof(out, &proof));
            assert!(
                matches!(request(&again), ConnectArgs::Proof(same) if is_same(&same, &proof)),
                "{proof:?}"
            );
        }
        Err(error) => check_sentence(&error),
    }
    match read_answer(data) {
        Ok(Answer::Offer(offer, proof)) => {
            check_offer(&offer);
            let again = written(|out| put_counter_offer(out, b"h1", &offer, &proof));
            let Ok(Answer::Offer(same, same_proof)) = read_answer(&again) else { panic!("{offer:?}") };
            assert!(same == offer && is_same(&proof, &same_proof), "{offer:?}");
        }
        Ok(Answer::Welcome) => assert_eq!(data, b"h2:FULFILLED welcome"),
        Ok(Answer::Full(hints)) => {
            let again = written(|out| put_full(out, b"h2", hints.iter()));
            let Ok(Answer::Full(same)) = read_answer(&again) else { panic!("{hints:?}") };
            assert!(same.iter().eq(hints.iter()), "{hints:?}");
        }
        Ok(Answer::Refused(sentence)) => assert!(data.ends_with(sentence)),
        Err(error) => check_sentence(&error),
    }
}

/// A line without its end.
fn written(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n') && out.len() <= LINE_BYTES_MAX, "{:?}", out.escape_ascii());
    out
}

fn request(line: &[u8]) -> ConnectArgs<'_> {
    let start = line.windows(REQUEST.len()).position(|window| window == REQUEST.as_bytes());
    let args = &line[start.unwrap_or(0) + REQUEST.len()..];
    read_request(args).unwrap_or_else(|error| panic!("{error} in {:?}", line.escape_ascii()))
}

fn is_same(one: &Proof, other: &Proof) -> bool {
    one.matches(other) && other.matches(one)
}

/// An offer that was read leads somewhere, wherever it is seen from.
fn check_offer(offer: &Offer<'_>) {
    let seen = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
    let addr = offer.listen_addr(seen).unwrap_or_else(|| panic!("{offer:?}"));
    assert!(addr.port() != 0 && !addr.ip().is_unspecified(), "{addr}");
}

fn check_sentence(error: &HandshakeError<'_>) {
    let sentence = error.to_string();
    assert!(!sentence.is_empty() && sentence.len() <= SENTENCE_BYTES_MAX, "{sentence:?}");
    assert!(!sentence.contains(char::is_control), "{sentence:?}");
}
