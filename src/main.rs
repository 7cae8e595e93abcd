//! The program: argv, configuration, logger, exit code.
fn main() {}
