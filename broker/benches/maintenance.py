"""What maintenance of the cold store costs, and what clustering brings to queries that filter.

    maintenance.py DATABROKER DATA_DIR [--rounds 5]

DATA_DIR was filled by `databroker backfill github` and not maintained since; it is not changed: copies beside it are maintained
once, by compaction alone and by compaction with clustering (`cold.cluster_by`), and removed. Prints a Markdown table: files and MB of `silver.github`,
seconds, CPU seconds and peak memory of the maintenance of all tables, and milliseconds (median) of three queries.
"""

import argparse
import json
import shutil
import statistics

import deltalake

import measuring

QUERIES = {
    "count of one type, ms": "SELECT count(*), count(DISTINCT actor_login) FROM silver.github WHERE type = 'ReleaseEvent'",
    "rows of one repository, ms": "SELECT * FROM silver.github WHERE repo_name = '{repository}'",
    "the same of one type, ms": "SELECT * FROM silver.github WHERE type = 'PushEvent' AND repo_name = '{repository}'",
}
STATES = {
    "as committed": None,
    "compacted": {"DATABROKER_COLD_CLUSTER_BY": "[]"},
    "compacted and clustered": {},
}


def measure(asked: argparse.Namespace, settings: dict | None) -> list:
    cost = measuring.maintain(asked, **settings) if settings is not None else None
    cells = ["", "", ""]
    if cost:
        cells = [f"{cost['seconds']:.1f}", f"{cost['cpu_seconds']:.1f}", f"{cost['memory_mb']:.0f}"]
    with measuring.running(asked, **measuring.QUIET) as broker:
        biggest = "SELECT repo_name FROM silver.github WHERE type = 'PushEvent' GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1 OFFSET 100"
        repository = json.loads(broker.sql(biggest))[0]["repo_name"]
        for query in QUERIES.values():
            query = query.format(repository=repository)
            seconds = [measuring.timed(lambda: broker.sql(query, "arrow"))[1] for _ in range(asked.rounds + 1)]
            # The first one warms.
            cells.append(f"{1000 * statistics.median(seconds[1:]):.0f}")
    return cells


def live_files(asked: argparse.Namespace) -> list:
    """How many files the table has, and their MB: by its log, since replaced files stay for a while."""
    table = deltalake.DeltaTable(str(asked.data / "cold/silver/github"))
    sizes = table.get_add_actions(flatten=True).column("size_bytes").to_pylist()
    return [len(sizes), f"{sum(sizes) / 1e6:.0f}"]


def main() -> None:
    parser = measuring.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    copy = argparse.Namespace(**{**vars(asked), "data": asked.data.with_name(asked.data.name + "-maintained")})
    lines = []
    for name, settings in STATES.items():
        shutil.copytree(asked.data, copy.data)
        try:
            cells = measure(copy, settings)
            lines.append([name, *live_files(copy), *cells])
        finally:
            shutil.rmtree(copy.data)
    print(f"{measuring.load()}\n")
    print(measuring.table(["state", "files", "MB", "s", "CPU-s", "peak MB", *QUERIES], lines))


main()
