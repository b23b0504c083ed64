//! Bulk requests: as many as it takes until each item has its verdict.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/docs-bulk.html>.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use contract::{Error, Result, SourceId, metric};
use reqwest::Method;
use serde_json::Value;

use super::answer::{Answer, error_of};
use super::canonical;
use super::client::{Body, Client};
use super::items::Item;
use super::pace::Pace;

/// Rounds in a row in which the server takes nothing, before the caller is told to come later.
const ROUNDS_MAX: u32 = 6;

/// The pause after the first of them; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 100 });

/// What is answered with 400 and lies in the document, so that it is so forever. Other errors of an item may pass: an
/// index that is closed, shards that are too many.
const FOR_GOOD: &[&str] = &[
    "document_parsing_exception",
    "mapper_parsing_exception",
    "strict_dynamic_mapping_exception",
    "illegal_argument_exception",
    "action_request_validation_exception",
];

/// An item that was refused for good.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) item: Item,
    pub(super) reason: String,
}

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Written,
    /// The same version stands there: written before.
    Same,
    /// A higher version stands there: another process is further, or someone changed it.
    Newer,
    Again(String),
    Refused(String),
}

/// What became of a request.
enum Outcome {
    Verdicts(Vec<Verdict>),
    TooLarge(String),
    /// The request was refused as a whole.
    Wrong(String),
    Busy(String),
}

/// Sends items until each is written, known or refused for good, and answers the last.
///
/// # Errors
/// `Retry` when the server cannot be reached, or takes nothing for a while. Items may be written then; all may be sent again.
pub(super) async fn send(client: &Client, pace: &mut Pace, source: SourceId, items: Vec<Item>) -> Result<Vec<Refused>> {
    let mut waiting: VecDeque<Item> = items.into();
    let (mut refused, mut rounds, mut pause) = (Vec::new(), 0, PAUSE_FIRST);
    let mut items_max = usize::MAX;
    while !waiting.is_empty() {
        let portion = take_portion(&mut waiting, pace.bytes(), items_max);
        let sent: usize = portion.iter().map(|item| item.lines.len()).sum();
        let started = Instant::now();
        let (done, reason) = match request(client, &portion).await? {
            Outcome::Verdicts(verdicts) => {
                let judged = judge(source, portion, verdicts, &mut waiting, &mut refused);
                if judged.1.is_none() {
                    pace.answered(sent, started.elapsed());
                }
                judged
            }
            Outcome::TooLarge(reason) | Outcome::Wrong(reason) if portion.len() == 1 => {
                refused.extend(portion.into_iter().map(|item| Refused { item, reason: reason.clone() }));
                (1, None)
            }
            // The one that is wrong, or too large, is found by halves.
            outcome @ (Outcome::TooLarge(_) | Outcome::Wrong(_)) => {
                if matches!(outcome, Outcome::TooLarge(_)) {
                    pace.too_large(sent);
                }
                items_max = portion.len() / 2;
                put_back(&mut waiting, portion);
                continue;
            }
            Outcome::Busy(reason) => {
                put_back(&mut waiting, portion);
                (0, Some(reason))
            }
        };
        let Some(reason) = reason else {
            (rounds, pause, items_max) = (0, PAUSE_FIRST, items_max.saturating_mul(2));
            continue;
        };
        pace.shrink();
        rounds = if done > 0 { 0 } else { rounds + 1 };
        if rounds == ROUNDS_MAX {
            return Err(Error::retry(format!("write rows of `{source}` into Elasticsearch")).because(reason));
        }
        tokio::time::sleep(pause).await;
        pause = if done > 0 { PAUSE_FIRST } else { pause * 2 };
    }
    Ok(refused)
}

/// As `send`, of items that no server may refuse for good.
pub(super) async fn send_all(client: &Client, pace: &mut Pace, source: SourceId, items: Vec<Item>) -> Result<()> {
    match send(client, pace, source, items).await?.first() {
        None => Ok(()),
        Some(Refused { item, reason }) => {
            let doing = format!("write `{}` of `{source}` into `{}`", item.id, item.index);
            Err(Error::retry(doing).because(reason.clone()))
        }
    }
}

fn take_portion(waiting: &mut VecDeque<Item>, bytes_max: usize, items_max: usize) -> Vec<Item> {
    let mut bytes = 0;
    let mut portion = Vec::new();
    while let Some(item) = waiting.front() {
        bytes += item.lines.len();
        if !portion.is_empty() && (bytes > bytes_max || portion.len() == items_max) {
            break;
        }
        portion.extend(waiting.pop_front());
    }
    portion
}

fn put_back(waiting: &mut VecDeque<Item>, portion: Vec<Item>) {
    portion.into_iter().rev().for_each(|item| waiting.push_front(item));
}

/// Sorts items by their verdicts; answers how many are done, and why others are not.
fn judge(
    source: SourceId,
    portion: Vec<Item>,
    verdicts: Vec<Verdict>,
    waiting: &mut VecDeque<Item>,
    refused: &mut Vec<Refused>,
) -> (usize, Option<String>) {
    let (mut done, mut why, mut again) = (0, None, Vec::new());
    let mut counts = [("written", 0), ("same", 0), ("newer", 0), ("retried", 0), ("refused", 0)];
    for (item, verdict) in portion.into_iter().zip(verdicts) {
        let place = match verdict {
            Verdict::Written => 0,
            Verdict::Same => 1,
            Verdict::Newer => 2,
            Verdict::Again(reason) => {
                why = Some(reason);
                again.push(item);
                counts[3].1 += 1;
                continue;
            }
            Verdict::Refused(reason) => {
                refused.push(Refused { item, reason });
                4
            }
        };
        done += 1;
        counts[place].1 += 1;
    }
    put_back(waiting, again);
    for (outcome, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        metric::HOT_BULK_ITEMS.add(&[source.0, outcome], count);
    }
    (done, why)
}

async fn request(client: &Client, portion: &[Item]) -> Result<Outcome> {
    let lines = portion.iter().flat_map(|item| item.lines.iter().copied()).collect::<Vec<_>>();
    let answer = client.send(Method::POST, "_bulk", Body::Lines(Bytes::from(lines))).await?;
    Ok(match answer.status.as_u16() {
        200 => Outcome::Verdicts(read(portion, &answer)),
        413 => Outcome::TooLarge(answer.reason()),
        400 => Outcome::Wrong(answer.reason()),
        429 | 500.. => Outcome::Busy(answer.reason()),
        _ => {
            return Err(answer
                .json("write a bulk of rows into Elasticsearch")
                .err()
                .unwrap_or_else(|| Error::retry("write a bulk of rows into Elasticsearch").because(answer.reason())));
        }
    })
}

/// The verdict on each item. One that the answer does not name is sent again: only what is said of an item counts, not
/// what is said of all.
fn read(portion: &[Item], answer: &Answer) -> Vec<Verdict> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let empty = Vec::new();
    let said = body["items"].as_array().unwrap_or(&empty);
    let verdict =
        |(place, item): (usize, &Item)| match said.get(place).and_then(|said| said.as_object()?.values().next()) {
            Some(said) if said["_id"] == *item.id && is_of(said, &item.index) => verdict(item, said),
            _ => Verdict::Again("the answer to a bulk request does not name each of its rows".to_owned()),
        };
    portion.iter().enumerate().map(verdict).collect()
}

/// Whether an item is said to be of an index, or of the one whose alias that is.
fn is_of(said: &Value, index: &str) -> bool {
    said["_index"].as_str().is_some_and(|said| canonical(said) == canonical(index))
}

fn verdict(item: &Item, said: &Value) -> Verdict {
    let (kind, reason) = error_of(said).unwrap_or_default();
    let is_delete = item.document().is_empty();
    match said["status"].as_u64().unwrap_or_default() {
        200 | 201 => Verdict::Written,
        404 if is_delete && kind.is_empty() => Verdict::Written,
        409 => match (item.version, current_version(&reason)) {
            (None, _) => Verdict::Again(reason),
            (Some(version), Some(current)) if current > version => Verdict::Newer,
            _ => Verdict::Same,
        },
        400 if FOR_GOOD.contains(&kind.as_str()) => Verdict::Refused(format!("{kind}: {}", with_cause(said, reason))),
        status => Verdict::Again(format!("{status} {kind}: {reason}")),
    }
}

/// The reason, and the one below it, which says what is wrong with the value.
fn with_cause(said: &Value, reason: String) -> String {
    match said.pointer("/error/caused_by/reason").and_then(Value::as_str) {
        Some(cause) => format!("{reason}: {cause}"),
        None => reason,
    }
}

/// The version that stands there: `[id]: version conflict, current version [5] is higher or equal to the one provided [4]`.
fn current_version(reason: &str) -> Option<i64> {
    let (_, rest) = reason.rsplit_once("current version [")?;
    rest.split(']').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_items_status_is_read_and_what_is_not_named_is_sent_again() {
        let item = |id: &str| Item::versioned("made-2026.11.22", id.to_owned(), 5, b"{}");
        let portion: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(item).into();
        let conflict = |version: i64| {
            json!({"type": "version_conflict_engine_exception", "reason":
            format!("[b [5]]: version conflict, current version [{version}] is higher or equal to the one provided [5]")})
        };
        let said = |id: &str, status: u16, error: Value| json!({"index": {"_index": "made-2026.11.22", "_id": id, "status": status, "error": error}});
        let parsing = json!({"type": "document_parsing_exception", "reason": "failed", "caused_by": {"reason": "odd"}});
        let items = [
            json!({"index": {"_index": "made-2026.11.22", "_id": "a", "status": 201}}),
            said("b", 409, conflict(5)),
            said("c", 409, conflict(9)),
            said("d", 429, json!({"type": "es_rejected_execution_exception", "reason": "queue"})),
            said("e", 400, parsing),
            said("f", 400, json!({"type": "index_closed_exception", "reason": "closed"})),
            said("x", 201, Value::Null),
        ];
        let body = json!({"errors": false, "items": items}).to_string();
        let verdicts = read(&portion, &Answer { status: reqwest::StatusCode::OK, body: body.into() });
        let again = |text: &str| Verdict::Again(text.to_owned());
        let unnamed = || again("the answer to a bulk request does not name each of its rows");
        let expected = [
            Verdict::Written,
            Verdict::Same,
            Verdict::Newer,
            again("429 es_rejected_execution_exception: queue"),
            Verdict::Refused("document_parsing_exception: failed: odd".to_owned()),
            again("400 index_closed_exception: closed"),
            unnamed(),
            unnamed(),
        ];
        assert_eq!(verdicts, expected);
    }
}
