"""How soon an event is seen: from a webhook's delivery to the answers of SQL, search and a view.

    freshness.py DATABROKER DATA_DIR [--events 200] [--pause-ms 100]

Starts `databroker up` on DATA_DIR, which may hold rows before, and delivers releases to `/webhooks/github` as GitHub does, one
after another. From the moment before each is sent, three clients ask over connections of their own, again and again, until an
answer has it: SQL (`/api/sql`, by its id among the newest rows), search (`_search` on the port of Elasticsearch, by its id) and the view `github_releases`
(`/api/views`, by its tag). The time until the delivery is answered, which is when it is on disk, is shown too. Prints a Markdown
table of p50, p99 and the most, in milliseconds. Askers wait --poll-ms between answers, which the times include.
"""

import concurrent.futures
import datetime
import hashlib
import hmac
import json
import time
import urllib.parse

import measuring

SECRET = "a secret of this run"
SEEN_SECONDS_MAX = 60


def release(number: int, run: str) -> bytes:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    author = {"login": "octocat", "id": 1}
    return json.dumps({
        "action": "published",
        "release": {"id": number, "tag_name": f"{run}-{number}", "name": f"Release {number}", "author": author, "draft": False,
                    "prerelease": False, "created_at": now, "published_at": now, "body": "What is new. " * 20},
        "repository": {"id": 1296269, "name": "Hello-World", "full_name": "octocat/Hello-World", "owner": author, "private": False},
        "sender": author,
    }).encode()


def deliver(connection, delivery: str, body: bytes) -> None:
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "release", "X-GitHub-Delivery": delivery,
               "X-Hub-Signature-256": f"sha256={signature}"}
    measuring.ask(connection, "POST", "/webhooks/github", body, **headers)


def yesterday() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=1)


def seen_in_sql(connection, delivery: str) -> bool:
    query = f"SELECT count(*) AS n FROM silver.github WHERE event_day >= DATE '{yesterday()}' AND _id = '{delivery}'"
    return json.loads(measuring.ask(connection, "POST", "/api/sql", query.encode()))[0]["n"] == 1


def seen_in_search(connection, delivery: str) -> bool:
    body = json.dumps({"query": {"ids": {"values": [delivery]}}, "size": 1}).encode()
    headers = {"Content-Type": "application/json"}
    found = json.loads(measuring.ask(connection, "POST", "/github-*/_search", body, **headers))
    return found["hits"]["total"]["value"] == 1


def seen_in_view(connection, delivery: str) -> bool:
    asked = urllib.parse.urlencode({"from": yesterday(), "filter": f"tag = '{delivery}'"})
    return len(json.loads(measuring.ask(connection, "GET", f"/api/views/github_releases?{asked}"))["rows"]) == 1


class Asker:
    """A client that asks until it sees an event."""

    def __init__(self, url: str, seen, poll_seconds: float):
        self.connection, self.seen, self.poll_seconds = measuring.connect(url), seen, poll_seconds

    def wait(self, delivery: str, begun: float) -> float:
        """Seconds since `begun` when it was seen."""
        while not self.seen(self.connection, delivery):
            if time.monotonic() - begun > SEEN_SECONDS_MAX:
                raise SystemExit(f"failed to see `{delivery}` by `{self.seen.__name__}` within {SEEN_SECONDS_MAX} s")
            time.sleep(self.poll_seconds)
        return time.monotonic() - begun


def measure(broker: measuring.Broker, asked) -> dict:
    """Seconds of each event, by what was waited for."""
    poll_seconds = asked.poll_ms / 1000
    askers = {
        "SQL": Asker(broker.http, seen_in_sql, poll_seconds),
        "search": Asker(broker.elasticsearch, seen_in_search, poll_seconds),
        "a view": Asker(broker.http, seen_in_view, poll_seconds),
    }
    seconds = {"on disk": [], **{name: [] for name in askers}}
    run = f"fresh-{int(time.time())}"
    with concurrent.futures.ThreadPoolExecutor(len(askers)) as threads:
        for number in range(asked.events):
            delivery = f"{run}-{number}"
            body = release(number, run)
            begun = time.monotonic()
            waits = {name: threads.submit(asker.wait, delivery, begun) for name, asker in askers.items()}
            deliver(broker.connection, delivery, body)
            seconds["on disk"].append(time.monotonic() - begun)
            for name, wait in waits.items():
                seconds[name].append(wait.result())
            time.sleep(asked.pause_ms / 1000)
    return seconds


def main() -> None:
    parser = measuring.arguments(__doc__)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--pause-ms", type=int, default=100, help="between one event that all have seen and the next")
    parser.add_argument("--poll-ms", type=int, default=5, help="between an answer and the next question")
    asked = parser.parse_args()
    # What is stored of the view is as `up` keeps it.
    measuring.command(asked, "views", "run", "github_releases")
    with measuring.running(asked, DATABROKER_GITHUB_WEBHOOK_SECRET=SECRET) as broker:
        rows = json.loads(broker.sql("SELECT count(*) AS n FROM silver.github"))[0]["n"]
        print(f"{rows:,} rows before, {asked.events} events; {measuring.load()}\n")
        seconds = measure(broker, asked)
        lines = [
            [name, *(f"{1000 * measuring.percentile(times, percent):.0f}" for percent in (50, 99, 100))]
            for name, times in seconds.items()
        ]
        print(measuring.table(["seen in", "p50 ms", "p99 ms", "most ms"], lines))
        print(f"\n{measuring.load()}")


main()
