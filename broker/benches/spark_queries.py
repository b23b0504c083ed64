"""Answers queries on a Delta table by Spark, for queries.py: a query as JSON a line in, `{"rows", "seconds"}` a line out.

    engines/spark/python spark_queries.py TABLE

The table is `silver.github`. It works in the folder that it is started in. Seconds are those until all rows are in Python.
"""

import datetime
import decimal
import json
import os
import sys
import time

# Spark answers times in the zone of this process.
os.environ["TZ"] = "UTC"

from pyspark.sql import SparkSession


def plain(value):
    """A value of Spark as JSON has it."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value


spark = SparkSession.builder.getOrCreate()
spark.sparkContext.setLogLevel("OFF")
spark.conf.set("spark.sql.session.timeZone", "UTC")
spark.sql("CREATE DATABASE silver")
spark.sql(f"CREATE TABLE silver.github USING delta LOCATION '{sys.argv[1]}'")
for line in sys.stdin:
    begun = time.monotonic()
    rows = spark.sql(json.loads(line)).collect()
    seconds = time.monotonic() - begun
    print(json.dumps({"rows": [[plain(value) for value in row] for row in rows], "seconds": seconds}), flush=True)
spark.stop()
