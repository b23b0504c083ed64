//! A real client of Flight SQL.

use std::sync::Arc;

use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, SqlInfo};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use tonic::transport::{Channel, Endpoint};

use crate::testing::{ENDLESS, Running, events, settings, soon, start};

type Client = FlightSqlServiceClient<Channel>;

async fn connect(running: &Running) -> Client {
    let address = running.server.flight.expect("it is on");
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect().await;
    FlightSqlServiceClient::new(channel.expect("connected"))
}

async fn read(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    let rows = client.do_get(ticket).await?;
    rows.try_collect().await
}

async fn rows(client: &mut Client, query: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(query.to_owned(), None).await?;
    read(client, info).await
}

fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let texts = |batch: &RecordBatch| -> Vec<String> {
        let column = batch.column_by_name(column).expect("the column").as_string::<i32>();
        column.iter().flatten().map(str::to_owned).collect()
    };
    batches.iter().flat_map(texts).collect()
}

fn number(batches: &[RecordBatch]) -> i64 {
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test]
async fn rows_come_as_they_are_and_a_statement_is_announced_with_its_columns() {
    let running = start(settings(), "").await;
    let mut client = connect(&running).await;
    let info = client.execute("SELECT * FROM events".to_owned(), None).await.expect("announced");
    assert_eq!(&info.clone().try_decode_schema().expect("columns"), events().schema().as_ref());
    assert_eq!(read(&mut client, info).await.expect("rows"), [events()]);
    let first = number(&rows(&mut client, "SELECT count(*) FROM ops.sessions").await.expect("rows"));
    let second = number(&rows(&mut client, "SELECT count(*) FROM ops.sessions").await.expect("rows"));
    assert!(second > first, "each statement sees the newest rows: {second} after {first}");
}

#[tokio::test]
async fn a_prepared_statement_takes_parameters() {
    let running = start(settings(), "").await;
    let mut client = connect(&running).await;
    let query = "SELECT number FROM events WHERE number >= $1 AND type = $2";
    let mut prepared = client.prepare(query.to_owned(), None).await.expect("prepared");
    assert_eq!(prepared.parameter_schema().expect("typed").fields().len(), 2);
    assert_eq!(prepared.dataset_schema().expect("columns").field(0).name(), "number");
    let columns: [(&str, ArrayRef); 2] =
        [("$1", Arc::new(Int64Array::from(vec![2]))), ("$2", Arc::new(StringArray::from(vec!["é"])))];
    prepared.set_parameters(RecordBatch::try_from_iter(columns).expect("one row")).expect("taken");
    let info = prepared.execute().await.expect("announced");
    assert_eq!(number(&read(&mut client, info).await.expect("rows")), 4);
    prepared.close().await.expect("closed");
}

#[tokio::test]
async fn clients_list_what_there_is() {
    let running = start(settings(), "").await;
    let mut client = connect(&running).await;
    let info = client.get_catalogs().await.expect("announced");
    assert_eq!(texts(&read(&mut client, info).await.expect("rows"), "catalog_name"), ["databroker"]);
    let asked = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: Some("sil%".to_owned()) };
    let info = client.get_db_schemas(asked).await.expect("announced");
    assert_eq!(texts(&read(&mut client, info).await.expect("rows"), "db_schema_name"), ["silver"]);
    let asked = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: None,
        table_name_filter_pattern: None,
        table_types: vec!["TABLE".to_owned()],
        include_schema: true,
    };
    let info = client.get_tables(asked).await.expect("announced");
    let tables = read(&mut client, info).await.expect("rows");
    assert_eq!(texts(&tables, "table_name"), ["empty", "sessions", "events"]);
    assert!(tables[0].column_by_name("table_schema").is_some());
    let info = client.get_table_types().await.expect("announced");
    assert_eq!(texts(&read(&mut client, info).await.expect("rows"), "table_type"), ["TABLE", "VIEW"]);
    let about = client.get_sql_info(vec![SqlInfo::FlightSqlServerReadOnly]).await.expect("announced");
    assert_eq!(read(&mut client, about).await.expect("rows")[0].num_rows(), 1);
}

#[tokio::test]
async fn what_is_wrong_or_writes_is_refused() {
    let running = start(settings(), "").await;
    let mut client = connect(&running).await;
    let error = client.execute("SELECT nmber FROM events".to_owned(), None).await.map(|_| ()).expect_err("no column");
    assert!(error.to_string().contains("nmber"), "{error}");
    for query in ["CREATE TABLE x AS SELECT 1", "INSERT INTO events (number) VALUES (1)", "SET a.b = 1"] {
        let refused = rows(&mut client, query).await.map(|_| ()).expect_err(query);
        assert!(refused.to_string().contains("not supported"), "{query}: {refused}");
    }
    let update = client.execute_update("DELETE FROM events".to_owned(), None).await.map(|_| ()).expect_err("refused");
    assert!(update.to_string().contains("only be read"), "{update}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_or_dropped_answer_ends_and_gives_its_turn() {
    let running = start(settings(), "").await;
    let mut client = connect(&running).await;
    let info = client.execute(ENDLESS.to_owned(), None).await.expect("announced");
    let (mut reader, mut canceller) = (client.clone(), client.clone());
    let ticket = info.clone();
    let reading = tokio::spawn(async move { read(&mut reader, ticket).await.map(|_| ()) });
    let cancelled = async {
        use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus};
        use prost::Message;
        loop {
            let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
            let action = Action::new("CancelFlightInfo", body);
            let mut results = canceller.do_action(action).await.expect("taken");
            let result = results.try_next().await.expect("a result").expect("one");
            let result = CancelFlightInfoResult::decode(result.body).expect("a result");
            if result.status() == CancelStatus::Cancelled {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(cancelled).await;
    let error = soon(reading).await.expect("no panic").expect_err("cancelled");
    assert!(error.to_string().contains("cancelled"), "{error}");
    for _ in 0..2 {
        let info = client.execute(ENDLESS.to_owned(), None).await.expect("announced");
        let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
        let answer = client.do_get(ticket).await.expect("begun");
        drop(answer);
    }
    assert_eq!(number(&soon(rows(&mut client, "SELECT 1")).await.expect("a turn is free")), 1);
}

#[tokio::test]
async fn with_a_token_only_who_shows_it_is_answered() {
    let running = start(settings(), "opensesame").await;
    let mut client = connect(&running).await;
    assert!(client.execute("SELECT 1".to_owned(), None).await.is_err());
    assert!(client.handshake("anyone", "wrong").await.is_err());
    let bearer = client.handshake("anyone", "opensesame").await.expect("let in");
    assert_eq!(bearer, "Bearer opensesame".as_bytes());
    client.set_token("opensesame".to_owned());
    assert_eq!(number(&rows(&mut client, "SELECT 1").await.expect("rows")), 1);
    running.stop.cancel();
    soon(running.server.ended()).await;
}
