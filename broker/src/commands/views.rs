//! `views`: questions whose answers are kept up to date.

use cold_store::ViewEngine;
use contract::{Error, Result, ViewRequest, ViewSummary, Views};
use futures::TryStreamExt;
use serde_json::{Value, json};
use serving::table;
use tokio::sync::mpsc;

use super::Control;
use crate::arguments::{Engine, ViewAction};
use crate::broker::Broker;
use crate::output;

/// Runs that `explain` shows.
const RUNS_SHOWN: usize = 10;

/// The arguments of `views-show` and `views-run`, as one process gives them to another.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    name: String,
    from: Option<String>,
    to: Option<String>,
    filter: Option<String>,
    top: Option<u64>,
    names: Vec<String>,
    whole: bool,
    engine: Engine,
    /// Who asked, so that it can be asked to end.
    run: Option<String>,
}

/// The name and arguments of an action as any process runs it.
pub(super) fn asked(action: &ViewAction) -> (&'static str, Value) {
    let (name, asked) = match action {
        ViewAction::List => ("views-list", Asked::default()),
        ViewAction::Show { name, from, to, filter, top } => {
            let (name, from, to, filter) = (name.clone(), from.clone(), to.clone(), filter.clone());
            ("views-show", Asked { name, from, to, filter, top: Some(*top), ..Asked::default() })
        }
        ViewAction::Run { names, whole, engine } => {
            ("views-run", Asked { names: names.clone(), whole: *whole, engine: *engine, ..Asked::default() })
        }
        ViewAction::Explain { name } => ("views-explain", Asked { name: name.clone(), ..Asked::default() }),
    };
    (name, json!(asked))
}

fn read(arguments: &Value) -> Result<Asked> {
    serde_json::from_value(arguments.clone())
        .map_err(|cause| Error::change("read what is asked of views").because(cause))
}

/// An array of [`ViewSummary::to_json`].
pub(super) async fn list(broker: &Broker) -> Result<Value> {
    let views = broker.cold.views().await?;
    Ok(views.iter().map(ViewSummary::to_json).collect())
}

/// `{"view", "boundary", "columns": [names in their order], "rows": [{…}]}`.
pub(super) async fn show(broker: &Broker, arguments: &Value) -> Result<Value> {
    let asked = read(arguments)?;
    let now = broker.engines.clock.now();
    let time = |text: &Option<String>| text.as_deref().map(|text| ViewRequest::parse_time(text, now)).transpose();
    let (from, to) = (time(&asked.from)?, time(&asked.to)?);
    let request = ViewRequest { from, to, filter: asked.filter, rows_max: asked.top };
    let answer = broker.cold.view(&asked.name, &request).await?;
    let columns: Vec<_> = answer.table.schema.fields().iter().map(|field| field.name().clone()).collect();
    let batches: Vec<_> = answer.table.batches.try_collect().await?;
    let rows = table::to_json_rows(&batches)?;
    let rows: Value = serde_json::from_slice(&rows).map_err(|cause| Error::stop("read the answer").because(cause))?;
    Ok(json!({"view": asked.name, "boundary": answer.boundary.to_json(), "columns": columns, "rows": rows}))
}

/// `{"ok", "views": [{"view", "mode", "periods", "rows", "seconds", "error"}]}`; `ok` is false where one failed.
pub(super) async fn run(control: &Control, arguments: &Value, progress: &mpsc::Sender<Value>) -> Result<Value> {
    let asked = read(arguments)?;
    let cold = &control.broker.cold;
    let names = if asked.names.is_empty() {
        let views = cold.views().await?;
        views.into_iter().filter(|view| view.answers.is_ok()).map(|view| view.name).collect()
    } else {
        asked.names
    };
    let engine = match asked.engine {
        Engine::Embedded => ViewEngine::Embedded,
        Engine::Spark => ViewEngine::Spark,
    };
    let mut runs = Vec::new();
    for (done, name) in names.iter().enumerate() {
        if control.stop.is_cancelled() {
            break;
        }
        // Shown if there is room.
        progress.try_send(json!({"what": "views", "done": done, "all": names.len(), "view": name})).ok();
        let started = std::time::Instant::now();
        let ran = cold.run_view(name, asked.whole, engine, 1).await;
        let seconds = started.elapsed().as_secs_f64();
        crate::views::observe(name, &ran, seconds);
        runs.push(match ran {
            Ok(run) => json!({
                "view": name, "mode": run.mode, "periods": run.periods, "rows": run.rows, "seconds": seconds, "error": null,
            }),
            // One view that is asked for alone fails as any command does.
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => json!({
                "view": name, "mode": null, "periods": null, "rows": null, "seconds": seconds, "error": error.to_string(),
            }),
        });
    }
    let ok = runs.iter().all(|run| run["error"].is_null());
    Ok(json!({"ok": ok, "interrupted": runs.len() < names.len(), "views": runs}))
}

/// The line of `list`, with `"stored_sql"`, `"shown_sql"`, `"columns": [{"name", "type", "merges"}]`, `"answer": [{"name",
/// "type"}]`, `"spark": {"stored", "shown"}` (both statements as Spark takes them), `"period"`, `"watermark"` by source, and `"runs"`: the last lines of `ops.runs`.
pub(super) async fn explain(broker: &Broker, arguments: &Value) -> Result<Value> {
    let asked = read(arguments)?;
    let explained = broker.cold.explain_view(&asked.name).await?;
    let runs = format!(
        "SELECT * EXCLUDE (view) FROM ops.runs \
         WHERE view = '{}' ORDER BY started_at DESC LIMIT {RUNS_SHOWN}",
        explained.summary.name
    );
    let runs: Vec<_> = broker.engines.cold.sql(&runs).await?.batches.try_collect().await?;
    let runs = table::to_json_rows(&runs)?;
    let runs: Value = serde_json::from_slice(&runs).map_err(|cause| Error::stop("read the runs").because(cause))?;
    let mut answer = explained.summary.to_json();
    answer["stored_sql"] = json!(explained.stored_sql);
    answer["shown_sql"] = json!(explained.shown_sql);
    let [stored, shown] = &explained.spark_sql;
    answer["spark"] = json!({"stored": stored, "shown": shown});
    let columns = explained.columns.iter();
    answer["columns"] =
        columns.map(|(name, kind, merges)| json!({"name": name, "type": kind, "merges": merges})).collect();
    answer["answer"] = explained.answer.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
    answer["period"] = json!(explained.period);
    answer["watermark"] = explained.watermark.into_iter().map(|(source, next)| (source, json!(next))).collect();
    answer["runs"] = runs;
    Ok(answer)
}

pub(super) fn print_list(answer: &Value) {
    for view in answer.as_array().into_iter().flatten() {
        let text = |name: &str| view[name].as_str().unwrap_or_default().to_owned();
        output::line(&format!("{:<22} {}", text("name"), text("answers")));
        let state = match (&view["refused"], &view["stored"]) {
            (Value::String(reason), _) => format!("refused: {reason}"),
            (_, Value::Null) => "not stored yet: computed when asked".to_owned(),
            (_, stored) => {
                let at = stored["at"].as_str().unwrap_or_default();
                let anew = if stored["is_current"] == json!(true) { "" } else { ", by an older statement" };
                format!("{} rows stored at {at}{anew}", stored["rows"])
            }
        };
        output::line(&format!("{:<22}   {state}", ""));
    }
    if answer.as_array().is_none_or(Vec::is_empty) {
        output::line(
            "No views: put files NAME.sql into the folder `cold.views_folder`, or set `cold.views_shipped = true`.",
        );
    }
}

pub(super) fn print_answer(answer: &Value) {
    let columns: Vec<&str> = answer["columns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    output::table(&output::Row::ordered(&answer["rows"], &columns));
    let boundary = &answer["boundary"];
    let stored = boundary["batch_at"]
        .as_str()
        .map_or("nothing stored: all was computed".to_owned(), |at| format!("stored at {at}"));
    output::line(&stored);
    for source in boundary["sources"].as_array().into_iter().flatten() {
        let total =
            |of: &str| source[of].as_object().into_iter().flatten().filter_map(|(_, next)| next.as_i64()).sum::<i64>();
        let missed = match source["missed"]["intervals"].as_u64() {
            Some(intervals) if intervals > 0 => {
                format!("; missed: {intervals} intervals, about {} records", source["missed"]["records"])
            }
            _ => String::new(),
        };
        output::line(&format!(
            "{}: fresh to {}, {} offsets stored and {} since{missed}",
            source["source"].as_str().unwrap_or_default(),
            source["fresh_to"].as_str().unwrap_or("nothing yet"),
            total("watermark"),
            total("rows_to") - total("watermark"),
        ));
    }
}

pub(super) fn print_runs(answer: &Value) {
    for run in answer["views"].as_array().into_iter().flatten() {
        let name = run["view"].as_str().unwrap_or_default();
        let seconds = run["seconds"].as_f64().unwrap_or_default();
        let done = match (run["error"].as_str(), run["mode"].as_str()) {
            (Some(error), _) => error.to_owned(),
            (None, Some("nothing")) => "nothing changed".to_owned(),
            (None, Some("periods")) => {
                format!("{} rows of {} days or months that changed, {seconds:.2} s", run["rows"], run["periods"])
            }
            (None, _) => format!("{} rows of all, {seconds:.2} s", run["rows"]),
        };
        output::line(&format!("{name:<22} {done}"));
    }
}

pub(super) fn print_explained(answer: &Value) {
    let text = |name: &str| answer[name].as_str().unwrap_or_default();
    output::line(&format!("{}: {}", text("name"), text("answers")));
    let every = answer["every_seconds"].as_u64().unwrap_or_default();
    let scope = match answer["period"].as_str() {
        Some(period) => format!("each `{period}` that changed"),
        None => "as a whole".to_owned(),
    };
    output::line(&format!("from {}; made anew {scope}, every {every} s", text("place")));
    let pairs = |of: &str, shown: &dyn Fn(&Value) -> String| {
        let columns = answer[of].as_array().into_iter().flatten().map(shown);
        columns.collect::<Vec<_>>().join(", ")
    };
    let name = |column: &Value| column["name"].as_str().unwrap_or_default().to_owned();
    let stored = |column: &Value| format!("{} ({})", name(column), column["merges"].as_str().unwrap_or_default());
    output::line(&format!("\nstored: {}\n\n{}", pairs("columns", &stored), text("stored_sql")));
    output::line(&format!(
        "\nshown: {}\n\n{}",
        pairs("answer", &name),
        answer["shown_sql"].as_str().unwrap_or("all of `merged`")
    ));
    output::line(&format!("\nwatermark: {}\n", answer["watermark"]));
    let columns = ["started_at", "finished_at", "mode", "engine", "attempt", "outcome", "rows", "periods", "reason"];
    output::table(&output::Row::ordered(&answer["runs"], &columns));
}
