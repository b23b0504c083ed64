//! A real client of PostgreSQL's protocol.

use std::time::{Duration, SystemTime};

use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use crate::testing::{ENDLESS, Running, settings, soon, start};

async fn connect(running: &Running, password: &str) -> Result<Client, Error> {
    let address = running.server.postgres.expect("it is on");
    let mut config = Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("anyone").dbname("databroker").password(password);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(client)
}

async fn connected() -> (Running, Client) {
    let running = start(settings(), "").await;
    let client = connect(&running, "").await.expect("no password is asked");
    (running, client)
}

/// The rows of an answer as text.
async fn text(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

async fn refused(client: &Client, query: &str) -> SqlState {
    let error = client.simple_query(query).await.map(|_| ()).expect_err(query);
    error.as_db_error().unwrap_or_else(|| panic!("{query}: {error}")).code().clone()
}

#[tokio::test]
async fn rows_come_as_text_and_in_binary() {
    let (_running, client) = connected().await;
    let rows = text(&client, "SELECT number, type, event_time, list FROM events ORDER BY event_time LIMIT 1").await;
    let row: Vec<_> = rows[0].iter().map(|cell| cell.as_deref().expect("a value")).collect();
    assert_eq!((row[0], row[1], row[3]), ("0", "Push", "{0,NULL}"));
    assert!(row[2].starts_with("2015-01-01 15:00:00") && row[2].ends_with("+00"), "{}", row[2]);
    let query = "SELECT number, type, event_time, list FROM silver.events WHERE number >= $1 AND type = $2";
    let rows = client.query(query, &[&2_i64, &"é"]).await.expect("an answer");
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].get::<_, i64>(0), rows[0].get::<_, &str>(1)), (4, "é"));
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_420_124_400 + 4 * 3_600);
    assert_eq!((rows[0].get::<_, SystemTime>(2), rows[0].get::<_, Vec<Option<i64>>>(3)), (at, vec![Some(4), None]));
    let nulls = client.query("SELECT number FROM events WHERE type = 'Issues'", &[]).await.expect("an answer");
    assert_eq!(nulls[0].get::<_, Option<i64>>(0), None);
    assert_eq!(text(&client, "SELECT 1; SELECT 2").await.len(), 2);
    assert_eq!(text(&client, "").await.len(), 0);
}

#[tokio::test]
async fn a_prepared_statement_says_its_types_and_sees_the_newest_rows() {
    let (_running, client) = connected().await;
    let typed = client.prepare("SELECT list FROM events WHERE number = $1 AND type = $2").await.expect("prepared");
    assert_eq!((typed.params(), typed.columns()[0].type_()), (&[Type::INT8, Type::TEXT][..], &Type::INT8_ARRAY));
    let count = client.prepare("SELECT count(*) FROM ops.sessions").await.expect("prepared");
    let first: i64 = client.query_one(&count, &[]).await.expect("a row").get(0);
    let second: i64 = client.query_one(&count, &[]).await.expect("a row").get(0);
    assert!(second > first, "{second} after {first}");
    let cast = client.query_one("SELECT $1::bigint + 1", &[&41_i64]).await.expect("a row");
    assert_eq!(cast.get::<_, i64>(0), 42);
}

#[tokio::test]
async fn what_does_more_than_read_is_refused() {
    let (_running, client) = connected().await;
    for query in [
        "CREATE TABLE x (a int)",
        "INSERT INTO silver.events (number) VALUES (1)",
        "DELETE FROM silver.events",
        "DROP TABLE silver.events",
        "COPY silver.events TO STDOUT",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "TRUNCATE silver.events",
    ] {
        let state = refused(&client, query).await;
        let is_refusal = state == SqlState::READ_ONLY_SQL_TRANSACTION || state == SqlState::SYNTAX_ERROR;
        assert!(is_refusal, "{query}: {state:?}");
    }
    let explained = refused(&client, "EXPLAIN ANALYZE INSERT INTO silver.events (number) VALUES (1)").await;
    assert_eq!(explained, SqlState::READ_ONLY_SQL_TRANSACTION);
    assert_eq!(text(&client, "SELECT count(*) FROM events").await, [[Some("5".to_owned())]]);
}

#[tokio::test]
async fn what_drivers_say_when_they_connect_is_understood() {
    let (_running, client) = connected().await;
    for query in [
        "BEGIN",
        "SET extra_float_digits = 3",
        "SET application_name = 'a driver'",
        "SELECT 1",
        "COMMIT",
        "BEGIN READ ONLY",
        "SAVEPOINT a",
        "RELEASE SAVEPOINT a",
        "ROLLBACK",
        "DISCARD ALL",
    ] {
        client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    }
    let one = async |query: &str| text(&client, query).await[0][0].clone().unwrap_or_default();
    assert_eq!(one("SHOW transaction isolation level").await, "read committed");
    assert_eq!(one("SHOW search_path").await, "silver");
    assert_eq!(one("SELECT current_schema()").await, "silver");
    assert_eq!(one("SELECT current_database()").await, "databroker");
    assert!(one("SELECT version()").await.starts_with("PostgreSQL 16.6 "));
    client.simple_query("SET search_path TO ops").await.expect("known");
    assert_eq!(one("SELECT count(*) FROM empty").await, "0");
    assert_eq!(refused(&client, "SET nonsense = 1").await, SqlState::UNDEFINED_OBJECT);
}

#[tokio::test]
async fn an_error_has_its_state_and_place_and_aborts_the_transaction() {
    let (_running, client) = connected().await;
    let error =
        client.simple_query("SELECT number,\n  nmber FROM events").await.map(|_| ()).expect_err("no such column");
    let error = error.as_db_error().expect("of the server");
    assert_eq!(error.code(), &SqlState::UNDEFINED_COLUMN);
    assert_eq!(error.position(), Some(&ErrorPosition::Original(18)), "{error:?}");
    let syntax = client.query("SELEC 1", &[]).await.map(|_| ()).expect_err("no SQL");
    assert_eq!(syntax.code(), Some(&SqlState::SYNTAX_ERROR));
    client.simple_query("BEGIN").await.expect("begun");
    refused(&client, "SELECT nothing FROM events").await;
    assert_eq!(refused(&client, "SELECT 1").await, SqlState::IN_FAILED_SQL_TRANSACTION);
    client.simple_query("ROLLBACK").await.expect("rolled back");
    assert_eq!(text(&client, "SELECT 1").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_statement_ends_and_gives_its_turn() {
    let (running, client) = connected().await;
    for query in [ENDLESS, "SELECT number FROM events"] {
        let token = client.cancel_token();
        let cancel = async {
            // A request that comes before the statement begins is for none, as in PostgreSQL.
            loop {
                token.cancel_query(NoTls).await.expect("it is taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let answer = tokio::select! {
            answer = soon(client.simple_query(query)) => answer,
            _ = cancel => unreachable!("it goes on for ever"),
        };
        if query == ENDLESS {
            let error = answer.map(|_| ()).expect_err("cancelled");
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error}");
        }
    }
    client.simple_query("SET statement_timeout = '100ms'").await.expect("known");
    assert_eq!(soon(refused(&client, ENDLESS)).await, SqlState::QUERY_CANCELED);
    client.simple_query("SET statement_timeout = 0").await.expect("known");
    // Both turns are free again, also for another client.
    let other = connect(&running, "").await.expect("connected");
    assert_eq!(soon(text(&other, "SELECT 1; SELECT 2")).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cursor_is_read_in_pieces() {
    let (_running, client) = connected().await;
    client.simple_query("BEGIN").await.expect("begun");
    let declare = "DECLARE c CURSOR FOR SELECT number FROM events ORDER BY event_time";
    client.simple_query(declare).await.expect("declared");
    assert_eq!(text(&client, "FETCH 2 FROM c").await.len(), 2);
    assert_eq!(text(&client, "FETCH FORWARD 2 FROM c").await.len(), 2);
    let last = client.query("FETCH ALL FROM c", &[]).await.expect("an answer");
    assert_eq!((last.len(), last[0].get::<_, i64>(0)), (1, 4));
    assert_eq!(text(&client, "FETCH NEXT FROM c").await.len(), 0);
    assert_eq!(refused(&client, declare).await, SqlState::DUPLICATE_CURSOR);
    client.simple_query("ROLLBACK").await.expect("rolled back");
    assert_eq!(refused(&client, "FETCH ALL FROM c").await, SqlState::UNDEFINED_CURSOR);
}

/// What psql 16 asks for `\dt`, `\d silver.events`.
const LIST: &str = "SELECT n.nspname as \"Schema\", c.relname as \"Name\", \
    CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' \
    WHEN 'S' THEN 'sequence' WHEN 't' THEN 'TOAST table' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table' \
    WHEN 'I' THEN 'partitioned index' END as \"Type\", pg_catalog.pg_get_userbyid(c.relowner) as \"Owner\" \
    FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam WHERE c.relkind IN ('r','p','') AND n.nspname <> 'pg_catalog' \
    AND n.nspname !~ '^pg_toast' AND n.nspname <> 'information_schema' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2";
const NUMBER: &str = "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n \
    ON n.oid = c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(events)$' COLLATE pg_catalog.default \
    AND n.nspname OPERATOR(pg_catalog.~) '^(silver)$' COLLATE pg_catalog.default ORDER BY 2, 3";

#[tokio::test]
async fn clients_list_tables_and_columns() {
    let (_running, client) = connected().await;
    let listed = text(&client, LIST).await;
    let name = |row: &Vec<Option<String>>| row[0..3].iter().flatten().cloned().collect::<Vec<_>>().join(".");
    let listed: Vec<_> = listed.iter().map(name).collect();
    assert_eq!(listed, ["ops.empty.table", "ops.sessions.table", "silver.events.table"]);
    let number = text(&client, NUMBER).await[0][0].clone().expect("a number");
    let columns = format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = '{number}' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    );
    let columns: Vec<_> = text(&client, &columns).await.into_iter().flatten().flatten().collect();
    assert_eq!(columns[..2], ["number", "bigint"]);
    assert!(columns.contains(&"timestamp with time zone".to_owned()), "{columns:?}");
    let standard = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name = 'events'";
    assert_eq!(text(&client, standard).await, [[Some("silver".to_owned()), Some("events".to_owned())]]);
    let columns =
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'events' ORDER BY ordinal_position";
    assert_eq!(text(&client, columns).await.len(), 4);
}

#[tokio::test]
async fn with_a_token_only_who_knows_it_is_let_in() {
    let running = start(settings(), "opensesame").await;
    let client = connect(&running, "opensesame").await.expect("the token is the password");
    assert_eq!(text(&client, "SELECT 1").await.len(), 1);
    for wrong in ["opensesam", "opensesame2", "Opensesame"] {
        let error = connect(&running, wrong).await.map(|_| ()).expect_err(wrong);
        assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD), "{error}");
    }
    running.stop.cancel();
    soon(running.server.ended()).await;
    assert!(client.simple_query("SELECT 1").await.is_err(), "the server has ended");
}
