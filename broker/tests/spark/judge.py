"""Judges views: both statements of each answer the same on Data Broker's engine and on Spark, over the same tables.

    judge.py DATABROKER DATA_DIR

What Spark runs is what `databroker views explain` says that it would. Prints one line of JSON per view; exits 1 when one
differs.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys

# Spark answers times in the zone of this process.
os.environ["TZ"] = "UTC"

from pyspark.sql import SparkSession

ALL = "1000000"
ROWS_SHOWN = 3


def here(databroker: str, data: str, *arguments: str):
    command = [databroker, "--data", data, "--json", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"databroker {arguments}: {answer.stderr.strip()}")
    return json.loads(answer.stdout)


def there(spark, statement: str) -> list:
    rows = spark.sql(statement)
    return [{name: plain(value) for name, value in zip(rows.columns, row)} for row in rows.collect()]


def plain(value):
    """A value of Spark as Data Broker writes it."""
    if isinstance(value, datetime.datetime):
        # With no more digits of the second than it needs, three by three.
        digits = "auto" if value.microsecond == 0 else "milliseconds" if value.microsecond % 1000 == 0 else "microseconds"
        return value.isoformat(timespec=digits) + "Z"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(element) for element in value]
    return value


def unordered(rows: list) -> list:
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def difference(mine: list, theirs: list) -> list:
    """The first rows that differ, in pairs; more rows on one side have `null` on the other."""
    longest = max(len(mine), len(theirs))
    pad = lambda rows: rows + [None] * (longest - len(rows))
    return [pair for pair in zip(pad(mine), pad(theirs)) if pair[0] != pair[1]][:ROWS_SHOWN]


def judge(databroker: str, data: str, spark, view: str) -> dict:
    statements = here(databroker, data, "views", "explain", view)["spark"]
    stored = here(databroker, data, "sql", f"SELECT * FROM gold.{view}")
    shown = here(databroker, data, "views", "show", view, "--top", ALL)["rows"]
    # What is stored has no order; what is shown has one.
    return {
        "view": view,
        "stored": len(stored),
        "shown": len(shown),
        "differs": difference(unordered(stored), unordered(there(spark, statements["stored"])))
        + difference(shown, there(spark, statements["shown"])),
    }


def session(data: str):
    spark = SparkSession.builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.ansi.enabled", "true")
    for path in sorted(pathlib.Path(data, "cold", "silver").iterdir()):
        spark.read.format("delta").load(str(path)).createOrReplaceTempView(f"`silver.{path.name}`")
    return spark


def main() -> int:
    databroker, data = sys.argv[1:]
    spark = session(data)
    unequal = 0
    for view in here(databroker, data, "views", "list"):
        try:
            result = judge(databroker, data, spark, view["name"])
        except Exception as error:  # Every view is to be judged, whatever one does.
            result = {"view": view["name"], "differs": [" ".join(str(error).split())[:600]]}
        unequal += bool(result["differs"])
        print(json.dumps(result), flush=True)
    spark.stop()
    return 1 if unequal else 0


sys.exit(main())
