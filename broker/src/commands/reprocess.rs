//! `reprocess`: silver made anew from bronze by this version, then put in its place in both stores.

use std::path::Path;

use contract::{ColdDrafts, Draft, DraftOf, Error, Held, Result, ViewRequest};
use processing::{Difference, Progress, Reprocess, Wanted};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::Control;
use crate::arguments::ReprocessArguments;
use crate::output;

/// Between two messages of progress.
const PROGRESS_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// Rows of each kind of change that are shown at the most.
const EXAMPLES_MAX: usize = 100;

/// Offsets that the pipeline may stand still for: what a second or so takes.
const LEFT_MAX: u64 = 10_000;

/// `{"ok", "source", "since", "outcome", "seconds", "difference", "kept_until", "views"}`: `outcome` is `exchanged`, `compared`,
/// `discarded` or `interrupted`; `difference` as [`Difference`] has it, null where nothing was compared; `views` is the answer
/// of `views run`, of those whose stored results the exchange made old, and `ok` whether that went well.
pub(crate) async fn run(control: &Control, arguments: &Value, progress: &mpsc::Sender<Value>) -> Result<Value> {
    let mut asked: ReprocessArguments = serde_json::from_value(arguments.clone())
        .map_err(|cause| Error::change("read what is asked of `reprocess`").because(cause))?;
    asked.examples = asked.examples.min(EXAMPLES_MAX);
    let source = acquisition::source(&asked.source)?;
    let broker = &control.broker;
    if !broker.access.is_alone() {
        return Err(Error::change(
            "make silver anew beside processes that share the work: end them, run it, and start them again",
        ));
    }
    let _one_at_a_time = broker.remaking.try_lock().map_err(|_| {
        Error::change(format!("make `silver.{}` anew: another `reprocess` or repair runs; wait for its end", source.id))
    })?;
    let run = Run { control, asked: &asked, reprocess: broker.reprocess(source), progress };
    run.answer().await
}

struct Run<'a> {
    control: &'a Control,
    asked: &'a ReprocessArguments,
    reprocess: Reprocess,
    progress: &'a mpsc::Sender<Value>,
}

/// How far a run came.
enum Outcome {
    Interrupted,
    Compared(Difference),
    Exchanged(Difference),
}

impl Run<'_> {
    async fn answer(&self) -> Result<Value> {
        let started = std::time::Instant::now();
        let source = &self.asked.source;
        if self.asked.discard {
            self.reprocess.discard().await?;
            return Ok(json!({"ok": true, "source": source, "outcome": "discarded"}));
        }
        let wanted = self.wanted().await?;
        let (draft, was_begun) = match self.reprocess.begun(&wanted).await? {
            Some(draft) => (draft, true),
            None => (self.begin(&wanted).await?, false),
        };
        let outcome = self.make(&draft).await?;
        let (name, difference) = match &outcome {
            Outcome::Interrupted => ("interrupted", None),
            Outcome::Compared(difference) => ("compared", Some(difference)),
            Outcome::Exchanged(difference) => ("exchanged", Some(difference)),
        };
        let mut answer = json!({
            "ok": true, "source": source, "since": draft.of.since.map(|since| since.to_string()), "outcome": name,
            "interrupted": name == "interrupted", "seconds": started.elapsed().as_secs_f64(), "difference": difference,
            "kept_until": null, "views": null,
        });
        match outcome {
            Outcome::Interrupted => {}
            // What an interrupted run made is that one's.
            Outcome::Compared(_) if was_begun => {}
            Outcome::Compared(_) => self.reprocess.discard().await?,
            Outcome::Exchanged(_) => self.follow(&mut answer).await,
        }
        Ok(answer)
    }

    async fn begin(&self, wanted: &Wanted) -> Result<Draft> {
        let source = self.reprocess.recipe.schema.source;
        if self.asked.dry_run && self.control.broker.cold.draft(source).await?.is_some() {
            return Err(Error::change(format!(
                "compare rows of `{source}` made anew: an interrupted run of another kind has made some; end it, or give it up \
                 by `reprocess {source} --discard`"
            )));
        }
        self.reprocess.begin(wanted).await
    }

    /// The draft, made, compared, and exchanged if that is asked.
    async fn make(&self, draft: &Draft) -> Result<Outcome> {
        let stop = &self.control.stop;
        if !self.catch_up(draft).await? {
            return Ok(Outcome::Interrupted);
        }
        let Some(difference) = self.reprocess.compare(draft, self.asked.examples, stop).await? else {
            return Ok(Outcome::Interrupted);
        };
        if self.asked.dry_run {
            return Ok(Outcome::Compared(difference));
        }
        // What came meanwhile, so that little is left for the time in which the pipeline stands still.
        while {
            if !self.catch_up(draft).await? || !self.reprocess.fill(draft, stop).await? {
                return Ok(Outcome::Interrupted);
            }
            self.reprocess.left(draft).await? > LEFT_MAX
        } {}
        let is_exchanged = self.exchange(draft).await?;
        Ok(if is_exchanged { Outcome::Exchanged(difference) } else { Outcome::Interrupted })
    }

    async fn wanted(&self) -> Result<Wanted> {
        let made_by = tokio::task::spawn_blocking(made_by).await;
        let made_by =
            made_by.map_err(|panic| Error::stop("find out which program makes the rows").because(panic))??;
        if self.asked.back {
            return Ok(Wanted::Previous { made_by });
        }
        let now = self.reprocess.engines.clock.now();
        let since = match &self.asked.since {
            Some(text) => Some(self.reprocess.boundary(ViewRequest::parse_time(text, now)?).await?),
            None => None,
        };
        Ok(Wanted::Anew(DraftOf { since, made_by }))
    }

    /// Brings the draft to where silver stands, and tells how far it is meanwhile. False if it was asked to end.
    async fn catch_up(&self, draft: &Draft) -> Result<bool> {
        let (tell, told) = watch::channel(Progress::default());
        let caught = self.reprocess.catch_up(draft, &self.control.stop, &tell);
        tokio::pin!(caught);
        let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                caught = &mut caught => return caught,
                _ = interval.tick() => {
                    let Progress { done, all } = *told.borrow();
                    // Shown if there is room.
                    self.progress.try_send(json!({"what": "records", "done": done, "all": all})).ok();
                }
            }
        }
    }

    /// Has the pipeline stand still, makes the rest, and exchanges. False if it was asked to end before that.
    async fn exchange(&self, draft: &Draft) -> Result<bool> {
        let source = self.reprocess.recipe.schema.source;
        // Before the pipeline stands still: a compaction may take minutes.
        let held = tokio::select! {
            held = self.control.broker.cold.hold() => held,
            () = self.control.stop.cancelled() => return Ok(false),
        };
        let standstill = match self.control.pipeline(source) {
            Some(pipeline) => tokio::select! {
                paused = pipeline.pause() => Some(paused?),
                () = self.control.stop.cancelled() => return Ok(false),
            },
            None => None,
        };
        let exchanged = self.exchange_rest(draft, &held).await;
        let told = match &exchanged {
            Err(error) if self.reprocess.is_exchanged().await => Err(Error::stop(format!(
                "finish the exchange of `silver.{source}`, which the next start does: {error}"
            ))),
            _ => Ok(()),
        };
        if let Some(standstill) = standstill {
            standstill.end(told);
        }
        exchanged
    }

    async fn exchange_rest(&self, draft: &Draft, held: &Held) -> Result<bool> {
        let stop = &self.control.stop;
        if !self.catch_up(draft).await? || !self.reprocess.fill(draft, stop).await? {
            return Ok(false);
        }
        self.reprocess.exchange(draft, held, stop).await?;
        Ok(true)
    }

    /// What comes after an exchange, which stands whatever becomes of this.
    async fn follow(&self, answer: &mut Value) {
        let cold = &self.control.broker.cold;
        let previous = cold.previous(self.reprocess.recipe.schema.source).await.ok().flatten();
        answer["kept_until"] = json!(previous.map(|previous| previous.kept_until.to_string()));
        answer["views"] = match super::views::run(self.control, &json!({}), self.progress).await {
            Ok(views) => views,
            Err(error) => json!({"ok": false, "error": error.to_string()}),
        };
        answer["ok"] = answer["views"]["ok"].clone();
    }
}

/// This program, as built: what another one began is not gone on with.
fn made_by() -> Result<String> {
    // Where it was replaced while it runs, the path names another one.
    let running = acquisition::hash_start(Path::new("/proc/self/exe"), u64::MAX);
    let hashed = running.or_else(|_| acquisition::hash_start(&std::env::current_exe()?, u64::MAX));
    let (hash, _) = hashed.map_err(|cause| Error::stop("find out which program makes the rows").because(cause))?;
    Ok(format!("databroker {}, SHA-256 {hash}", env!("CARGO_PKG_VERSION")))
}

/// What came of it, and what it changed.
pub(crate) fn print(answer: &Value) {
    let source = answer["source"].as_str().unwrap_or_default();
    let difference = &answer["difference"];
    if !difference.is_null() {
        print_difference(difference);
    }
    let since = answer["since"].as_str().map(|since| format!(" since {since}")).unwrap_or_default();
    match answer["outcome"].as_str().unwrap_or_default() {
        "exchanged" => {
            output::line(&format!("`silver.{source}` and the hot store{since} have these rows now."));
            print_views(&answer["views"]);
            if let Some(until) = answer["kept_until"].as_str() {
                output::line(&format!(
                    "What was there is kept until {until}: `reprocess {source} --back` goes back to it."
                ));
            }
        }
        "compared" => {
            output::line(&format!("Nothing was changed; without `--dry-run` this would be `silver.{source}`{since}."))
        }
        "discarded" => output::line("What was made so far is given up."),
        _ => output::line("Ended early: both stores are as they were. The same command goes on where this one ended."),
    }
}

/// The views that could not be brought up to date.
fn print_views(answer: &Value) {
    let failed = answer["views"].as_array().into_iter().flatten().chain([answer]);
    for (view, error) in failed.filter_map(|view| Some((view, view["error"].as_str()?))) {
        let name = view["view"].as_str().unwrap_or("views");
        output::line(&format!("{name}: stored results are of the rows before until the next run: {error}"));
    }
}

fn print_difference(difference: &Value) {
    let count = |name: &str| difference[name].as_u64().unwrap_or_default();
    output::line(&format!(
        "rows          {} before, {} after: {} added, {} gone, {} changed",
        count("rows_before"),
        count("rows_after"),
        count("added"),
        count("gone"),
        count("changed")
    ));
    let (before, after) = (count("dead_letters_before"), count("dead_letters_after"));
    output::line(&format!("dead letters  {before} before, {after} after"));
    let columns = difference["columns"].as_object().cloned().unwrap_or_default();
    for (column, rows) in &columns {
        output::line(&format!("  {column} differs in {rows} rows"));
    }
    for column in difference["new_columns"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::line(&format!("  {column} is new, or of another type, in all rows"));
    }
    for example in difference["examples"].as_array().into_iter().flatten() {
        let text = |name: &str| example[name].as_str().unwrap_or_default();
        output::line(&format!(
            "{} {} at partition {}, offset {}",
            text("kind"),
            text("id"),
            example["partition"],
            example["offset"]
        ));
        for (column, values) in example["columns"].as_object().into_iter().flatten() {
            let value = |place: usize| output::first_words(values[place].as_str().unwrap_or_default(), 100);
            output::line(&format!("  {column}: {} → {}", value(0), value(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::{Processor, RawRecord, Reject, RowBuilder, Timestamp};
    use tokio_util::sync::CancellationToken;

    use super::super::other_version::process_as;
    use super::*;
    use crate::broker::Broker;
    use crate::settings::Settings;

    /// An older version: it does not understand ids that end in three, and takes what ends in seven for something else.
    struct Older;

    impl Processor for Older {
        fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> std::result::Result<(), Reject> {
            let id = record.id.as_str();
            if id.ends_with('3') {
                return Err(Reject::new("made", "it is not understood yet"));
            }
            let source = acquisition::source("github").expect("it is there");
            if id.ends_with('7') {
                row.text(source.schema.place("type"), "OldEvent");
                return Ok(());
            }
            source.processor.process(record, row)
        }
    }

    /// Events of two days; each id comes twice.
    fn records() -> Vec<RawRecord> {
        let record = |number: i64| {
            let id = number % 100;
            let time = format!("2026-11-{:02}T00:00:00Z", 20 + id / 50);
            let body = format!(r#"{{"id":"{id}","type":"WatchEvent","created_at":"{time}"}}"#);
            let time = Timestamp::parse_rfc3339(&time).expect("a time");
            RawRecord { id: id.to_string().as_str().into(), event_time: time, fetched_at: time, body: body.into() }
        };
        (0..200).map(record).collect()
    }

    async fn ask(control: &Control, mut asked: Value) -> Value {
        asked["source"] = json!("github");
        let (progress, _shown) = mpsc::channel(64);
        run(control, &asked, &progress).await.expect("an answer")
    }

    async fn counts(broker: &Broker) -> [u64; 4] {
        let cold = &*broker.engines.cold;
        let hot = broker.engines.hot.count("github-*", &json!({})).await.expect("counted");
        let old = json!({"query": {"term": {"type": "OldEvent"}}});
        let old = broker.engines.hot.count("github-*", &old).await.expect("counted");
        [
            output::count(cold, "SELECT count(*) FROM silver.github").await.expect("counted"),
            hot["count"].as_u64().expect("a count"),
            output::count(cold, "SELECT count(*) FROM silver.github WHERE type = 'OldEvent'").await.expect("counted"),
            old["count"].as_u64().expect("a count"),
        ]
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_an_older_version_made_becomes_what_this_one_makes_in_both_stores_and_back() {
        let home = tempfile::tempdir().expect("a folder");
        let mut settings = Settings::default();
        settings.hot.retention_days = 3_650;
        let broker =
            Arc::new(Broker::open(&settings, home.path(), crate::broker::Access::Write).await.expect("opened"));
        process_as(&Older, &broker, acquisition::source("github").expect("it is there"), records()).await;
        let stop = CancellationToken::new();
        let work = broker.start(&stop, &stop).await.expect("started");
        let control = Control::new(broker.clone(), &work, stop.clone());
        assert_eq!(counts(&broker).await, [90, 90, 10, 10]);

        let dry = ask(&control, json!({"dry_run": true, "examples": 1})).await;
        let difference = &dry["difference"];
        let named =
            ["rows_before", "rows_after", "added", "gone", "changed", "dead_letters_before", "dead_letters_after"];
        assert_eq!(
            named.map(|name| difference[name].as_u64()),
            [90, 100, 10, 0, 10, 20, 0].map(Some),
            "{difference:#}"
        );
        assert_eq!(difference["columns"]["type"], json!(10));
        let kinds: Vec<_> = difference["examples"].as_array().expect("some").iter().map(|one| &one["kind"]).collect();
        assert_eq!(kinds.len(), 2, "{difference:#}");
        assert_eq!(counts(&broker).await, [90, 90, 10, 10]);

        let since = ask(&control, json!({"since": "2026-11-21T10:00:00Z", "examples": 0})).await;
        assert_eq!(since["since"], json!("2026-11-21T00:00:00Z"));
        assert_eq!(counts(&broker).await, [95, 95, 5, 5]);
        assert_verified(&control).await;
        let all = ask(&control, json!({"examples": 0})).await;
        assert_eq!(all["outcome"], json!("exchanged"), "{all:#}");
        assert_eq!(counts(&broker).await, [100, 100, 0, 0]);
        assert_verified(&control).await;
        let back = ask(&control, json!({"back": true, "examples": 0})).await;
        assert_eq!(back["difference"]["gone"], json!(5), "{back:#}");
        assert_eq!(counts(&broker).await, [95, 95, 5, 5]);
        assert_verified(&control).await;
        stop.cancel();
        work.drained().await.expect("drained");
    }

    async fn assert_verified(control: &Control) {
        let verified = super::super::verify::run(control, &json!({"source": "github"})).await.expect("judged");
        assert_eq!(verified["ok"], json!(true), "{verified:#}");
    }
}
