//! A Bloom filter as text: six fields that a person can copy and a program can read back bit for bit.
//!
//! ```text
//! v=1,blocks=2,keys=1,epoch=7,seq=1,bits=z7.0000000000000100z8.
//! ```
//!
//! `bits` is the 64-bit words of the blocks, eight each, as 16 hex digits of lower case; a run of r zero
//! words, r from 2 up, is `z<r>.`. Each filter has exactly one text, which needs no quoting.

use std::mem;

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

#[cfg(test)]
mod tests {
    use super::{FilterDump, FilterHead};

    #[test]
    fn text_of_an_almost_empty_filter_is_short_however_it_is_cut() {
        let mut words = [0; 16];
        words[7] = 256;
        let expected = "v=1,blocks=2,keys=1,epoch=7,seq=1,bits=z7.0000000000000100z8.";
        for step in 1..=words.len() {
            let mut out = Vec::new();
            let mut text = FilterDump::begin(&FilterHead { blocks: 2, keys: 1, epoch: 7, seq: 1 }, &mut out);
            words.chunks(step).for_each(|some| text.words(some, &mut out));
            text.finish(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "in steps of {step}");
        }
    }
}
