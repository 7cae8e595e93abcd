//! How the clients of one seed behave, and the limits of its node.

use super::author::{Author, Style, at};
use olivia::base::rng::Rng;
use olivia::config::{Config, Secret};
use olivia::limits::{EvictionPolicy, Limits};

/// The rates of events: n means one in n; 0: never.
#[derive(Debug)]
pub struct Rates {
    /// Clients that never read.
    pub non_readers: u64,
    /// Clients on another machine.
    pub remote: u64,
    /// Lines written at once.
    pub burst: u64,
    pub jump_ms: u64,
    pub reads_ahead: bool,
}

/// Draws the clients, what they do, and the node's configuration.
pub fn draw(rng: &mut Rng) -> (Author, Rates, Config) {
    let password = "pass, word".to_owned();
    let mut config = config(rng, &password);
    let mut style = Style::draw(rng);
    let mut pick = |choices: &[u64]| choices[at(rng, choices.len())];
    let mut rates = Rates {
        non_readers: pick(&[0, 2, 5]),
        remote: pick(&[0, 2, 4]),
        burst: pick(&[1, 3, 30, 400]),
        jump_ms: pick(&[5, 2_000, 100_000, 10_000_000_000]),
        reads_ahead: pick(&[0, 0, 0, 1]) == 1,
    };
    // Neither of these comes about by chance.
    match rng.below(5) {
        0 => {
            // Clients that request much and read little.
            give_theme(&mut config, &mut style, 0);
            (style.keys, style.args, style.reads) = (4, 12, 10);
            (rates.non_readers, rates.burst) = (2, 30);
        }
        1 => {
            // More values than there is memory: less than an operator may set, so that it does not take long.
            give_theme(&mut config, &mut style, 60_000);
            (style.keys, style.args, style.reads, style.seconds) = (40, 12, 2, 1_000);
            (style.setex_args, rates.burst) = (12, rates.burst.min(30));
        }
        _ => {}
    }
    (Author::new(style, password), rates, config)
}

fn give_theme(config: &mut Config, style: &mut Style, memory_max: u64) {
    config.password = None;
    config.limits = Limits {
        memory_max,
        eviction: EvictionPolicy::Refuse,
        buffers_max: 1 << 20,
        reply_bytes_max: 1 << 20,
        ..Limits::default()
    };
    config.limits.value_bytes_max = 1 << 20;
    (style.value_bytes, style.fatal) = (8_000, 0);
}

/// A configuration with some limits as small as they can be.
fn config(rng: &mut Rng, password: &str) -> Config {
    // A key that is set can be read: nothing is evicted.
    let mut limits = Limits { eviction: EvictionPolicy::Refuse, ..Limits::default() };
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

/// What may be read again while running. The limits of lines stay, since what has come of a line is
/// measured again only when more of it comes.
pub fn redrawn(rng: &mut Rng, old: &Config, password: &str) -> Config {
    let mut new = config(rng, password);
    new.limits.line_bytes_max = old.limits.line_bytes_max;
    new.limits.unauthenticated_line_bytes_max = old.limits.unauthenticated_line_bytes_max;
    new.limits.buffers_max = old.limits.buffers_max;
    if old.password.is_some() {
        new.password = Some(Secret::new(password.to_owned()));
    }
    new
}
