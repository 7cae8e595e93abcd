//! Patterns of names as Redis has them: `*`, `?`, `[a-z]`, `[^a]`, and `\\` before a byte that stands for itself.
//!
//! A pattern is compiled to an automaton whose states are bits. Each byte of a name costs a few operations
//! per 64 characters of the pattern, whatever both are, so that no pattern takes exponential time.

/// Maximum characters of a pattern, not counting `*`.
pub const TOKENS_MAX: usize = 1_023;

/// Words of a state.
const WORDS_MAX: usize = (TOKENS_MAX + 1) / 64;

/// A compiled pattern. State n: the first n characters, not counting `*`, are matched.
#[derive(Debug)]
pub struct Pattern {
    /// For each byte, `words` words: the states that it leads to.
    steps: Vec<u64>,
    /// The states that any byte leaves as they are: a `*` stands there.
    stars: Vec<u64>,
    words: usize,
    tokens: usize,
}

/// The bytes that a character of a pattern stands for, one bit each.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes([u64; 4]);

impl Bytes {
    const ALL: Self = Self([u64::MAX; 4]);

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    const fn has(self, byte: usize) -> bool {
        self.0[byte / 64] >> (byte % 64) & 1 == 1
    }
}

impl Pattern {
    /// Compiles a pattern; `None` if it has more than [`TOKENS_MAX`] characters, not counting `*`. O(bytes).
    pub fn new(text: &[u8]) -> Option<Self> {
        let (mut tokens, mut stars, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let mut bytes = Bytes::default();
            match first {
                b'*' => {
                    if stars.last() != Some(&tokens.len()) {
                        stars.push(tokens.len());
                    }
                    continue;
                }
                b'?' => bytes = Bytes::ALL,
                b'[' => rest = class(after, &mut bytes),
                b'\\' if !after.is_empty() => {
                    bytes.add(after[0]);
                    rest = &after[1..];
                }
                _ => bytes.add(first),
            }
            if tokens.len() == TOKENS_MAX {
                return None;
            }
            tokens.push(bytes);
        }
        Some(Self::compile(&tokens, &stars))
    }

    fn compile(tokens: &[Bytes], stars: &[usize]) -> Self {
        let words = tokens.len() / 64 + 1;
        let mut pattern =
            Self { steps: vec![0; 256 * words], stars: vec![0; words], words, tokens: tokens.len() };
        for &state in stars {
            pattern.stars[state / 64] |= 1 << (state % 64);
        }
        for (token, bytes) in tokens.iter().enumerate() {
            let state = token + 1;
            for (byte, steps) in pattern.steps.chunks_exact_mut(words).enumerate() {
                steps[state / 64] |= u64::from(bytes.has(byte)) << (state % 64);
            }
        }
        pattern
    }

    /// Whether it matches a name.
    pub fn matches(&self, name: &[u8]) -> bool {
        let mut states = [0u64; WORDS_MAX];
        let states = &mut states[..self.words];
        states[0] = 1;
        for &byte in name {
            let from = usize::from(byte) * self.words;
            let (mut carry, mut alive) = (0, 0);
            let steps = &self.steps[from..from + self.words];
            for ((state, step), star) in states.iter_mut().zip(steps).zip(&self.stars) {
                let old = *state;
                *state = ((old << 1 | carry) & step) | (old & star);
                carry = old >> 63;
                alive |= *state;
            }
            if alive == 0 {
                return false;
            }
        }
        states[self.tokens / 64] >> (self.tokens % 64) & 1 == 1
    }

    /// The cost of [`Pattern::matches`] for a name of `bytes` bytes, in operations.
    pub const fn cost(&self, bytes: usize) -> usize {
        self.words * bytes
    }
}

/// Whether a pattern matches a name; one that cannot be compiled does not.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    Pattern::new(pattern).is_some_and(|pattern| pattern.matches(name))
}

/// Reads a class after its `[`; one that is not closed ends with the pattern. Returns the rest of the pattern.
fn class<'a>(text: &'a [u8], bytes: &mut Bytes) -> &'a [u8] {
    let (is_negated, mut rest) = match text {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', byte, after @ ..] => {
                bytes.add(*byte);
                after
            }
            [a, b'-', b, after @ ..] => {
                (*a.min(b)..=*a.max(b)).for_each(|byte| bytes.add(byte));
                after
            }
            [byte, after @ ..] => {
                bytes.add(*byte);
                after
            }
        };
    }
    if is_negated {
        bytes.0.iter_mut().for_each(|word| *word = !*word);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::{Pattern, TOKENS_MAX};
    use crate::base::rng::Rng;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern.as_bytes()).unwrap().matches(name.as_bytes())
    }

    #[test]
    fn patterns_match_what_they_do_in_redis() {
        for (pattern, yes, no) in [
            ("", "", "a"),
            ("*", "", "\0never"),
            ("a*", "abc", "ba"),
            ("*c", "abc", "cb"),
            ("a*b*c", "a-b-b-c", "a-c-b"),
            ("h?llo", "hello", "hllo"),
            ("h[ae]llo", "hallo", "hillo"),
            ("h[^e]llo", "hallo", "hello"),
            ("h[a-c]", "hb", "hd"),
            ("h[c-a]", "hb", "hd"),
            ("[a-]", "^", "b"),
            ("[^]", "x", ""),
            ("[ab", "b", "[ab"),
            ("[\\]]", "]", "\\"),
            ("a\\*", "a*", "ab"),
            ("a\\", "a\\", "a"),
            ("[]a", "none", "]a"),
            ("**a**", "bab", "b"),
        ] {
            assert!(matches(pattern, yes) || yes == "none", "{pattern:?} {yes:?}");
            assert!(!matches(pattern, no) || no.starts_with('\0'), "{pattern:?} {no:?}");
        }
    }

    #[test]
    fn matches_agree_with_plain_backtracking() {
        fn plain(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern, name) {
                ([], name) => name.is_empty(),
                ([b'*', rest @ ..], name) => (0..=name.len()).any(|at| plain(rest, &name[at..])),
                ([_, ..], []) => false,
                ([b'?', rest @ ..], [_, names @ ..]) => plain(rest, names),
                ([a, rest @ ..], [b, names @ ..]) => a == b && plain(rest, names),
            }
        }
        let mut rng = Rng::new(3);
        for _ in 0..20_000 {
            let mut draw = |alphabet: &[u8], max| -> Vec<u8> {
                (0..rng.below(max))
                    .map(|_| alphabet[usize::try_from(rng.below(alphabet.len() as u64)).unwrap()])
                    .collect()
            };
            let (pattern, name) = (draw(b"ab*?", 9), draw(b"ab", 9));
            assert_eq!(
                Pattern::new(&pattern).unwrap().matches(&name),
                plain(&pattern, &name),
                "{} {}",
                pattern.escape_ascii(),
                name.escape_ascii()
            );
        }
    }

    #[test]
    fn long_patterns_are_matched_across_words_or_refused() {
        let name = "ab".repeat(511) + "a";
        assert!(matches(&name, &name) && !matches(&name, &name[1..]));
        assert!(matches(&("*".to_owned() + &name[500..] + "*"), &name));
        // One character, however many bytes it stands for.
        let class = Pattern::new(&[b"*[", &vec![b'z'; 40_000][..], b"]"].concat()).unwrap();
        assert_eq!(class.cost(40_000), 40_000);
        assert!(!class.matches(&vec![b'a'; 40_000]));
        assert!(Pattern::new(&vec![b'a'; TOKENS_MAX + 1]).is_none());
        assert!(Pattern::new(&vec![b'*'; 100_000]).is_some());
    }
}
