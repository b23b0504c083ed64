"""What the measuring programs beside this file share: a running Data Broker, its answers, Markdown tables.

They run in the Python that `./test` sets up (broker/tests/requirements.txt).
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import pathlib
import signal
import subprocess
import time
import urllib.parse

READY_SECONDS_MAX = 600
ASK_SECONDS_MAX = 600

# Ports are free ones, and nothing beyond this machine is asked. Answers may have any number of rows.
ENVIRONMENT = {
    "DATABROKER_SERVING_HTTP_LISTEN": "127.0.0.1:0",
    "DATABROKER_SERVING_ELASTICSEARCH_LISTEN": "127.0.0.1:0",
    "DATABROKER_SERVING_REQUEST_SECONDS_MAX": str(ASK_SECONDS_MAX),
    "DATABROKER_LOG_KAFKA_LISTEN": "127.0.0.1:0",
    "DATABROKER_SQL_POSTGRES_LISTEN": "127.0.0.1:0",
    "DATABROKER_SQL_FLIGHT_LISTEN": "127.0.0.1:0",
    "DATABROKER_COLD_QUERY_ROWS_MAX": "1000000000",
    "DATABROKER_ARXIV_OAI_SETS": "[]",
    "DATABROKER_GITHUB_FEEDS": "[]",
    "DATABROKER_NEWS_FEEDS": "[]",
}

# Nothing else is computed while queries are measured.
QUIET = {"DATABROKER_COLD_VIEWS_SHIPPED": "false"}


def arguments(description: str) -> argparse.ArgumentParser:
    """The arguments that all have: the program and the data directory."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databroker", type=absolute, metavar="DATABROKER", help="the program")
    parser.add_argument("data", type=absolute, metavar="DATA_DIR", help="its data directory")
    return parser


def absolute(text: str) -> pathlib.Path:
    return pathlib.Path(text).resolve()


def environment(settings: dict) -> dict:
    """Ours, and none of the settings of who runs this."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DATABROKER_")}
    return {**inherited, **ENVIRONMENT, **settings}


def command(asked: argparse.Namespace, *words: str, **settings: str) -> dict:
    """Runs a command of the program to its end; what it answers, and `wall_seconds`, in which the process lived."""
    begun = time.monotonic()
    line = [asked.databroker, "--data", asked.data, "--json", *words]
    ran = subprocess.run(line, env=environment(settings), capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"failed to run `databroker {' '.join(words)}`: {ran.stderr.strip()}")
    answer = json.loads(ran.stdout)
    return {**answer, "wall_seconds": time.monotonic() - begun} if isinstance(answer, dict) else answer


class Broker:
    """A running `databroker up`, and one connection to its port of HTTP."""

    def __init__(self, process: subprocess.Popen, note: dict):
        self.process = process
        self.http, self.elasticsearch = note["http"], note["elasticsearch"]
        self.flight = note["flight"]
        self.connection = connect(self.http)

    def sql(self, query: str, format: str = "json") -> bytes:
        """The answer to a query."""
        return ask(self.connection, "POST", f"/api/sql?format={format}", query.encode())

    def metric(self, name: str) -> float:
        """The value of a metric without labels; 0 before it has one."""
        text = ask(self.connection, "GET", "/metrics").decode()
        values = (line.split() for line in text.splitlines())
        return next((float(value[1]) for value in values if len(value) == 2 and value[0] == name), 0.0)

    def cpu_seconds(self) -> float:
        """CPU time so far of all its threads."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> tuple:
        """Its resident memory now, at its peak, and now without what is mapped of files such as the program, in MB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return tuple(int(lines[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM", "RssAnon"))


@contextlib.contextmanager
def running(asked: argparse.Namespace, *words: str, **settings: str):
    """A `databroker up` that is ready, asked to end afterwards."""
    log = open(asked.data.with_name(asked.data.name + ".log"), "w")
    line = [asked.databroker, "--data", asked.data, "up", *words]
    process = subprocess.Popen(line, env=environment(settings), stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield Broker(process, ready_note(process, asked.data))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        log.close()


def maintain(asked: argparse.Namespace, **settings: str) -> dict:
    """Has the cold store maintained once, as `up` does every minute; its `seconds`, CPU seconds and peak of memory."""
    with running(asked, DATABROKER_PROCESSING_JANITOR_INTERVAL_MS="1000", **settings) as broker:
        cpu_before = broker.cpu_seconds()
        while broker.metric("databroker_cold_maintenance_seconds_count") < 1:
            time.sleep(0.1)
        return {
            "seconds": broker.metric("databroker_cold_maintenance_seconds_sum"),
            "cpu_seconds": broker.cpu_seconds() - cpu_before,
            "memory_mb": broker.memory_mb()[1],
        }


def ready_note(process: subprocess.Popen, data: pathlib.Path) -> dict:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"failed to start: `up` ended with {process.returncode}; see `{data}.log`")
        with contextlib.suppress(OSError, ValueError, SystemExit):
            note = json.loads((data / "running.json").read_text())
            if note["pid"] == process.pid:
                ask(connect(note["http"]), "GET", "/health/ready")
                return note
        time.sleep(0.02)
    raise SystemExit(f"failed to start within {READY_SECONDS_MAX} s; see `{data}.log`")


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=ASK_SECONDS_MAX)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """The body of an answer that must be a success."""
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"failed to ask `{method} {path}`: {answer.status} {said.decode(errors='replace')}")
    return said


def timed(work):
    """What `work` answers, and the seconds that it took."""
    begun = time.monotonic()
    answer = work()
    return answer, time.monotonic() - begun


def percentile(values: list, percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def load() -> str:
    """How busy the machine was: the mean of ready processes in the last minute."""
    return f"load of the machine: {os.getloadavg()[0]:.1f}"


def table(head: list, rows: list) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
