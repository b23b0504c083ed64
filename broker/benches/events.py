"""Makes many GitHub events out of few, for the measuring programs beside this file.

    events.py --out FOLDER [--events 2000000] [--days 10] [--first-day 2015-01-01] HOUR.json.gz…

Reads hours of GH Archive and repeats them under changed ids until there are so many events, spread over so many days: one
file `DAY.json.gz` a day, in the order of time. Within a day each repetition comes some hours later, and actors and repositories
have other names and ids in it, so that their number grows with the events as it does in reality. Prints a Markdown table of
the files.
"""

import argparse
import datetime
import gzip
import json
import pathlib

# Behind the ids of accounts and repositories of the hours, so that a made one meets no real one.
ID_STEP = 100_000_000

# Hours between two repetitions of an event within a day: equal texts then stand too far apart to be packed as one.
ROUND_HOURS = 4


def read(hours: list) -> list:
    """The events of the hours, each once."""
    events = {}
    for hour in hours:
        with gzip.open(hour, "rt", encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    event = json.loads(line)
                    events[event["id"]] = event
    return list(events.values())


def time_of_day(event: dict, round: int) -> str:
    """`T01:02:03Z`, moved by as much as the repetition is."""
    hour, rest = int(event["created_at"][11:13]), event["created_at"][13:]
    return f"T{(hour + round * ROUND_HOURS) % 24:02}{rest}"


def renamed(thing: dict, name: str, round: int) -> dict:
    """An actor or a repository as a repetition calls it."""
    return {**thing, "id": thing["id"] + round * ID_STEP, name: f"r{round}-{thing[name]}"}


def made(event: dict, number: int, day: datetime.date, time: str, round: int) -> dict:
    event = {**event, "id": str(number), "created_at": f"{day}{time}"}
    event["actor"] = renamed(event["actor"], "login", round)
    event["repo"] = renamed(event["repo"], "name", round)
    return event


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("hours", nargs="+", metavar="HOUR.json.gz")
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("--events", type=int, default=2_000_000)
    arguments.add_argument("--days", type=int, default=10)
    arguments.add_argument("--first-day", type=datetime.date.fromisoformat, default=datetime.date(2015, 1, 1))
    asked = arguments.parse_args()

    events = read(asked.hours)
    asked.out.mkdir(parents=True, exist_ok=True)
    per_day = -(-asked.events // asked.days)
    rounds = range(-(-per_day // len(events)))
    repeated = sorted(((time_of_day(event, round), place, round) for round in rounds for place, event in enumerate(events)))
    print("| file | events | MB raw |\n| --- | --- | --- |")
    for number_of_day in range(asked.days):
        day = asked.first_day + datetime.timedelta(days=number_of_day)
        bytes_written = 0
        with gzip.open(asked.out / f"{day}.json.gz", "wt", compresslevel=1, encoding="utf-8") as out:
            for number, (time, place, round) in enumerate(repeated[:per_day], 10**11 + number_of_day * per_day):
                line = json.dumps(made(events[place], number, day, time, round), separators=(",", ":")) + "\n"
                out.write(line)
                bytes_written += len(line)
        print(f"| {day}.json.gz | {per_day:,} | {bytes_written / 1e6:.0f} |", flush=True)


main()
