//! Foreign clients of SQL: psql, psycopg, SQLAlchemy as BI programs use it, ADBC over Flight SQL.

use std::process::Command;

use serde_json::{Value, json};

use crate::foreign::python;
use crate::support::{Place, Up, events, gzip_lines};

/// A running `up` with 600 events.
fn running() -> (Place, Up) {
    let place = Place::with_small_steps();
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 600)));
    place.json(&["backfill", "github", &file]);
    let up = place.up(&[]);
    (place, up)
}

fn read(script: &str, arguments: &[&str]) -> Value {
    serde_json::from_str(&python(script, arguments)).expect("one document")
}

/// Asks by psql; its answer without decoration.
fn psql(up: &Up, command: &str) -> (bool, String) {
    let (host, port) = up.postgres.rsplit_once(':').expect("an address");
    let mut psql = Command::new("psql");
    psql.env("PGCONNECT_TIMEOUT", "20").env_remove("PGPASSWORD");
    psql.args(["-X", "-A", "-t", "-h", host, "-p", port, "-U", "anyone", "-d", "databroker", "-c", command]);
    let output = psql.output().expect("psql is installed by `./test`");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("text"))
}

#[test]
fn psql_lists_tables_describes_one_and_reads_it() {
    let (_place, up) = running();
    let (ok, tables) = psql(&up, "\\dt");
    assert!(ok && tables.contains("silver|github|table|") && tables.contains("bronze|news|table|"), "{tables}");
    let (ok, columns) = psql(&up, "\\d silver.github");
    assert!(ok && columns.contains("event_time|timestamp with time zone|"), "{columns}");
    assert!(columns.contains("repo_name|text|") && columns.contains("labels|text[]|"), "{columns}");
    let (ok, schemas) = psql(&up, "\\dn");
    assert!(ok && schemas.contains("silver|") && schemas.contains("ops|"), "{schemas}");
    let (ok, count) = psql(&up, "SELECT type, count(*) FROM github GROUP BY 1 ORDER BY 1 LIMIT 1");
    assert_eq!((ok, count.trim()), (true, "CreateEvent|120"));
    let (ok, lag) =
        psql(&up, "SELECT store, sum(lag_records) FROM ops.lag WHERE source = 'github' GROUP BY 1 ORDER BY 1");
    assert_eq!((ok, lag.trim()), (true, "cold|0\nhot|0"));
    let (ok, refused) = psql(&up, "DROP TABLE silver.github");
    assert!(!ok && refused.contains("cannot execute DROP"), "{refused}");
    let (ok, place) = psql(&up, "SELECT typ FROM silver.github");
    assert!(!ok && place.contains("LINE 1: SELECT typ") && place.contains("^"), "{place}");
    assert!(up.end().success());
}

const PSYCOPG: &str = r#"
import json, sys, threading, time, psycopg
host, port = sys.argv[1].rsplit(":", 1)
connect = lambda **more: psycopg.connect(host=host, port=port, dbname="databroker", user="anyone", **more)
with connect() as connection:
    rows = connection.execute("SELECT type, count(*) FROM silver.github WHERE type = %s GROUP BY 1", ["PushEvent"]).fetchall()
    binary = connection.cursor(binary=True).execute(
        "SELECT event_time, labels, public, number FROM silver.github WHERE _offset < %s ORDER BY _partition, _offset", [1]).fetchone()
    with connection.cursor(name="all") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT _id FROM silver.github")
        streamed = len({row[0] for row in cursor})
errors = []
with connect(autocommit=True) as connection:
    for query in ["SELECT nothing FROM silver.github", "SELEC 1", "SELECT * FROM silver.nowhere", "INSERT INTO silver.github (type) VALUES ('x')", "SELECT 1/0"]:
        try:
            connection.execute(query)
        except psycopg.Error as error:
            errors.append([error.sqlstate, error.diag.statement_position])
    endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value * b.value = -1"
    def cancel():
        while not done.is_set():
            time.sleep(0.1)
            connection.cancel_safe()
    done = threading.Event()
    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        connection.execute(endless)
    except psycopg.Error as error:
        errors.append([error.sqlstate, None])
    done.set()
    canceller.join()
    after = connection.execute("SELECT 1").fetchone()[0]
print(json.dumps({"rows": rows, "time": str(binary[0]), "public": binary[2], "streamed": streamed, "errors": errors, "after": after}))
"#;

#[test]
fn psycopg_binds_streams_cancels_and_understands_the_errors() {
    let (_place, up) = running();
    let read = read(PSYCOPG, &[&up.postgres]);
    assert_eq!(read["rows"], json!([["PushEvent", 120]]));
    assert_eq!((&read["streamed"], &read["public"], &read["after"]), (&json!(600), &json!(true), &json!(1)));
    assert!(read["time"].as_str().is_some_and(|time| time.starts_with("2026-01-0")), "{read}");
    let states: Vec<_> = read["errors"].as_array().expect("errors").iter().map(|error| error[0].clone()).collect();
    assert_eq!(states, ["42703", "42601", "42P01", "25006", "22012", "57014"]);
    assert_eq!(read["errors"][0][1], json!("8"), "{read}");
    assert!(up.end().success());
}

const SQLALCHEMY: &str = r#"
import json, sys, sqlalchemy
from sqlalchemy import MetaData, Table, select, func
engine = sqlalchemy.create_engine(f"postgresql+psycopg://anyone@{sys.argv[1]}/databroker")
inspector = sqlalchemy.inspect(engine)
github = Table("github", MetaData(), schema="silver", autoload_with=engine)
with engine.connect() as connection:
    counted = connection.execute(select(github.c.type, func.count()).group_by(github.c.type).order_by(github.c.type)).fetchall()
print(json.dumps({
    "schemas": inspector.get_schema_names(),
    "tables": sorted(inspector.get_table_names(schema="silver")),
    "columns": {column["name"]: str(column["type"]) for column in inspector.get_columns("github", schema="silver")},
    "keys": inspector.get_pk_constraint("github", schema="silver")["constrained_columns"],
    "counted": [list(row) for row in counted],
}))
"#;

#[test]
fn sqlalchemy_reflects_the_tables_as_bi_programs_do() {
    let (_place, up) = running();
    let read = read(SQLALCHEMY, &[&up.postgres]);
    assert_eq!(read["tables"], json!(["arxiv", "dns", "github", "news"]));
    let schemas: Vec<_> = read["schemas"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(["bronze", "ops", "silver"].iter().all(|schema| schemas.contains(schema)), "{schemas:?}");
    assert_eq!((&read["columns"]["event_time"], &read["columns"]["number"]), (&json!("TIMESTAMP"), &json!("BIGINT")));
    assert_eq!(read["counted"].as_array().map(Vec::len), Some(5), "{read}");
    assert!(up.end().success());
}

const ADBC: &str = r#"
import json, sys
import adbc_driver_flightsql.dbapi as flightsql
options = {} if len(sys.argv) < 3 else {"username": "anyone", "password": sys.argv[2]}
with flightsql.connect(f"grpc://{sys.argv[1]}", db_kwargs=options, autocommit=True) as connection:
    objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    tables = sorted(f"{schema['db_schema_name']}.{table['table_name']}" for catalog in objects
        for schema in catalog["catalog_db_schemas"] for table in schema["db_schema_tables"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT type, event_time, labels FROM silver.github ORDER BY _partition, _offset")
        table = cursor.fetch_arrow_table()
        cursor.execute("SELECT count(*) FROM silver.github WHERE type = $1", ["PushEvent"])
        bound = cursor.fetchone()[0]
        try:
            cursor.execute("SELECT nothing FROM silver.github")
            error = None
        except Exception as failure:
            error = str(failure)
    schema = connection.adbc_get_table_schema("github", db_schema_filter="silver")
print(json.dumps({"tables": tables, "rows": table.num_rows, "time": str(table.schema.field("event_time").type),
    "labels": str(table.schema.field("labels").type), "bound": bound, "error": error, "columns": len(schema.names)}))
"#;

#[test]
fn adbc_lists_reads_and_binds_over_flight_sql() {
    let (_place, up) = running();
    let read = read(ADBC, &[&up.flight]);
    let tables: Vec<_> = read["tables"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(["silver.github", "bronze.dns", "ops.lag"].iter().all(|name| tables.contains(name)), "{tables:?}");
    assert_eq!((&read["rows"], &read["bound"]), (&json!(600), &json!(120)));
    assert_eq!((&read["time"], &read["labels"]), (&json!("timestamp[us, tz=UTC]"), &json!("list<element: string>")));
    assert!(read["error"].as_str().is_some_and(|error| error.contains("nothing")), "{read}");
    assert!(up.end().success());
}

#[test]
fn with_a_token_clients_show_it_as_their_password() {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_SERVING_TOKEN", "opensesame".to_owned()));
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 600)));
    place.json(&["backfill", "github", &file]);
    let up = place.up(&[]);
    let (ok, said) = psql(&up, "SELECT 1");
    assert!(!ok && said.contains("password"), "{said}");
    assert_eq!(read(ADBC, &[&up.flight, "opensesame"])["rows"], json!(600));
    let script = "import sys, psycopg; host, port = sys.argv[1].rsplit(':', 1); print(psycopg.connect(host=host, port=port, user='a', dbname='databroker', password='opensesame').execute('SELECT 42').fetchone()[0])";
    assert_eq!(python(script, &[&up.postgres]).trim(), "42");
    assert!(up.end().success());
}
