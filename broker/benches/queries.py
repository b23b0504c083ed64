"""Ten analytical queries on `silver.github`: Data Broker, DuckDB and Spark on the same Delta table, in turns.

    queries.py DATABROKER DATA_DIR [--rounds 7] [--spark-rounds 3] [--spark ../../engines/spark/python] [--only NAME…]

DATA_DIR was filled by `databroker backfill github`, as with the files of events.py; it is maintained before the first query.
Each is asked as it is meant to be: Data Broker by one client over HTTP, in Arrow's format; DuckDB in this process with the
table attached once (snapshot pinned) and two threads; Spark in a process of its own, local[2], the table registered. All are
asked the same text once without counting, and must give the same rows. Prints a Markdown table of medians in milliseconds;
exits 1 where rows differ. `--spark ''` leaves Spark out.
"""

import datetime
import io
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

import duckdb
import duckdb_extensions
import pyarrow

import measuring

THREADS = 2

# Every order is total, so that the rows can be compared.
QUERIES = {
    "types by hour, with the bots' share": """
        SELECT date_trunc('hour', event_time) AS hour, type, count(*) AS events,
               avg(CASE WHEN is_bot THEN 1.0 ELSE 0.0 END) AS bots
        FROM silver.github GROUP BY 1, 2 ORDER BY 1, 2""",
    "most starred repositories": """
        SELECT repo_name, count(*) AS stars FROM silver.github WHERE type = 'WatchEvent'
        GROUP BY repo_name ORDER BY stars DESC, repo_name LIMIT 20""",
    "distinct accounts by day": """
        SELECT event_day, count(DISTINCT actor_login) AS actors, count(DISTINCT repo_name) AS repositories
        FROM silver.github GROUP BY event_day ORDER BY event_day""",
    "pushes of one day": """
        SELECT repo_name, count(*) AS pushes, sum(commit_count) AS commits FROM silver.github
        WHERE event_day = DATE '{day}' AND type = 'PushEvent'
        GROUP BY repo_name ORDER BY commits DESC, repo_name LIMIT 20""",
    "words in titles": """
        SELECT event_time, _id, repo_name, number, title FROM silver.github WHERE title LIKE '%memory%'
        ORDER BY event_time DESC, _id LIMIT 20""",
    "percentiles of text lengths": """
        SELECT type, count(body) AS texts, percentile_cont(0.5) WITHIN GROUP (ORDER BY length(body)) AS median,
               percentile_cont(0.99) WITHIN GROUP (ORDER BY length(body)) AS p99
        FROM silver.github GROUP BY type ORDER BY type""",
    "join of pushes and issues": """
        WITH pushes AS (SELECT repo_name, count(*) AS pushes FROM silver.github WHERE type = 'PushEvent' GROUP BY repo_name),
             issues AS (SELECT repo_name, count(*) AS issues FROM silver.github WHERE type = 'IssuesEvent' GROUP BY repo_name)
        SELECT pushes.repo_name, pushes, issues FROM pushes JOIN issues ON pushes.repo_name = issues.repo_name
        ORDER BY pushes * issues DESC, pushes.repo_name LIMIT 20""",
    "busiest accounts of each day": """
        SELECT event_day, place, actor_login, events FROM (
            SELECT event_day, actor_login, events,
                   row_number() OVER (PARTITION BY event_day ORDER BY events DESC, actor_login) AS place
            FROM (SELECT event_day, actor_login, count(*) AS events FROM silver.github GROUP BY event_day, actor_login) AS counted
        ) AS ranked WHERE place <= 5 ORDER BY event_day, place""",
    "accounts in repositories": """
        SELECT actor_login, repo_name, count(*) AS events, min(event_time) AS first, max(event_time) AS last
        FROM silver.github GROUP BY actor_login, repo_name ORDER BY events DESC, actor_login, repo_name LIMIT 20""",
    "one event by its id": """
        SELECT _id, event_time, type, actor_login, repo_name FROM silver.github WHERE _id = '{id}'""",
}


def duck(table: pathlib.Path):
    connection = duckdb.connect(config={"threads": THREADS})
    duckdb_extensions.import_extension("delta", con=connection)
    connection.execute("LOAD delta")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{table}' AS delta_table (TYPE delta, PIN_SNAPSHOT)")
    connection.execute("CREATE SCHEMA silver")
    connection.execute("CREATE VIEW silver.github AS SELECT * FROM delta_table")
    return lambda query: connection.execute(query).to_arrow_table()


class Spark:
    """spark_queries.py in Spark's Python: a query a line, an answer a line."""

    def __init__(self, python: str, table: pathlib.Path):
        self.folder = tempfile.TemporaryDirectory()
        script = pathlib.Path(__file__).with_name("spark_queries.py").resolve()
        line = [pathlib.Path(python).resolve(), script, table.resolve()]
        self.process = subprocess.Popen(
            line, cwd=self.folder.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, query: str) -> tuple:
        self.process.stdin.write(json.dumps(query) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["rows"], answer["seconds"]

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def plain(value):
    """A value as all three can be compared: times as text, without a zone."""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value


def rows_of(table: pyarrow.Table) -> list:
    return [[plain(value) for value in row.values()] for row in table.to_pylist()]


def is_same(one: list, other: list) -> bool:
    """Whether two answers are equal; fractions up to a millionth, as precisely as Data Broker interpolates percentiles."""

    def same(left, right) -> bool:
        if isinstance(left, float) or isinstance(right, float):
            return left is not None and right is not None and math.isclose(left, right, rel_tol=1e-6)
        return left == right

    return [len(row) for row in one] == [len(row) for row in other] and all(
        same(left, right) for mine, theirs in zip(one, other) for left, right in zip(mine, theirs)
    )


def measure(name: str, query: str, peers: dict, rounds: dict) -> list:
    """The medians of all in milliseconds, of as many rounds as each has; in turns."""
    answers = {peer: ask(query)[0] for peer, ask in peers.items()}
    first = next(iter(answers.values()))
    for peer, rows in answers.items():
        if not first or not is_same(first, rows):
            pairs = ([mine, theirs] for mine, theirs in zip(first, rows) if not is_same([mine], [theirs]))
            sys.exit(f"failed to compare `{name}`: {peer} answers {len(rows)} rows instead of {len(first)}; {next(pairs, '')}")
    seconds = {peer: [] for peer in peers}
    for round in range(max(rounds.values())):
        for peer, ask in peers.items():
            if round < rounds[peer]:
                seconds[peer].append(ask(query)[1])
    return [len(first), *(1000 * statistics.median(seconds[peer]) for peer in peers)]


def peers_of(broker: measuring.Broker, duckdb_query, spark) -> dict:
    """How each is asked: a function from a query to its rows and the seconds that it took."""

    def by_http(query: str) -> tuple:
        answer, seconds = measuring.timed(
            lambda: pyarrow.ipc.open_stream(io.BytesIO(broker.sql(query, "arrow"))).read_all()
        )
        return rows_of(answer), seconds

    def by_duckdb(query: str) -> tuple:
        answer, seconds = measuring.timed(lambda: duckdb_query(query))
        return rows_of(answer), seconds

    return {"Data Broker": by_http, "DuckDB": by_duckdb, **({"Spark": spark.ask} if spark else {})}


def shown(name: str, measured: list) -> list:
    rows, mine, *others = measured
    return [name, rows, f"{mine:.0f}"] + [cell for peer in others for cell in (f"{peer:.0f}", f"{mine / peer:.2f}")]


def main() -> None:
    parser = measuring.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--spark-rounds", type=int, default=3)
    parser.add_argument("--spark", default=str(pathlib.Path(__file__).parents[2] / "engines/spark/python"))
    parser.add_argument("--only", nargs="*", default=list(QUERIES))
    asked = parser.parse_args()
    rounds = {"Data Broker": asked.rounds, "DuckDB": asked.rounds, "Spark": asked.spark_rounds}

    measuring.maintain(asked)
    with measuring.running(asked, **measuring.QUIET) as broker:
        table = asked.data / "cold/silver/github"
        spark = Spark(asked.spark, table) if asked.spark else None
        peers = peers_of(broker, duck(table), spark)
        middle = "SELECT _id, CAST(event_day AS VARCHAR) AS day, (SELECT count(*) FROM silver.github) AS rows FROM silver.github ORDER BY event_time, _id LIMIT 1"
        chosen = json.loads(broker.sql(middle))[0]
        print(f"{chosen['rows']:,} rows; {measuring.load()}\n")
        head = ["query", "rows", "Data Broker ms", "DuckDB ms", "ratio"] + (["Spark ms", "ratio"] if spark else [])
        lines = []
        for name in asked.only:
            query = QUERIES[name].format(day=chosen["day"], id=chosen["_id"])
            lines.append(shown(name, measure(name, query, peers, {peer: rounds[peer] for peer in peers})))
        print(measuring.table(head, lines))
        print(f"\n{measuring.load()}")
        if spark:
            spark.end()


main()
