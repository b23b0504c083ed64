//! `reprocess`: silver made anew from bronze by this version, then put in its place in both stores.

use std::time::UNIX_EPOCH;

use contract::{ColdDrafts, Draft, DraftOf, Error, Result, Timestamp, ViewRequest};
use processing::{Difference, Progress, Reprocess, Wanted};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::Control;
use crate::arguments::ReprocessArguments;
use crate::output;

/// Between two messages of progress.
const PROGRESS_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// `{"source", "since", "outcome", "seconds", "difference", "kept_until", "views"}`: `outcome` is `exchanged`, `compared`,
/// `discarded` or `interrupted`; `difference` as [`Difference`] has it, null where nothing was compared; `views` is the answer
/// of `views run`, of those whose stored results the exchange made old.
pub(crate) async fn run(control: &Control, arguments: &Value, progress: &mpsc::Sender<Value>) -> Result<Value> {
    let asked: ReprocessArguments = serde_json::from_value(arguments.clone())
        .map_err(|cause| Error::change("read what is asked of `reprocess`").because(cause))?;
    let source = acquisition::source(&asked.source)?;
    let broker = &control.broker;
    if !broker.access.is_alone() {
        return Err(Error::change(
            "make silver anew beside processes that share the work: end them, run it, and start them again",
        ));
    }
    let _one_at_a_time = broker.remaking.try_lock().map_err(|_| {
        Error::change(format!("make `silver.{}` anew: another `reprocess` is running; wait for its end", source.id))
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

impl Run<'_> {
    async fn answer(&self) -> Result<Value> {
        let started = std::time::Instant::now();
        self.reprocess.finish().await?;
        if self.asked.discard {
            self.reprocess.discard().await?;
            return Ok(json!({"source": self.asked.source, "outcome": "discarded"}));
        }
        let draft = self.reprocess.begin(&self.wanted().await?).await?;
        let answer = |outcome: &str, difference: Option<&Difference>| {
            json!({
                "source": self.asked.source, "since": draft.of.since.map(|since| since.to_string()), "outcome": outcome,
                "seconds": started.elapsed().as_secs_f64(), "difference": difference, "kept_until": null, "views": null,
            })
        };
        if !self.catch_up(&draft).await? {
            return Ok(answer("interrupted", None));
        }
        let difference = self.reprocess.compare(&draft, self.asked.examples).await?;
        if self.asked.dry_run {
            self.reprocess.discard().await?;
            return Ok(answer("compared", Some(&difference)));
        }
        if !self.reprocess.fill(&draft, &self.control.stop).await? || !self.exchange(&draft).await? {
            return Ok(answer("interrupted", Some(&difference)));
        }
        let mut answer = answer("exchanged", Some(&difference));
        let previous = self.control.broker.cold.previous(self.reprocess.recipe.schema.source).await?;
        answer["kept_until"] = json!(previous.map(|previous| previous.kept_until.to_string()));
        answer["views"] = super::views::run(self.control, &json!({}), self.progress).await?;
        Ok(answer)
    }

    async fn wanted(&self) -> Result<Wanted> {
        let made_by = made_by()?;
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
        let _standstill = match self.control.pipeline(self.reprocess.recipe.schema.source) {
            Some(pipeline) => Some(pipeline.pause().await?),
            None => None,
        };
        if !self.catch_up(draft).await? || !self.reprocess.fill(draft, &self.control.stop).await? {
            return Ok(false);
        }
        self.reprocess.exchange(draft).await?;
        Ok(true)
    }
}

/// This program, as built: what another one began is not gone on with.
fn made_by() -> Result<String> {
    let doing = "find out which program makes the rows";
    let program = std::env::current_exe().map_err(|cause| Error::stop(doing).because(cause))?;
    // Where it was replaced while it runs, the path names what is gone.
    let built = std::fs::metadata("/proc/self/exe").or_else(|_| std::fs::metadata(program));
    let built = built.and_then(|built| built.modified()).map_err(|cause| Error::stop(doing).because(cause))?;
    let built = built.duration_since(UNIX_EPOCH).unwrap_or_default();
    let built = Timestamp(i64::try_from(built.as_micros()).unwrap_or(i64::MAX));
    Ok(format!("databroker {}, built {built}", env!("CARGO_PKG_VERSION")))
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

    use contract::{CollectorId, Cursor, Harvest, Processor, RawRecord, Reject, RowBuilder, Topic};
    use processing::{CommitPolicy, Flush, Pipeline, Recipe};
    use tokio_util::sync::CancellationToken;

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

    async fn process_as_older(broker: &Broker, records: Vec<RawRecord>) {
        let source = acquisition::source("github").expect("it is there");
        let harvest = Harvest {
            source: source.id,
            collector: CollectorId("github/made".to_owned()),
            records,
            coverage: Vec::new(),
            cursor: Cursor("1".to_owned()),
            poll_again_in: None,
            acknowledge: None,
        };
        broker.engines.log.append(&harvest).await.expect("appended");
        let interval = std::time::Duration::from_millis(10);
        let policy = CommitPolicy { interval, backlog_interval: interval, bytes_max: 1 };
        let recipe = Recipe { schema: source.schema, processor: &Older };
        let (engines, stop) = (broker.engines.clone(), CancellationToken::new());
        let pipeline = Pipeline { engines, recipe, hot: policy, cold: policy, batch_bytes_max: 10_000 };
        let mut running = pipeline.start(stop.clone()).await.expect("started");
        let until = broker.engines.log.extent(&Topic::raw(source.id)).await.expect("an extent").end();
        let (done, heard) = tokio::sync::oneshot::channel();
        running.flusher().send(Flush { until, done }).await.ok().expect("it runs");
        heard.await.expect("committed");
        stop.cancel();
        running.ended().await.expect("ended");
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
        process_as_older(&broker, records()).await;
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
