"""Counts GitHub's events per hour and type from the Delta table, forecasts the next hour, and names unusual hours."""

import argparse
from datetime import date, timedelta
from pathlib import Path

import polars
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

import databroker

# With so many hours there is a day to look back by and half a day to test on.
SEASON_HOURS_MIN = 36
DAY_HOURS = 24
# Without a day to look back by, the first hours only warm up.
WARM_UP_HOURS = 3


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default="data", help="the broker's data directory")
    parser.add_argument(
        "--table",
        help="the table elsewhere: a folder or `s3://BUCKET/PREFIX/silver/github` (default: "
        "cold/silver/github of the data directory)",
    )
    parser.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of an object store: aws_endpoint_url=http://127.0.0.1:17070; AWS_… of the environment counts too",
    )
    parser.add_argument("--days", type=int, default=28, help="the newest days, so many")
    parser.add_argument("--types", type=int, default=8, help="the most frequent types of events, so many")
    parser.add_argument("--unusual", type=int, default=5, help="the most unusual hours, so many")
    arguments = parser.parse_args()
    arguments.table = arguments.table or str(Path(arguments.data, "cold", "silver", "github"))
    if not all("=" in option for option in arguments.storage_option):
        parser.error("--storage-option is NAME=VALUE")
    arguments.storage_option = dict(option.split("=", 1) for option in arguments.storage_option)
    return arguments


def open_table(address, options):
    try:
        return DeltaTable(address, storage_options=options)
    except (DeltaError, OSError) as error:
        databroker.end(
            databroker.AWAY,
            f"failed to open the Delta table `{address}`: {error}\n"
            "Did `databroker up` run there? --data is its data directory, --table the place in an object store.",
        )


def counted(table, days):
    """Events per hour and type. Only the files of the newest days are read, and of them two columns."""
    all_days = [partition["event_day"] for partition in table.partitions()]
    if not all_days:
        databroker.end(
            databroker.NOT_ENOUGH, "The table has no rows yet: try `databroker up --sample`, and wait ten seconds."
        )
    newest = date.fromisoformat(max(all_days))
    return (
        polars.scan_delta(table)
        .filter(polars.col("event_day") > newest - timedelta(days=days))
        .group_by(polars.col("event_time").dt.truncate("1h").alias("hour"), "type")
        .agg(polars.len().cast(polars.Int64).alias("events"))
        .collect(engine="streaming")
    )


def every_hour(counts):
    """The same with zeros where nothing came, in order, without the first and the last hour, which may be cut."""
    first, last = counts["hour"].min(), counts["hour"].max()
    hours = polars.datetime_range(first, last, "1h", closed="none", eager=True).alias("hour")
    grid = hours.to_frame().join(counts.select("type").unique(), how="cross")
    filled = grid.join(counts, on=["hour", "type"], how="left").with_columns(polars.col("events").fill_null(0))
    return filled.sort("type", "hour")


def with_forecasts(series):
    """Adds what each method says of an hour by earlier hours alone, and one hour that is yet to come."""
    next_hour = series.group_by("type").agg(polars.col("hour").max() + timedelta(hours=1))
    series = polars.concat([series, next_hour], how="diagonal").sort("type", "hour")
    past = polars.col("events").shift(1)
    methods = {
        "hour before": past,
        "day before": polars.col("events").shift(DAY_HOURS),
        "mean of 24 h": past.rolling_mean(DAY_HOURS, min_samples=1),
    }
    if series["hour"].n_unique() <= SEASON_HOURS_MIN:
        del methods["day before"]
    return series.with_columns(method.over("type").alias(name) for name, method in methods.items()), list(methods)


def summary(series, methods):
    """Of each type its counts, the mean error of each method, and what the best one says of the next hour."""
    warm_up = timedelta(hours=DAY_HOURS if "day before" in methods else WARM_UP_HOURS)
    is_to_come = polars.col("events").is_null()
    forecasts = series.unpivot(
        methods, index=["hour", "type", "events"], variable_name="method", value_name="next hour"
    )
    errors = (
        forecasts.filter(polars.col("hour") >= series["hour"].min() + warm_up, ~is_to_come)
        .group_by("type", "method")
        .agg((polars.col("next hour") - polars.col("events")).abs().mean().alias("error"))
        .sort("type", "error", "method")
    )
    best = errors.unique("type", keep="first").select("type", "method")
    next_hour = forecasts.filter(is_to_come).join(best, on=["type", "method"]).select("type", "next hour", by="method")
    error_names = [f"error: {method}" for method in methods]
    errors = errors.with_columns(polars.format("error: {}", "method").alias("method")).pivot(
        "method", index="type", values="error"
    )
    counts = series.group_by("type").agg(
        polars.col("events").sum(),
        polars.col("events").mean().alias("per hour"),
        polars.col("mean of 24 h").last(),
    )
    summary = counts.join(errors, on="type").join(next_hour, on="type").sort("events", "type", descending=[True, False])
    return summary.select("type", "events", "per hour", "mean of 24 h", *error_names, "next hour", "by")


def unusual(series, count):
    """The hours that are furthest from the mean of the 24 hours before, in standard deviations of random arrivals."""
    mean = polars.col("mean of 24 h")
    score = (polars.col("events") - mean) / polars.max_horizontal(mean, polars.lit(1.0)).sqrt()
    first = series["hour"].min() + timedelta(hours=WARM_UP_HOURS)
    scored = series.filter(polars.col("hour") >= first, polars.col("events").is_not_null()).with_columns(
        score.alias("score")
    )
    scored = scored.sort(polars.col("score").abs(), "hour", "type", descending=[True, False, False])
    return scored.head(count).select("hour", "type", "events", "mean of 24 h", "score")


def main():
    arguments = read_arguments()
    series = every_hour(counted(open_table(arguments.table, arguments.storage_option), arguments.days))
    hours = series.group_by("hour").agg(polars.col("events").sum())
    if hours.height <= WARM_UP_HOURS:
        databroker.end(
            databroker.NOT_ENOUGH,
            f"The table has {hours.height} whole hours of events, too few to forecast by: "
            f"{WARM_UP_HOURS + 1} are needed.",
        )
    silent = hours.filter(polars.col("events") == 0).height
    print(
        f"{hours['events'].sum():,} events in {hours.height} whole hours from {hours['hour'].min():%Y-%m-%d %H:%M} on; "
        f"{silent} hours without any (`ops.coverage` tells whether they were missed)\n"
    )
    series, methods = with_forecasts(series)
    databroker.show(summary(series, methods).head(arguments.types))
    print("The hours that are least like the 24 before:\n")
    databroker.show(unusual(series, arguments.unusual))


if __name__ == "__main__":
    main()
