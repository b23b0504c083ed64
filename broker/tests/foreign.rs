//! Foreign readers judge the stores: delta-rs, Polars and DuckDB from Python, Elasticsearch's own client.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Place, events, gzip_lines};

/// The Python that `./test` sets up; a missing one is a failure, not a skip.
pub(crate) fn python_of_tests() -> String {
    std::env::var("DATABROKER_TEST_PYTHON")
        .expect("`DATABROKER_TEST_PYTHON` is set by `./test`, which sets Python up: run that")
}

/// Runs a script; what it prints.
pub(crate) fn python(script: &str, arguments: &[&str]) -> String {
    let python = python_of_tests();
    // Threads of these libraries at times bring the interpreter down while it ends; what it said stands.
    let script = format!("{script}\nimport os, sys; sys.stdout.flush(); os._exit(0)");
    let output = Command::new(python).args(["-c", &script]).args(arguments).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Deletes rows with delta-rs from Python.
pub(crate) fn delete_from_delta(table: &Path, predicate: &str) {
    let script =
        "import sys, deltalake; assert deltalake.DeltaTable(sys.argv[1]).delete(sys.argv[2])['num_deleted_rows'] > 0";
    python(script, &[table.to_str().expect("text"), predicate]);
}

const READ_DELTA: &str = r#"
import sys, json, deltalake, polars, duckdb, duckdb_extensions
table = deltalake.DeltaTable(sys.argv[1])
rows = table.to_pyarrow_table()
connection = duckdb.connect()
duckdb_extensions.import_extension("delta", con=connection)
counts = "SELECT type, count(*) AS n, count(DISTINCT _id) AS ids, count(title) AS titles FROM delta_scan(?) GROUP BY 1 ORDER BY 1"
counted = connection.execute("LOAD delta").execute(counts, [sys.argv[1]]).fetchall()
lazy = polars.scan_delta(sys.argv[1]).group_by("type").agg(polars.len().alias("n")).sort("type").collect()
print(json.dumps({
    "protocol": [table.protocol().min_reader_version, table.protocol().min_writer_version],
    "duckdb": counted,
    "polars": [[row["type"], row["n"]] for row in lazy.to_dicts()],
    "days": sorted({str(day) for day in rows["event_day"].to_pylist()}),
    "texts": sorted(set(json.loads(body)["id"] for body in deltalake.DeltaTable(sys.argv[2]).to_pyarrow_table(columns=["body"])["body"].to_pylist()))[:2],
}))
"#;

#[test]
fn delta_rs_polars_and_duckdb_read_the_tables_and_agree() {
    let place = Place::with_small_steps();
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 600)));
    place.json(&["backfill", "github", &file]);
    let [silver, bronze] = ["cold/silver/github", "cold/bronze/github"]
        .map(|table| place.data().join(table).to_str().expect("text").to_owned());
    let read: Value = serde_json::from_str(&python(READ_DELTA, &[&silver, &bronze])).expect("one document");
    assert_eq!(read["protocol"], json!([1, 2]), "the lowest protocol, which every reader knows");
    assert_eq!(read["days"], json!(["2026-01-01", "2026-01-02", "2026-01-03"]));
    assert_eq!(read["texts"], json!(["10000000000", "10000000001"]));
    let own = place.json(&["sql", "SELECT type, count(*) AS n, count(DISTINCT _id) AS ids, count(title) AS titles FROM silver.github GROUP BY 1 ORDER BY 1"]);
    let own: Vec<_> = own
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| json!([row["type"], row["n"], row["ids"], row["titles"]]))
        .collect();
    assert_eq!(read["duckdb"], json!(own));
    let own: Vec<_> = own.iter().map(|row| json!([row[0], row[1]])).collect();
    assert_eq!(read["polars"], json!(own));
}

const SEARCH: &str = r#"
import sys, json
from elasticsearch import Elasticsearch, BadRequestError, NotFoundError
client = Elasticsearch(sys.argv[1])
assert client.info()["version"]["number"].startswith("8.")
answer = client.search(index="github-*", query={"match": {"title": "memory leak"}}, size=3, sort=[{"event_time": "asc"}],
    aggs={"t": {"terms": {"field": "type"}}, "d": {"date_histogram": {"field": "event_time", "fixed_interval": "1d"}}})
errors = []
for body in [{"bogus": {}}, {"match": {}}]:
    try:
        client.search(index="github", query=body)
    except BadRequestError as error:
        errors.append(error.error)
try:
    client.search(index="nowhere")
except NotFoundError as error:
    errors.append(error.error)
print(json.dumps({
    "total": answer["hits"]["total"]["value"],
    "ids": [hit["_id"] for hit in answer["hits"]["hits"]],
    "types": [[bucket["key"], bucket["doc_count"]] for bucket in answer["aggregations"]["t"]["buckets"]],
    "days": [bucket["doc_count"] for bucket in answer["aggregations"]["d"]["buckets"]],
    "count": client.count(index="github", query={"term": {"type": "PushEvent"}})["count"],
    "indices": sorted(line["index"] for line in client.cat.indices(format="json")),
    "mapping": client.indices.get_mapping(index="github-2026.01")["github-2026.01"]["mappings"]["properties"]["type"]["type"],
    "errors": errors,
}))
"#;

#[test]
fn elasticsearchs_own_client_searches_counts_and_understands_the_errors() {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_GITHUB_FEEDS", "[]".to_owned()));
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 300)));
    place.json(&["backfill", "github", &file]);
    let up = place.up(&[]);
    let read: Value = serde_json::from_str(&python(SEARCH, &[&up.elasticsearch])).expect("one document");
    assert_eq!(read["total"], json!(60));
    assert_eq!(read["types"], json!([["IssuesEvent", 60]]));
    assert_eq!(read["days"], json!([20, 20, 20]));
    assert_eq!(read["count"], json!(60));
    assert_eq!(read["indices"], json!(["github-2026.01"]), "with all days kept, indices are by month");
    assert_eq!(read["mapping"], json!("keyword"));
    assert_eq!(read["ids"].as_array().map(Vec::len), Some(3));
    assert_eq!(read["errors"][2], json!("index_not_found_exception"));
    assert_eq!(read["errors"].as_array().map(Vec::len), Some(3));
    assert!(up.end().success());
}
