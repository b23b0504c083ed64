"""How fast all rows and columns of `silver.github` come out: Flight SQL, HTTP in each format, `databroker export`.

    export.py DATABROKER DATA_DIR [--rounds 3] [--table silver.github] [--folder FOLDER]

DATA_DIR was filled by `databroker backfill`. A client in this process reads all and throws it away, on the same cores; what
`export` writes goes into FOLDER (a temporary one when absent) and is removed. Prints a Markdown table: seconds (median),
rows/s, and the bytes that the client received or that were written, in MB and MB/s; those of Flight SQL as they are in
memory.
"""

import pathlib
import shutil
import statistics
import tempfile

import adbc_driver_flightsql.dbapi as flightsql

import measuring

FORMATS = ["arrow", "parquet", "ndjson", "csv", "json"]
FILES = ["parquet", "csv", "ndjson"]
PIECE_BYTES = 1 << 20


def by_flight(broker: measuring.Broker, query: str) -> int:
    """Reads an answer; its bytes."""
    with flightsql.connect(f"grpc://{broker.flight}", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return sum(batch.nbytes for batch in cursor.fetch_record_batch())


def by_http(broker: measuring.Broker, query: str, format: str) -> int:
    """The same over HTTP."""
    broker.connection.request("POST", f"/api/sql?format={format}", query.encode())
    answer = broker.connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"failed to read `{format}`: {answer.status} {answer.read().decode(errors='replace')}")
    buffer, received = bytearray(PIECE_BYTES), 0
    while count := answer.readinto(buffer):
        received += count
    return received


def by_command(asked, folder: pathlib.Path, format: str) -> int:
    """Exports the table into files; their bytes."""
    target = folder / format
    shutil.rmtree(target, ignore_errors=True)
    measuring.command(asked, "export", asked.table, "--to", str(target), "--format", format)
    written = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    shutil.rmtree(target)
    return written


def measure(name: str, rows: int, rounds: int, work) -> list:
    measured = [measuring.timed(work) for _ in range(rounds)]
    seconds = statistics.median(seconds for _, seconds in measured)
    megabytes = measured[-1][0] / 1e6
    return [name, f"{seconds:.1f}", f"{rows / seconds:,.0f}", f"{megabytes:,.0f}", f"{megabytes / seconds:.0f}"]


def main() -> None:
    parser = measuring.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", default="silver.github")
    parser.add_argument("--folder", type=pathlib.Path)
    asked = parser.parse_args()

    query = f"SELECT * FROM {asked.table}"
    rows = measuring.command(asked, "sql", f"SELECT count(*) AS n FROM {asked.table}")[0]["n"]
    measuring.maintain(asked)
    lines = []
    print(f"{rows:,} rows; {measuring.load()}\n")
    with measuring.running(asked, **measuring.QUIET) as broker:
        lines.append(measure("Flight SQL", rows, asked.rounds, lambda: by_flight(broker, query)))
        for format in FORMATS:
            lines.append(measure(f"HTTP, {format}", rows, asked.rounds, lambda: by_http(broker, query, format)))
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for format in FILES:
            work = lambda: by_command(asked, pathlib.Path(folder), format)
            lines.append(measure(f"`export`, {format}", rows, asked.rounds, work))
    print(measuring.table(["way", "s", "rows/s", "MB", "MB/s"], lines))
    print(f"\n{measuring.load()}")


main()
