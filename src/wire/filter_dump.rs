//! A Bloom filter as text: six fields that a person can copy and a program can read back bit for bit.
//!
//! ```text
//! v=1,blocks=2,keys=1,epoch=7,seq=1,bits=z7.0000000000000100z8.
//! ```
//!
//! `bits` is the 64-bit words of the blocks, eight each, as 16 hex digits of lower case; a run of r zero
//! words, r from 2 up, is `z<r>.`. Each filter has exactly one text. The decoder checks the head against a limit and
//! counts the words before it allocates. The text needs no quoting.

use std::{fmt, mem};

/// 64-bit words of a block.
const BLOCK_WORDS: u64 = super::frame::BLOCK_WORDS as u64;

/// The fields before the bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterHead {
    /// Blocks of 512 bits: a power of two.
    pub blocks: u64,
    /// Keys that the filter was built from.
    pub keys: u64,
    /// The epoch of the changelog: larger after each start of the node.
    pub epoch: u64,
    /// The number of changes that the filter contains.
    pub seq: u64,
}

/// An error in the text of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterTextError {
    /// It does not begin with `v=1`.
    Version,
    /// This field is missing, out of order, or not a number without leading zeroes.
    Field(&'static str),
    /// `blocks` is not a power of two, or above the limit.
    Blocks,
    /// At this byte of `bits` is neither a word nor a run, or zeroes that must be part of a run.
    Bits(usize),
    /// `bits` gives another number of words than `blocks` needs.
    Words,
}

impl fmt::Display for FilterTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("a filter begins with v=1"),
            Self::Field(name) => write!(f, "a filter needs {name}=<number> here"),
            Self::Blocks => f.write_str("blocks is not a power of two, or above the limit"),
            Self::Bits(at) => write!(f, "bits has neither a word of 16 hex digits nor a run at byte {at}"),
            Self::Words => f.write_str("bits gives another number of words than blocks needs"),
        }
    }
}

/// Writes a filter piece by piece, so that a large one does not delay others.
#[derive(Debug)]
pub struct FilterDump {
    zeroes: u64,
}

impl FilterDump {
    /// Begins the text of a filter: writes everything before the bits.
    pub fn begin(head: &FilterHead, out: &mut Vec<u8>) -> Self {
        let FilterHead { blocks, keys, epoch, seq } = head;
        out.extend(format!("v=1,blocks={blocks},keys={keys},epoch={epoch},seq={seq},bits=").into_bytes());
        Self { zeroes: 0 }
    }

    /// Writes the next words: at most 16 bytes each, and the run before them.
    pub fn words(&mut self, words: &[u64], out: &mut Vec<u8>) {
        for &word in words {
            if word == 0 {
                self.zeroes += 1;
                continue;
            }
            self.flush(out);
            push_word(word, out);
        }
    }

    /// Writes the last run, if one is open.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        match mem::take(&mut self.zeroes) {
            0 => {}
            1 => push_word(0, out),
            run => out.extend(format!("z{run}.").into_bytes()),
        }
    }
}

fn push_word(word: u64, out: &mut Vec<u8>) {
    let digits = std::array::from_fn::<u8, 16, _>(|at| {
        let digit = word >> (60 - 4 * at) & 15;
        b"0123456789abcdef"[digit as usize & 15]
    });
    out.extend(digits);
}

/// Reads a filter of at most `blocks_max` blocks. Checks the whole text, then allocates 64 bytes per block: two passes.
///
/// # Errors
/// The first error; nothing was allocated.
pub fn decode(text: &[u8], blocks_max: u64) -> Result<(FilterHead, Vec<u64>), FilterTextError> {
    let rest = text.strip_prefix(b"v=1,").ok_or(FilterTextError::Version)?;
    let (blocks, rest) = number(rest, "blocks")?;
    let (keys, rest) = number(rest, "keys")?;
    let (epoch, rest) = number(rest, "epoch")?;
    let (seq, rest) = number(rest, "seq")?;
    let bits = rest.strip_prefix(b"bits=").ok_or(FilterTextError::Field("bits"))?;
    if !blocks.is_power_of_two() || blocks > blocks_max {
        return Err(FilterTextError::Blocks);
    }
    let count = blocks.checked_mul(BLOCK_WORDS).ok_or(FilterTextError::Blocks)?;
    let mut found = 0u64;
    for token in Tokens::new(bits) {
        found = found.checked_add(token?.words()).ok_or(FilterTextError::Words)?;
    }
    if found != count {
        return Err(FilterTextError::Words);
    }
    let mut words = Vec::with_capacity(usize::try_from(count).map_err(|_| FilterTextError::Blocks)?);
    for token in Tokens::new(bits) {
        match token? {
            Token::Word(word) => words.push(word),
            Token::Run(run) => {
                let run = usize::try_from(run).map_err(|_| FilterTextError::Words)?;
                words.resize(words.len() + run, 0);
            }
        }
    }
    Ok((FilterHead { blocks, keys, epoch, seq }, words))
}

/// Reads `name=<digits>,` at the start of `text`: the number, and the rest.
fn number<'t>(text: &'t [u8], name: &'static str) -> Result<(u64, &'t [u8]), FilterTextError> {
    let wrong = FilterTextError::Field(name);
    let rest = text.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
    let rest = rest.ok_or(wrong)?;
    // A number of 64 bits has at most 20 digits.
    let end = rest.iter().take(21).position(|&byte| byte == b',').ok_or(wrong)?;
    Ok((decimal(&rest[..end]).ok_or(wrong)?, &rest[end + 1..]))
}

/// A decimal number without leading zeroes.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[derive(Debug, Clone, Copy)]
enum Token {
    Word(u64),
    Run(u64),
}

impl Token {
    const fn words(self) -> u64 {
        match self {
            Self::Word(_) => 1,
            Self::Run(run) => run,
        }
    }

    const fn is_zero(self) -> bool {
        matches!(self, Self::Word(0) | Self::Run(_))
    }
}

/// The words and runs of `bits`; ends at the first error.
struct Tokens<'t> {
    bits: &'t [u8],
    at: usize,
    after_zero: bool,
}

impl<'t> Tokens<'t> {
    const fn new(bits: &'t [u8]) -> Self {
        Self { bits, at: 0, after_zero: false }
    }

    /// The token at the beginning of `rest`, with its length.
    fn token(rest: &[u8]) -> Option<(Token, usize)> {
        if rest.first() == Some(&b'z') {
            let end = rest.iter().take(22).position(|&byte| byte == b'.')?;
            let run = decimal(rest.get(1..end)?).filter(|&run| run >= 2)?;
            return Some((Token::Run(run), end + 1));
        }
        let digits = rest.get(..16)?;
        let word = digits.iter().try_fold(0u64, |word, byte| {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            Some(word << 4 | u64::from(digit))
        })?;
        Some((Token::Word(word), 16))
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<Token, FilterTextError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bits.get(self.at..).filter(|rest| !rest.is_empty())?;
        match Self::token(rest) {
            // Two zero words in a row must be a run.
            Some((token, length)) if !(token.is_zero() && self.after_zero) => {
                self.at += length;
                self.after_zero = token.is_zero();
                Some(Ok(token))
            }
            Some(_) | None => {
                let wrong = FilterTextError::Bits(self.at);
                self.at = self.bits.len();
                Some(Err(wrong))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FilterDump, FilterHead, FilterTextError, decode};
    use crate::base::rng::Rng;

    const HEAD: FilterHead = FilterHead { blocks: 2, keys: 1, epoch: 7, seq: u64::MAX };

    fn encode(head: &FilterHead, words: &[u64], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut text = FilterDump::begin(head, &mut out);
        words.chunks(step).for_each(|some| text.words(some, &mut out));
        text.finish(&mut out);
        out
    }

    fn random(rng: &mut Rng) -> (FilterHead, Vec<u64>) {
        let blocks = 1 << rng.below(7);
        let empty = rng.below(20);
        let words = (0..blocks * 8).map(|_| if rng.below(20) < empty { 0 } else { rng.next_u64() });
        let words = words.collect();
        (FilterHead { blocks, keys: rng.next_u64(), epoch: rng.below(9), seq: rng.next_u64() >> 40 }, words)
    }

    #[test]
    fn text_decodes_back_bit_for_bit_however_it_was_cut() {
        let mut rng = Rng::new(1);
        for _ in 0..500 {
            let (head, words) = random(&mut rng);
            let text = encode(&head, &words, usize::try_from(1 + rng.below(40)).unwrap());
            assert_eq!(text, encode(&head, &words, words.len()));
            assert_eq!(decode(&text, 64), Ok((head, words)));
        }
    }

    #[test]
    fn text_of_an_almost_empty_filter_is_short() {
        let mut words = vec![0; 16];
        words[7] = 256;
        let text = encode(&FilterHead { seq: 1, ..HEAD }, &words, 3);
        let expected = "v=1,blocks=2,keys=1,epoch=7,seq=1,bits=z7.0000000000000100z8.";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn mutated_text_is_refused_or_is_the_text_of_what_it_decodes_to() {
        let mut rng = Rng::new(2);
        for _ in 0..20_000 {
            let (head, words) = random(&mut rng);
            let mut text = encode(&head, &words, 8);
            for _ in 0..=rng.below(3) {
                let at = usize::try_from(rng.below(text.len() as u64)).unwrap();
                let alphabet = b"0123456789abcdefz.,=vAF\x00\xff";
                let byte = alphabet[usize::try_from(rng.below(alphabet.len() as u64)).unwrap()];
                match rng.below(4) {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    2 => _ = text.remove(at),
                    _ => text.truncate(at.max(1)),
                }
            }
            if let Ok((head, words)) = decode(&text, 64) {
                assert_eq!(encode(&head, &words, 8), text);
            }
        }
    }

    #[test]
    fn bombs_are_refused_before_anything_is_allocated() {
        let refuse = |text: &str| decode(text.as_bytes(), 1 << 10).unwrap_err();
        let head = "keys=1,epoch=1,seq=1";
        let bits = "bits=z18446744073709551615.";
        assert_eq!(refuse(&format!("v=1,blocks=2048,{head},bits=z16384.")), FilterTextError::Blocks);
        assert_eq!(refuse(&format!("v=1,blocks=9223372036854775808,{head},{bits}")), FilterTextError::Blocks);
        assert_eq!(refuse(&format!("v=1,blocks=1,{head},{bits}")), FilterTextError::Words);
        assert_eq!(refuse(&format!("v=1,blocks=1,{head},{bits}0000000000000001z2.")), FilterTextError::Words);
        assert_eq!(refuse(&format!("v=1,blocks=3,{head},bits=z24.")), FilterTextError::Blocks);
        assert_eq!(refuse(&format!("v=1,blocks=0,{head},bits=")), FilterTextError::Blocks);
        let unlimited = format!("v=1,blocks=9223372036854775808,{head},{bits}");
        assert_eq!(decode(unlimited.as_bytes(), u64::MAX), Err(FilterTextError::Blocks));
    }

    #[test]
    fn each_error_is_named() {
        let refuse = |text: &str| decode(text.as_bytes(), 1 << 10).unwrap_err();
        assert_eq!(refuse("v=2,blocks=1"), FilterTextError::Version);
        assert_eq!(refuse("v=1,blocks=1"), FilterTextError::Field("blocks"));
        assert_eq!(refuse("v=1,blocks=01,keys=1"), FilterTextError::Field("blocks"));
        assert_eq!(refuse("v=1,blocks=1,keys=18446744073709551616,"), FilterTextError::Field("keys"));
        let bits = |bits: &str| refuse(&format!("v=1,blocks=1,keys=0,epoch=0,seq=0,bits={bits}"));
        assert_eq!(bits("z8"), FilterTextError::Bits(0));
        assert_eq!(bits("z1."), FilterTextError::Bits(0));
        assert_eq!(bits("z4.z4."), FilterTextError::Bits(3));
        assert_eq!(bits("000000000000000Az7."), FilterTextError::Bits(0));
        assert_eq!(bits("z7."), FilterTextError::Words);
        assert_eq!(bits("z9."), FilterTextError::Words);
    }
}
