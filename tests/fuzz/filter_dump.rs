//! Fuzz target: a filter as text. What decodes encodes to the same bytes, whichever way it is cut, and
//! any words come back as they were.

use olivia::wire::filter_dump::{FilterDump, FilterHead, decode};

/// Blocks that a text may have here: 64 KiB, so that bombs would be felt.
const BLOCKS_MAX: u64 = 1 << 10;

/// The input is a text, and the bytes of a filter.
pub fn run(data: &[u8]) {
    if let Ok((head, words)) = decode(data, BLOCKS_MAX) {
        assert!(head.blocks <= BLOCKS_MAX && words.len() as u64 == head.blocks * 8);
        assert_eq!(encode(&head, &words, words.len()), data, "{head:?}");
        assert_eq!(encode(&head, &words, 3), data, "{head:?}");
        let refused = decode(data, head.blocks - 1).is_err();
        assert!(refused, "more blocks than the limit");
    }
    let (chunks, rest) = data.as_chunks::<8>();
    let mut words: Vec<u64> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
    words.resize(words.len().next_power_of_two().max(8), 0);
    let blocks = words.len() as u64 / 8;
    let seq = rest.iter().fold(u64::MAX, |seq, byte| seq << 8 | u64::from(*byte));
    let head = FilterHead { blocks, keys: words[0], epoch: words[1], seq };
    let text = encode(&head, &words, 1 + rest.len());
    assert_eq!(decode(&text, blocks), Ok((head, words)));
}

/// The text, written in steps of so many words.
fn encode(head: &FilterHead, words: &[u64], step: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut text = FilterDump::begin(head, &mut out);
    words.chunks(step).for_each(|some| text.words(some, &mut out));
    text.finish(&mut out);
    out
}
