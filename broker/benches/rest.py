"""What `up` takes of the machine while nothing happens: without data, and with the samples of all sources.

    rest.py DATABROKER DATA_DIR [--seconds 60]

Starts `databroker up` twice in folders below DATA_DIR, which are removed, and waits so many seconds once it is ready. Prints a
Markdown table: resident memory then, how much of it is not mapped from files (above all the program, which the system may drop and
load again), its peak, and the CPU time of a minute at rest.
"""

import argparse
import shutil
import time

import measuring


def measure(asked: argparse.Namespace, *words: str) -> list:
    with measuring.running(asked, *words) as broker:
        time.sleep(asked.seconds)
        resting, peak, own = broker.memory_mb()
        cpu_before = broker.cpu_seconds()
        time.sleep(asked.seconds)
        cpu = (broker.cpu_seconds() - cpu_before) * 60 / asked.seconds
    return [f"{resting:.0f}", f"{own:.0f}", f"{peak:.0f}", f"{cpu:.2f}"]


def main() -> None:
    parser = measuring.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    lines = []
    for name, words in {"without data": [], "with all samples": ["--sample"]}.items():
        place = argparse.Namespace(**{**vars(asked), "data": asked.data / name.replace(" ", "-")})
        place.data.parent.mkdir(parents=True, exist_ok=True)
        lines.append([f"`up` {name}", *measure(place, *words)])
        shutil.rmtree(place.data)
    print(measuring.table(["", "MB at rest", "without the program's own pages", "MB at the peak", "CPU-s a minute"], lines))


main()
