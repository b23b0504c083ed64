"""Answers one statement of a view with Spark, over Delta tables at fixed versions, and writes the rows as Parquet.

    spark-submit --packages io.delta:delta-spark_2.13:4.4.0 run_view.py JOB.json

JOB.json, which Data Broker writes:

    {"tables": {"silver.github": {"path": "s3a://bucket/silver/github", "version": 12}},
     "statement": "SELECT … FROM `silver.github` …",
     "output": "/a/folder/that/does/not/exist/yet"}

Each table is a temporary view of that name, so nothing is added to a catalogue. The last line printed is
`{"rows": N}`. What fails is said in one line on stderr that begins with `failed to`, and the exit code is 1.
"""

import json
import logging
import sys

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

SETTINGS = {
    # Days and hours are those of UTC, as in every table of Data Broker.
    "spark.sql.session.timeZone": "UTC",
    # An overflow or a wrong cast is an error there too, never a silent NULL.
    "spark.sql.ansi.enabled": "true",
    # Microseconds; Spark's own form of 96 bits is read by few others.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
# How Spark comes to know Delta tables; these cannot be set once a session runs.
DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


def session() -> SparkSession:
    """The session that `spark-submit` started, or a new one, with the settings on which results depend."""
    builder = SparkSession.builder.appName("databroker view")
    for key, value in DELTA.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    for key, value in SETTINGS.items():
        spark.conf.set(key, value)
    quiet(spark)
    return spark


def quiet(spark: SparkSession) -> None:
    """Leaves stderr to the reason of a failure: Spark would write the whole stack beside it."""
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    # A session of Spark Connect has no context here.
    if hasattr(type(spark), "sparkContext"):
        spark.sparkContext.setLogLevel("OFF")


def register(spark: SparkSession, tables: dict) -> None:
    """Makes each table, at its version, a temporary view of its name."""
    for name, table in tables.items():
        rows = spark.read.format("delta").option("versionAsOf", table["version"]).load(table["path"])
        rows.createOrReplaceTempView(f"`{name}`")


def write(rows: DataFrame, output: str) -> int:
    """Writes the rows into a new folder and says how many they are."""
    rows.write.parquet(output)
    return rows.sparkSession.read.parquet(output).count()


def run(job: dict) -> int:
    """Does the job; answers the number of rows."""
    spark = session()
    try:
        register(spark, job["tables"])
        return write(spark.sql(job["statement"]), job["output"])
    finally:
        spark.stop()


def read(path: str) -> dict:
    """The job in a file."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    absent = [name for name in ("tables", "statement", "output") if name not in job]
    if absent:
        raise ValueError(f"`{absent[0]}` is missing")
    return job


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: run_view.py JOB.json", file=sys.stderr)
        return 1
    try:
        job = read(sys.argv[1])
        rows = run(job)
    except (OSError, ValueError) as error:
        print(f"failed to read `{sys.argv[1]}`: {error}", file=sys.stderr)
        return 1
    except PySparkException as error:
        # The first line says it; below stands the plan.
        print(f"failed to answer the statement: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(json.dumps({"rows": rows}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
