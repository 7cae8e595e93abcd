//! The protocol of one value per key, checked state by state.
//!
//! `model.rs` and `requests.rs` have the handlers of a node for one key, `actions.rs` the possible next actions;
//! `search.rs` visits every state that a bounded world of `scenarios.rs` can reach, and checks in each the promises of
//! `docs/consistency.md`. `rules.rs` has the rules of the protocol. Without a rule a promise breaks: `traces.txt` has
//! the shortest history for each, which explains the rule. `make model` searches everything; with `OLIVIA_WRITE_DOCS=1`
//! it writes `traces.txt` again.
//!
//! Not in the model: several keys, more than three nodes, hedged lookups, limits of clocks, tables and queues,
//! transfers of values. The simulator, `tests/mesh`, covers these with the real code.

mod actions;
mod handlers;
#[path = "../kit/mod.rs"]
mod kit;
mod model;
mod requests;
mod rules;
mod scenarios;
mod search;
mod state;

use actions::Action;
use model::Fault;
use rules::Rule;
use scenarios::{LARGE, NEEDS, Need, SMALL, STATES_MAX, Scenario, World};
use search::search;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

fn search_all(worlds: &[World]) {
    let mut wrong = String::new();
    for World { scenario, states } in worlds {
        let begin = Instant::now();
        let outcome = search(scenario, None, STATES_MAX);
        let end = if outcome.is_cut { ", not all" } else { "" };
        let text = format!("{}: {} states{end}, {} deep", scenario.text(), outcome.states, outcome.depth);
        println!("{text}, {:.1} s", begin.elapsed().as_secs_f32());
        if let Some(violation) = outcome.violation {
            let trace = violation.trace.join("\n  ");
            _ = writeln!(wrong, "{}\n  {trace}\n  = {:?}", scenario.text(), violation.fault);
        } else if outcome.states.min(STATES_MAX + 1) != *states {
            _ = writeln!(wrong, "{}: {} states, not {states}", scenario.text(), outcome.states);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn promises_hold_in_every_state_of_small_worlds() {
    search_all(SMALL);
}

#[test]
#[ignore = "takes minutes: make model"]
fn promises_hold_in_every_state_of_large_worlds() {
    search_all(LARGE);
}

#[test]
fn worlds_in_the_documents_are_those_that_are_searched() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/consistency.md");
    let text = std::fs::read_to_string(path).unwrap();
    let digits = |text: &str| text.replace(',', "");
    let rows = text.lines().filter(|line| line.starts_with("| 2 nodes") || line.starts_with("| 3 nodes"));
    let rows: Vec<String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let end = if cells[3].ends_with(", stopped") { STATES_MAX + 1 } else { 0 };
            let states = if end > 0 { end } else { digits(cells[3]).parse().unwrap() };
            format!("{}: {}: {states}", cells[1], cells[2])
        })
        .collect();
    let searched = LARGE.iter().map(|world| format!("{}: {}", world.scenario.text(), world.states));
    assert_eq!(rows, searched.collect::<Vec<_>>());
}

#[test]
fn each_rule_has_its_history() {
    for rule in Rule::ALL {
        let count = NEEDS.iter().filter(|need| need.rule == rule).count();
        let expected = usize::from(!Rule::BESIDE_OTHERS.contains(&rule));
        assert_eq!(count, expected, "{rule:?}");
    }
}

/// States after which the search for a need of one of the rules that stand beside others ends.
const BESIDE_STATES_MAX: usize = 2_000_000;

#[test]
#[ignore = "takes minutes: make model"]
fn rules_beside_others_break_nothing_alone() {
    for rule in Rule::BESIDE_OTHERS {
        for World { scenario, .. } in LARGE {
            let violation = search(scenario, Some(rule), BESIDE_STATES_MAX).violation;
            assert!(violation.is_none(), "without {rule:?}, {}: {violation:?}", scenario.text());
        }
    }
}

/// Follows a history; what it breaks, or the line that cannot happen.
fn replay(scenario: &Scenario, without: Option<Rule>, lines: &[&str]) -> Result<Option<Fault>, String> {
    let mut state = scenario.start();
    for (at, line) in lines.iter().enumerate() {
        let actions = Action::all(scenario, &state, without);
        let action = actions.into_iter().find(|action| action.describe(&state) == *line);
        let step = action.ok_or_else(|| (*line).to_owned())?.take(scenario, state, without);
        if let Some(fault) = step.fault.filter(|fault| !scenario.unchecked.contains(fault)) {
            return if at + 1 == lines.len() { Ok(Some(fault)) } else { Err(format!("{fault:?} at {line}")) };
        }
        state = step.state;
    }
    Ok(None)
}

fn traces_path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/one_value/traces.txt"))
}

fn heading(need: &Need) -> String {
    format!("Without {:?}; {}", need.rule, need.scenario.text())
}

#[test]
fn histories_break_their_promise_without_their_rule_and_only_then() {
    let text = std::fs::read_to_string(traces_path()).unwrap();
    let histories: Vec<Vec<&str>> = text.split("\n\n").map(|part| part.trim().lines().collect()).collect();
    for need in NEEDS {
        let title = heading(need);
        let history = histories.iter().find(|history| history.first() == Some(&title.as_str()));
        let history = history.unwrap_or_else(|| panic!("no history: {title}; make model writes it"));
        let (last, lines) = history[1..].split_last().unwrap();
        assert_eq!(*last, format!("  = {:?}", need.fault), "{title}");
        let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        assert_eq!(replay(&need.scenario, Some(need.rule), &lines), Ok(Some(need.fault)), "{title}");
        let broken = replay(&need.scenario, None, &lines).ok().flatten();
        assert_eq!(broken, None, "{title}: breaks with the rule too");
    }
}

#[test]
#[ignore = "takes minutes: make model"]
fn histories_are_the_shortest() {
    let mut text =
        "Histories that break a promise when one rule of the protocol is switched off: the shortest \
                    of each.\nmain.rs says how they were found. X, Y and Z are nodes, numbers are versions.\n"
            .to_owned();
    for need in NEEDS {
        let outcome = search(&need.scenario, Some(need.rule), STATES_MAX);
        let violation = outcome.violation.unwrap_or_else(|| panic!("{}: nothing breaks", heading(need)));
        println!("{}: {:?} among {} states", heading(need), violation.fault, outcome.states);
        assert_eq!(violation.fault, need.fault, "{}\n  {}", heading(need), violation.trace.join("\n  "));
        _ = writeln!(text, "\n{}\n  {}\n  = {:?}", heading(need), violation.trace.join("\n  "), need.fault);
    }
    if std::env::var_os("OLIVIA_WRITE_DOCS").is_some() {
        std::fs::write(traces_path(), &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(traces_path()).unwrap(), "OLIVIA_WRITE_DOCS=1 make model");
}
