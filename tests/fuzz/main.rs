//! The short run of the fuzz targets, with a seeded mutator and without coverage. The long run is `make fuzz`, which
//! drives the same functions by libFuzzer.
//!
//! `OLIVIA_FUZZ_SEED` selects other inputs; `OLIVIA_FUZZ_SECONDS` is a time per target instead of a fixed number of
//! inputs. Add an input that has failed to `corpus/`.

mod config;
mod frame;
mod handshake;
mod http;
mod line;
mod node;
mod request;
mod resp;

use olivia::base::rng::Rng;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of a mutated input.
const INPUT_BYTES_MAX: usize = 600;

/// Changes made to an input, one after the other.
const CHANGES_MAX: u64 = 6;

/// Inputs between two looks at the clock.
const BATCH: u64 = 256;

#[test]
fn line_ends_are_found_however_the_input_is_cut() {
    fuzz("line", line::run, 6_000);
}

#[test]
fn request_that_can_be_read_reads_back_the_same() {
    fuzz("request", request::run, 20_000);
}

#[test]
fn resp_request_is_the_same_however_it_is_cut() {
    fuzz("resp", resp::run, 20_000);
}

#[test]
fn head_of_http_is_the_same_however_it_is_cut() {
    fuzz("http", http::run, 6_000);
}

#[test]
fn frame_that_can_be_read_is_written_as_the_same_bytes() {
    fuzz("frame", frame::run, 20_000);
}

#[test]
fn handshake_that_can_be_read_reads_back_the_same() {
    fuzz("handshake", handshake::run, 20_000);
}

#[test]
fn configuration_that_loads_loads_again_when_printed() {
    fuzz("config", config::run, 800);
}

#[test]
fn node_under_any_input_keeps_its_contract() {
    fuzz("node", node::run, 4_000);
}

/// Runs one target on its corpus and on what can be made of it.
fn fuzz(name: &str, target: fn(&[u8]), inputs: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("OLIVIA_FUZZ_SEED").unwrap_or(1);
    let time = number("OLIVIA_FUZZ_SECONDS").map(Duration::from_secs);
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let corpus = read_corpus(&home.join("corpus").join(name));
    let tokens = read_dictionary(&home.join("dictionary.txt"));
    for input in &corpus {
        try_one(name, seed, target, input);
    }
    let mut mutator = Mutator { rng: Rng::new(seed), corpus, tokens };
    let begin = Instant::now();
    let mut done = 0;
    while time.map_or(done < inputs, |time| begin.elapsed() < time) {
        for _ in 0..BATCH {
            try_one(name, seed, target, &mutator.input());
        }
        done += BATCH;
    }
    println!("{name}: {done} inputs in {:?}", begin.elapsed());
}

fn try_one(name: &str, seed: u64, target: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("target {name}, OLIVIA_FUZZ_SEED={seed}, fails on b\"{}\"", input.escape_ascii());
    }
}

/// All files of a folder, in the order of their names.
fn read_corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A dictionary as libFuzzer reads it: one quoted token a line, with `\\`, `\"` and `\xHH`.
fn read_dictionary(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| line.starts_with('"'));
    lines.map(|line| unescape(line.strip_prefix('"').unwrap().strip_suffix('"').unwrap())).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, byte == b'\\') {
            (_, false) => out.push(byte),
            (_, true) => match bytes.next().unwrap() {
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                }
                other => out.push(other),
            },
        }
    }
    out
}

struct Mutator {
    rng: Rng,
    corpus: Vec<Vec<u8>>,
    tokens: Vec<Vec<u8>>,
}

impl Mutator {
    /// An input made of one of the corpus by a few changes.
    fn input(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        let mut input = self.corpus[at].clone();
        for _ in 0..=self.rng.below(CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX.max(self.corpus[at].len()));
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(24)).min(input.len()).max(at);
        match self.rng.below(8) {
            0 => drop(input.drain(at..end)),
            1 => {
                let again = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, again);
            }
            2 => {
                let other = self.below(self.corpus.len());
                let other = &self.corpus[other];
                let from = usize::try_from(self.rng.below(other.len() as u64 + 1)).unwrap();
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            3 => {
                let random: Vec<u8> = (0..=self.below(4)).map(|_| self.byte()).collect();
                input.splice(at..at, random);
            }
            4 if at < input.len() => input[at] = self.byte(),
            5 if at < input.len() => input[at] ^= 1 << self.rng.below(8),
            _ => {
                let token = self.below(self.tokens.len());
                let replaced = if self.rng.one_in(2) { end } else { at };
                input.splice(at..replaced, self.tokens[token].clone());
            }
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.rng.below(256)).unwrap()
    }
}
