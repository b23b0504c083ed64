"""Judges views: each statement answers the same on Data Broker's engine and on Spark, over the same tables.

    compare.py DATABROKER DATA_DIR VIEWS_DIR RUN_VIEW_DIR [--values] [VIEW…]

`--values` puts sets of values in the place of sketches on both sides, for a `databroker` that has none. Prints one
line of JSON per view; exits 1 when one differs. Jars of Delta: as `spark.jars` of the environment's
`PYSPARK_SUBMIT_ARGS`.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys

# Spark answers times in the zone of this process.
os.environ["TZ"] = "UTC"
# The tree stays as it is.
sys.dont_write_bytecode = True

import dialect

ROWS_SHOWN = 3


def here(databroker: str, data: str, statement: str) -> list:
    command = [databroker, "--data", data, "sql", "--json", statement]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"databroker: {answer.stderr.strip()}")
    return json.loads(answer.stdout)


def there(spark, statement: str) -> list:
    rows = spark.sql(statement)
    return [{name: plain(value) for name, value in zip(rows.columns, row)} for row in rows.collect()]


def plain(value):
    """A value of Spark as `databroker sql --json` writes it."""
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


def tables(data: str) -> dict:
    """Every silver table at its newest version."""
    found = {}
    for path in sorted(pathlib.Path(data, "cold", "silver").iterdir()):
        commits = [int(file.stem) for file in (path / "_delta_log").glob("*.json") if file.stem.isdigit()]
        found[f"silver.{path.name}"] = {"path": str(path), "version": max(commits)}
    return found


def without_absent(rows: list) -> list:
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def judge(file: pathlib.Path, databroker: str, data: str, spark, values: bool) -> dict:
    view = dialect.parse(file.read_text(encoding="utf-8"))
    mine, theirs = (dialect.VALUES_HERE, dialect.VALUES_SPARK) if values else ({}, dialect.SPARK)
    result = {"view": file.stem}
    for part in ["stored", "shown"]:
        statement = view["stored"] if part == "stored" else dialect.over_merged(view["stored"], view["shown"])
        own = without_absent(here(databroker, data, dialect.rewrite(statement, mine, False)))
        other = without_absent(there(spark, dialect.rewrite(statement, theirs, True)))
        # What is stored has no order; what is shown has one.
        differs = difference(unordered(own), unordered(other)) if part == "stored" else difference(own, other)
        result[part] = {"rows": len(own), "spark_rows": len(other), "differs": differs}
    return result


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--values"]
    databroker, data, views, run_view = arguments[:4]
    sys.path.insert(0, run_view)
    import run_view as product

    spark = product.session()
    spark.sparkContext.setLogLevel("OFF")
    product.register(spark, tables(data))
    unequal = 0
    for file in sorted(pathlib.Path(views).glob("*.sql")):
        if arguments[4:] and file.stem not in arguments[4:]:
            continue
        try:
            result = judge(file, databroker, data, spark, "--values" in sys.argv)
            result["equal"] = not (result["stored"]["differs"] or result["shown"]["differs"])
        except Exception as error:  # Every view is to be judged, whatever one does.
            result = {"view": file.stem, "equal": False, "error": " ".join(str(error).split())[:600]}
        unequal += not result["equal"]
        print(json.dumps(result), flush=True)
    spark.stop()
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
