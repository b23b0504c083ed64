//! Why an event could not be read, in words. Runs only for events that are rejected, so it may be slow.

use contract::Reject;
use contract::limits::JSON_DEPTH_MAX;

use super::event::{Event, Payload};

/// Whether arrays and objects nest deeper than [`JSON_DEPTH_MAX`]. Parsers recurse, so this comes first.
pub(super) fn nests_too_deep(json: &[u8]) -> bool {
    // Most events have fewer brackets than the limit, and counting them is many times faster than following them.
    let openers: usize = json.chunks(255).map(|chunk| usize::from(count_openers(chunk))).sum();
    openers > JSON_DEPTH_MAX && depth_exceeds(json)
}

/// Counts in a byte, which the compiler turns into vector instructions; a chunk has 255 bytes at the most.
fn count_openers(chunk: &[u8]) -> u8 {
    chunk.iter().map(|&byte| u8::from(byte | 0x20 == b'{')).sum()
}

fn depth_exceeds(json: &[u8]) -> bool {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = string_end(json, at),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return true;
        }
    }
    false
}

fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(step) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += step;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

/// Says why the typed parse of `json` fails.
pub(super) fn explain(json: &str) -> Reject {
    let mut deserializer = sonic_rs::Deserializer::from_str(json).utf8_lossy();
    let outcome: Result<Event<'_, Payload<'_>>, _> = serde_path_to_error::deserialize(&mut deserializer);
    let (path, message) = match outcome {
        Err(error) => (error.path().to_string(), error.into_inner().to_string()),
        Ok(_) => (".".to_owned(), deserializer.end().err().map(|error| error.to_string()).unwrap_or_default()),
    };
    let message = message.lines().next().unwrap_or_default();
    let message = message.split(" at line ").next().unwrap_or_default();
    // A `?` stands for a key that could not be read.
    let path = path.trim_end_matches('?').trim_matches('.');
    let place = if path.is_empty() { "the event".to_owned() } else { format!("`{path}`") };
    if let Some((found, expected)) = wrong_type(message) {
        return Reject::new("type", format!("{place} is {found}, should be {expected}"));
    }
    if let Some(key) = message.strip_prefix("duplicate field ") {
        return Reject::new("json", format!("{place} has the key {key} twice"));
    }
    if message.starts_with("EOF") {
        return Reject::new(
            "json",
            format!("the event is cut: it ends inside {}", place.replace("the event", "itself")),
        );
    }
    Reject::new("json", format!("the event is not JSON, at {place}: {}", lower_first(message)))
}

/// Reads serde's `invalid type: string "x", expected i64` into words: ("a string", "an integer").
fn wrong_type(message: &str) -> Option<(&'static str, &str)> {
    let expected_of = |expected| match expected {
        "i64" => "an integer",
        "a sequence" => "an array",
        other => other,
    };
    if let Some((_, expected)) =
        message.strip_prefix("invalid value: ").and_then(|said| said.rsplit_once(", expected "))
    {
        return Some(("an integer of more than 64 bits", expected_of(expected)));
    }
    let (found, expected) = message.strip_prefix("invalid type: ")?.rsplit_once(", expected ")?;
    let kinds = [
        ("string", "a string"),
        ("integer", "an integer"),
        ("floating point", "a number with a fraction or exponent"),
        ("boolean", "a boolean"),
        ("map", "an object"),
        ("sequence", "an array"),
        ("null", "null"),
        ("unit", "null"),
    ];
    let found = kinds.iter().find(|(prefix, _)| found.starts_with(prefix)).map(|&(_, kind)| kind)?;
    Some((found, expected_of(expected)))
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
