//! Running statements: so many at a time, each for so long, until it is cancelled.

use std::sync::Arc;
use std::time::Duration;

use contract::{Error, QueryFault, Result, TableStream, metric};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{Database, Session, Settings};

/// How long a statement waits for its turn, before its client is told to come later.
const TURN_WAIT: Duration = Duration::from_secs(30);

/// Batches that wait for the client: with the one in hand enough that computing and sending overlap.
const WAITING_BATCHES_MAX: usize = 1;

/// Runs the statements of both protocols.
#[derive(Clone)]
pub(crate) struct Statements {
    database: Arc<dyn Database>,
    turns: Arc<Semaphore>,
    seconds_max: u64,
}

impl Statements {
    pub(crate) fn new(database: Arc<dyn Database>, settings: &Settings) -> Self {
        let turns = Arc::new(Semaphore::new(settings.statements_max.min(Semaphore::MAX_PERMITS)));
        Self { database, turns, seconds_max: settings.statement_seconds_max }
    }

    /// Begins to read for one statement.
    pub(crate) async fn session(&self) -> Result<Arc<dyn Session>> {
        self.database.session().await
    }

    /// Runs a plan. A task of its own drives it, so that neither its turn nor its memory outlasts its time where the client
    /// has stopped reading.
    pub(crate) async fn run(
        &self,
        protocol: &'static str,
        session: Arc<dyn Session>,
        context: &SessionContext,
        plan: LogicalPlan,
        cancel: CancellationToken,
    ) -> Result<TableStream> {
        let deadline = Instant::now() + Duration::from_secs(self.seconds_max);
        let started = async {
            let turn = timeout(TURN_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
            let turn = turn.map_err(|_| busy())?.expect("the semaphore is never closed");
            Ok::<_, Error>((turn, session.run(context, plan).await?))
        };
        let began = Instant::now();
        let started = tokio::select! {
            started = started => started,
            () = cancel.cancelled() => Err(cancelled()),
            () = sleep_until(deadline) => Err(self.late()),
        };
        let (turn, table) = match started {
            Ok(started) => started,
            Err(error) => {
                count(protocol, outcome(&error), began);
                return Err(error);
            }
        };
        let (sender, receiver) = mpsc::channel(WAITING_BATCHES_MAX);
        let (schema, late) = (table.schema.clone(), self.late());
        tokio::spawn(async move {
            let ended = pass_on(table, &sender, &cancel, deadline, late).await;
            count(protocol, ended.as_ref().map_or_else(outcome, |ended| *ended), began);
            drop(turn);
            if let Err(error) = ended {
                // Nobody is left to tell if this fails.
                sender.send(Err(error)).await.unwrap_or_default();
            }
        });
        Ok(TableStream { schema, batches: Box::pin(received(receiver)) })
    }

    fn late(&self) -> Error {
        let doing =
            format!("send all rows within {} s (setting `sql.statement_seconds_max`); ask for less", self.seconds_max);
        Error::retry(doing).with_fault(QueryFault { sqlstate: "57014", place: None })
    }
}

/// The error of a statement that its client cancelled.
pub(crate) fn cancelled() -> Error {
    Error::retry("answer the query: it was cancelled as its client asked")
        .with_fault(QueryFault { sqlstate: CANCELLED, place: None })
}

/// SQLSTATE of what was cancelled, by whomever.
pub(crate) const CANCELLED: &str = "57014";

fn busy() -> Error {
    let doing = "answer the query: as many statements as `sql.statements_max` allows are running; ask again later";
    Error::retry(doing).with_fault(QueryFault { sqlstate: "53300", place: None })
}

/// Hands on batch after batch; answers how it ended.
async fn pass_on(
    mut table: TableStream,
    sender: &mpsc::Sender<Result<RecordBatch>>,
    cancel: &CancellationToken,
    deadline: Instant,
    late: Error,
) -> Result<&'static str> {
    tokio::select! {
        ended = pass_all(&mut table, sender) => ended,
        () = cancel.cancelled() => Err(cancelled()),
        () = sleep_until(deadline) => Err(late),
    }
}

async fn pass_all(table: &mut TableStream, sender: &mpsc::Sender<Result<RecordBatch>>) -> Result<&'static str> {
    loop {
        let batch = tokio::select! {
            batch = table.batches.next() => batch,
            () = sender.closed() => return Ok("left"),
        };
        let Some(batch) = batch else { return Ok("answered") };
        if sender.send(Ok(batch?)).await.is_err() {
            return Ok("left");
        }
    }
}

fn outcome(error: &Error) -> &'static str {
    if error.fault().is_some_and(|fault| fault.sqlstate == CANCELLED) { "cancelled" } else { "failed" }
}

fn count(protocol: &'static str, outcome: &'static str, began: Instant) {
    metric::SQL_STATEMENTS.add(&[protocol, outcome], 1);
    metric::SEARCH_SECONDS.observe(&[protocol], began.elapsed().as_secs_f64());
}

fn received(receiver: mpsc::Receiver<Result<RecordBatch>>) -> impl Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|batch| (batch, receiver)))
}
