//! What goes wrong in one seed, and how often; and the limits of its node.

use super::client::{Style, at};
use olivia::base::rng::Rng;
use olivia::config::{Config, Secret};
use olivia::limits::Limits;

/// How often the world does what, as weights. Drawn once a seed.
#[derive(Debug)]
pub struct Faults {
    pub weights: [u64; 11],
    /// Largest piece delivered or taken at once.
    pub chunk: usize,
    /// One client in so many never reads; 0: all do.
    pub non_readers: u64,
    /// One client in so many is not on this machine.
    pub strangers: u64,
    /// Lines written at once.
    pub burst: usize,
    pub jump_ms: u64,
    /// Gives the node also what was read before it said that it wants no more.
    pub reads_ahead: bool,
}

/// What the world can do, in the order of `Faults::weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Connect,
    Write,
    Deliver,
    Take,
    Tick,
    Pass,
    HalfClose,
    Reset,
    Stale,
    Reconfigure,
    Watch,
}

const MOVES: [Move; 11] = [
    Move::Connect,
    Move::Write,
    Move::Deliver,
    Move::Take,
    Move::Tick,
    Move::Pass,
    Move::HalfClose,
    Move::Reset,
    Move::Stale,
    Move::Reconfigure,
    Move::Watch,
];

impl Faults {
    pub fn draw(rng: &mut Rng) -> Self {
        let mut pick = |choices: &[u64]| choices[at(rng, choices.len())];
        let weights = [
            pick(&[2, 5, 20]),
            pick(&[20, 40]),
            pick(&[20, 60, 120]),
            pick(&[10, 40, 120]),
            pick(&[5, 30]),
            pick(&[0, 2, 10, 30]),
            pick(&[0, 1, 5]),
            pick(&[0, 1, 5]),
            pick(&[0, 2]),
            pick(&[0, 0, 1]),
            pick(&[1, 3]),
        ];
        Self {
            weights,
            chunk: at(rng, 3).pow(2) * 20_000 + [1, 3, 50, 2_000][at(rng, 4)],
            non_readers: [0, 2, 5][at(rng, 3)],
            strangers: [0, 2, 4][at(rng, 3)],
            burst: [1, 3, 30, 400][at(rng, 4)],
            reads_ahead: rng.one_in(4),
            jump_ms: [5, 2_000, 100_000, 10_000_000_000][at(rng, 4)],
        }
    }

    pub fn next(&self, rng: &mut Rng) -> Move {
        let mut left = rng.below(self.weights.iter().sum());
        let mut moves = MOVES.iter().zip(self.weights);
        let chosen = moves.find(|(_, weight)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        chosen.map_or(Move::Tick, |(chosen, _)| *chosen)
    }
}

/// A configuration with some limits as small as they can be.
pub fn config(rng: &mut Rng, password: &str) -> Config {
    let mut limits = Limits::default();
    let rare = 2 + rng.below(8);
    let mut draw = |choices: &[u32], default: u32| {
        if rng.one_in(rare) { choices[at(rng, choices.len())] } else { default }
    };
    limits.clients_max = draw(&[2, 3, 8, 20], 40);
    limits.memory_max = draw(&[1 << 20, (1 << 20) + 5_000], 0).into();
    limits.line_bytes_max = draw(&[1_024, 5_000], limits.line_bytes_max);
    limits.args_max = draw(&[8, 9], limits.args_max);
    // Not below the password, which counts as a key.
    limits.key_bytes_max = draw(&[10, 20], limits.key_bytes_max);
    limits.value_bytes_max = draw(&[1, 10, 1_000], 1 << 20);
    limits.reply_bytes_max = draw(&[1_024, 2_000, 40_000], 1 << 20);
    limits.buffers_max = draw(&[1 << 20], 1 << 28).into();
    limits.outbound_pause_bytes = draw(&[1_024, 10_000], limits.outbound_pause_bytes);
    limits.slow_reader_bytes = draw(&[1_024, 10_000], limits.slow_reader_bytes);
    limits.slow_reader_ms = draw(&[1, 100], limits.slow_reader_ms);
    limits.request_idle_ms = draw(&[1, 100], limits.request_idle_ms);
    limits.first_byte_ms = draw(&[1, 100], limits.first_byte_ms);
    limits.unauthenticated_args_max = draw(&[8], limits.unauthenticated_args_max);
    limits.unauthenticated_line_bytes_max = draw(&[2_048], limits.unauthenticated_line_bytes_max);
    limits.drain_ms = draw(&[0, 1, 100], limits.drain_ms);
    limits.value_bytes_max = limits.value_bytes_max.min(limits.reply_bytes_max);
    if rng.one_in(2) {
        limits.unauthenticated_output_bytes_max = 1_024;
    }
    assert_eq!(limits.check(), Ok(()));
    let password = rng.one_in(2).then(|| Secret::new(password.to_owned()));
    Config { limits, password, ..Config::default() }
}

/// What all that one seed does is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theme {
    /// Whatever was drawn.
    Anything,
    /// Clients that ask for much and read little.
    Hoarders,
    /// More values than there is memory.
    Full,
}

/// Gives a seed its theme, as neither of them comes about by chance.
pub fn give_theme(rng: &mut Rng, config: &mut Config, style: &mut Style, faults: &mut Faults) {
    let theme = match rng.below(5) {
        0 => Theme::Hoarders,
        1 => Theme::Full,
        _ => Theme::Anything,
    };
    if theme == Theme::Anything {
        return;
    }
    // Less than an operator may set, so that it does not take long.
    let memory_max = if theme == Theme::Full { 60_000 } else { 0 };
    config.password = None;
    config.limits =
        Limits { memory_max, buffers_max: 1 << 20, reply_bytes_max: 1 << 20, ..Limits::default() };
    config.limits.value_bytes_max = 1 << 20;
    style.value_bytes = 8_000;
    style.fatal = 0;
    if theme == Theme::Hoarders {
        (style.keys, style.args, style.reads) = (4, 12, 10);
        (faults.non_readers, faults.burst, faults.chunk) = (2, 30, 40_000);
    } else {
        style.setex_args = 12;
        (style.keys, style.args, style.reads, style.seconds) = (40, 12, 2, 1_000);
    }
}

/// What may be read again while running. The limits of lines stay, since what has come of a line is
/// measured again only when more of it comes.
pub fn reconfigured(rng: &mut Rng, old: &Config, password: &str) -> Config {
    let mut new = config(rng, password);
    new.limits.line_bytes_max = old.limits.line_bytes_max;
    new.limits.unauthenticated_line_bytes_max = old.limits.unauthenticated_line_bytes_max;
    new.limits.buffers_max = old.limits.buffers_max;
    if old.password.is_some() {
        new.password = Some(Secret::new(password.to_owned()));
    }
    new
}
