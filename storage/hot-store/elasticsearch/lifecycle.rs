//! The lifecycle policy that our index templates name, on a server that has such policies (Elasticsearch; OpenSearch has others).
//!
//! It holds nothing that could lose a row: when a day leaves is our janitor's to say, who asks what the cold store has, see
//! `expiry.rs`. It is there for the user to add phases to: other nodes, fewer shards, searchable snapshots.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/ilm-put-lifecycle.html>.

use contract::Result;
use reqwest::Method;
use serde_json::{Value, json};

use super::TemplateState;
use super::client::{Body, Client};
use super::template::{Flat, compare, fingerprint, flatten};

/// The name of the policy.
pub(super) const POLICY: &str = "databroker";

/// Restored before indices without a priority (1) when a node starts.
const PRIORITY: u64 = 100;

fn path() -> String {
    format!("_ilm/policy/{POLICY}")
}

/// How the policy on the server stands to ours; none where the server has no policies, or not for us.
pub(super) async fn state(client: &Client) -> Result<Option<TemplateState>> {
    let answer = client.send(Method::GET, &path(), Body::None).await?;
    match answer.status.as_u16() {
        404 => Ok(Some(TemplateState::Absent)),
        400..=403 | 405 => Ok(None),
        _ => {
            let found = answer.json(&format!("read the lifecycle policy `{POLICY}`"))?;
            let found = &found[POLICY]["policy"];
            let ours = policy();
            Ok(Some(compare(&flat(found), &flat(&ours), &found["_meta"]["fingerprint"])))
        }
    }
}

/// Puts ours in its place.
pub(super) async fn install(client: &Client) -> Result<()> {
    let doing = format!("install the lifecycle policy `{POLICY}`");
    let body = Body::Json(json!({"policy": policy()}));
    client.ask_json(Method::PUT, &path(), body, &doing).await.map(drop)
}

fn policy() -> Value {
    let mut policy =
        json!({"phases": {"hot": {"min_age": "0ms", "actions": {"set_priority": {"priority": PRIORITY}}}}});
    policy["_meta"] = json!({"managed_by": "databroker", "fingerprint": fingerprint(&flat(&policy))});
    policy
}

fn flat(policy: &Value) -> Flat {
    let mut flat = Flat::new();
    flatten("phases", &policy["phases"], &mut flat);
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_holds_nothing_that_removes_rows() {
        let names: Vec<_> = flat(&policy()).into_keys().collect();
        assert_eq!(names, ["phases.hot.actions.set_priority.priority", "phases.hot.min_age"]);
    }
}
