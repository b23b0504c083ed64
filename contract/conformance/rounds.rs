//! How many faults tests have made, told for all of them together.

use std::fs::OpenOptions;
use std::io::Write;

/// Names the file that gets a line for each test; `.ci/run` adds them up.
const FILE: &str = "DATABROKER_TEST_ROUNDS";

/// Says that `count` faults of a kind were made and got over: printed, and a line `COUNT KIND` of the file, if one is set.
///
/// # Panics
/// When the file cannot be written.
pub fn note(kind: &str, count: u64) {
    println!("{count} rounds: {kind}");
    let Some(file) = std::env::var_os(FILE) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("a file for the rounds");
    // One write, so that lines of tests that run side by side do not mix.
    file.write_all(format!("{count} {kind}\n").as_bytes()).expect("writable");
}
