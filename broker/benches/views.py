"""How long views take: made anew, and brought up to date after a small append.

    views.py DATABROKER DATA_DIR --append SOURCE FILE [--append …] [--rounds 3]

DATA_DIR was filled by `databroker backfill`. First each view is made anew so many times (`views run NAME --whole`), then each
FILE is read by `databroker backfill SOURCE FILE`, and each view is brought up to date once (`views run NAME`). Prints a Markdown
table: per view the rows of its sources, the rows that it stores, the median of the seconds made anew, and the seconds and the
way of bringing up to date (`periods`: only the days that changed; `nothing`: no row was appended). Seconds are those of the run itself, without the start of the
process.
"""

import statistics

import measuring


def rows_by_source(asked) -> dict:
    counts = measuring.command(asked, "status")["sources"]
    return {
        source: measuring.command(asked, "sql", f"SELECT count(*) AS n FROM silver.{source}")[0]["n"] for source in counts
    }


def run(asked, name: str, *words: str) -> dict:
    return measuring.command(asked, "views", "run", name, *words)["views"][0]


def main() -> None:
    parser = measuring.arguments(__doc__)
    parser.add_argument("--append", nargs=2, action="append", default=[], metavar=("SOURCE", "FILE"))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()

    views = measuring.command(asked, "views", "list")
    rows = rows_by_source(asked)
    anew = {view["name"]: [run(asked, view["name"], "--whole") for _ in range(asked.rounds)] for view in views}
    appended = [measuring.command(asked, "backfill", source, file) for source, file in asked.append]
    lines = []
    for view in views:
        name = view["name"]
        after = run(asked, name)
        sources = measuring.command(asked, "views", "explain", name)["watermark"]
        read = ", ".join(f"{rows[source]:,} of {source}" for source in sources)
        whole = statistics.median(ran["seconds"] for ran in anew[name])
        stored = anew[name][-1]["rows"]
        lines.append([name, read, f"{stored:,}", f"{whole:.2f}", f"{after['seconds']:.2f}", after["mode"]])
    told = ", ".join(f"{ran['rows']:,} rows of {ran['source']}" for ran in appended)
    print(f"appended: {told}; {measuring.load()}\n")
    print(measuring.table(["view", "rows read", "rows stored", "anew s", "up to date s", "way"], lines))


main()
