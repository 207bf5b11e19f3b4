"""Opens the demo's SSTables with a stock Parquet reader and with DuckDB, and
plots how late each carrier was.

    cargo xtask demo
    pip install -r examples/python/requirements.txt
    python examples/python/flights.py target/demo/flights delays.png

The SSTables of a keyspace are the files sst/ID/*.parquet; `flights` is the
demo's first keyspace, so its id is 1. README.md explains the view.
"""

import sys
from pathlib import Path

import duckdb
import matplotlib

matplotlib.use("Agg")  # draws into files, needs no screen
import matplotlib.pyplot as plt
import pyarrow.parquet as pq

AIRLINES = Path(__file__).parent.parent / "data" / "airlines.csv"

# Newest version of each key; a key whose newest version is a delete is gone.
LATEST = """
    CREATE VIEW latest AS
    SELECT decode(key) AS key, decode(value) AS value
    FROM (SELECT key, arg_max(value, seq) AS value, arg_max(kind, seq) AS kind
          FROM read_parquet($files) GROUP BY key)
    WHERE kind = 0
"""

DELAYS = """
    SELECT coalesce(airlines.name, split_part(key, '/', 1)) AS carrier,
           count(*) AS flights,
           avg((value->>'dep_delay')::INTEGER) AS departure,
           avg((value->>'arr_delay')::INTEGER) AS arrival
    FROM latest LEFT JOIN airlines ON airlines.carrier = split_part(key, '/', 1)
    GROUP BY 1 ORDER BY arrival
"""


def main(database: Path, picture: Path) -> None:
    files = sorted(str(file) for file in database.glob("sst/1/*.parquet"))
    if not files:
        sys.exit(f"{database} has no SSTables of keyspace 1; make it with: cargo xtask demo")

    # pyarrow, with every page's checksum compared. DuckDB does not compare
    # them, so this is also the check that the bytes are sound.
    for file in files:
        table = pq.read_table(file, page_checksum_verification=True)
        print(f"{Path(file).name}: {table.num_rows:,} entries of {', '.join(table.column_names)}")

    connection = duckdb.connect()
    connection.execute(LATEST.replace("$files", repr(files)))
    connection.execute(f"CREATE VIEW airlines AS FROM read_csv('{AIRLINES}')")
    delays = connection.sql(DELAYS).fetchall()

    print(f"\n{'carrier':30}{'flights':>8}{'departure':>11}{'arrival':>9}   mean minutes late")
    for carrier, flights, departure, arrival in delays:
        print(f"{carrier:30}{flights:8,}{departure:11.1f}{arrival:9.1f}")

    plot(delays, picture)
    print(f"\nplotted in {picture}")


def plot(delays: list[tuple], picture: Path) -> None:
    carriers, _, departures, arrivals = zip(*delays)
    rows = range(len(carriers))
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    axes.barh([row + 0.2 for row in rows], departures, height=0.4, label="departure")
    axes.barh([row - 0.2 for row in rows], arrivals, height=0.4, label="arrival")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(rows, carriers)
    axes.set_xlabel("mean delay, minutes")
    axes.set_title("Flights from New York City, 2013")
    axes.legend(loc="lower right")
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
