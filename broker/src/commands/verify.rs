//! `verify`: the four proofs.

use contract::{Error, Result};
use serde_json::{Value, json};

use super::{Control, sources_of};
use crate::broker::recipe;
use crate::output;

/// `{"ok", "sources": [report, …]}`.
pub(crate) async fn run(control: &Control, arguments: &Value) -> Result<Value> {
    let repair = arguments["repair"] == json!(true);
    // What is mended in the old rows would be missing in the new ones.
    let _no_rows_are_made_anew = if repair { Some(control.broker.remaking.lock().await) } else { None };
    let mut reports = Vec::new();
    for source in sources_of(arguments)? {
        if control.broker.access.is_alone() {
            let topic = contract::Topic::raw(source.id);
            let extent = control.broker.engines.log.extent(&topic).await?;
            control.bring(source.id, extent.end()).await?;
        }
        let report = processing::verify::verify(&control.broker.engines, recipe(source), repair).await?;
        reports.push(serde_json::to_value(report).map_err(|cause| Error::stop("write the proofs").because(cause))?);
    }
    let ok = reports.iter().all(|report| report["ok"] == json!(true));
    Ok(json!({"ok": ok, "sources": reports}))
}

/// A line a proof, and what differs below it.
pub(crate) fn print(answer: &Value) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for report in list(&answer["sources"]) {
        output::line(report["source"].as_str().unwrap_or_default());
        for proof in list(&report["proofs"]) {
            let holds = if proof["ok"] == json!(true) { "holds " } else { "BROKEN" };
            let counts = proof["counts"].as_object().cloned().unwrap_or_default();
            let counts: Vec<_> =
                counts.iter().map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
            output::line(&format!("  {holds} {:<8} {}", proof["name"].as_str().unwrap_or_default(), counts.join(", ")));
            for named in list(&proof["named"]) {
                output::line(&format!("         {}", named.as_str().unwrap_or_default()));
            }
            let (all, named) = (proof["differences"].as_u64().unwrap_or_default(), list(&proof["named"]).len() as u64);
            if all > named {
                output::line(&format!("         and {} more", all - named));
            }
        }
        for repair in list(&report["repairs"]) {
            output::line(&format!("  mended: {}", repair.as_str().unwrap_or_default()));
        }
    }
    if answer["ok"] == json!(false) {
        output::line("A proof is broken; `verify --repair` mends what can be mended from bronze and the log.");
    }
}
