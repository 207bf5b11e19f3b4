"""Compares what the engine says with what others read from its SSTables.

    duramen --db DIR flush
    duramen --db DIR export --keyspace NAME --format jsonl > exported.jsonl
    python check.py DIR exported.jsonl [KEYSPACE_ID]

Reads all SSTables of the keyspace (id 1 unless said otherwise) with pyarrow,
page checksums compared, and again with DuckDB; applies the view "newest version
of each key, unless it is a delete or has expired" in both; and compares with the
export, which must be whole and in the order of keys. Ends with status 1 at any
difference. Merge operands and range deletes are beyond the view: compact first.
"""

import json
import sys
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

PUT, DELETE, MERGE = 0, 1, 2
LAYOUT = [
    ("key", pa.binary(), b"1"),
    ("value", pa.binary(), b"2"),
    ("seq", pa.int64(), b"3"),
    ("kind", pa.int32(), b"4"),
    ("expires_at", pa.int64(), b"5"),  # only where something expires
]
SORTING = (
    pq.SortingColumn(0, descending=False, nulls_first=False),
    pq.SortingColumn(2, descending=True, nulls_first=False),
)

LATEST = """
    SELECT key, value
    FROM (SELECT key, arg_max(value, seq) AS value, arg_max(kind, seq) AS kind
          FROM read_parquet(?) GROUP BY key)
    WHERE kind = 0 ORDER BY key
"""
# Files without the column read as NULL, and arg_max passes over NULL.
LATEST_UNEXPIRED = """
    SELECT key, value
    FROM (SELECT key, arg_max(value, seq) AS value, arg_max(kind, seq) AS kind,
                 arg_max(coalesce(expires_at, 0), seq) AS expires_at
          FROM read_parquet(?, union_by_name = true) GROUP BY key)
    WHERE kind = 0 AND (expires_at = 0 OR expires_at > epoch_ms(now())) ORDER BY key
"""

Entry = tuple[bytes, bytes, int, int, int]


def require(true: bool, what: str) -> None:
    if not true:
        sys.exit(f"check.py: {what}")


def read_sstable(file: Path) -> list[Entry]:
    """The entries of one SSTable, after a look at its layout and order."""
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    schema = parquet.schema_arrow
    for field, (name, kind, field_id) in zip(schema, LAYOUT, strict=False):
        require((field.name, field.type, field.nullable) == (name, kind, False), f"{file}: {field}")
        require(field.metadata[b"PARQUET:field_id"] == field_id, f"{file}: field id of {name}")
    require(len(schema) in (len(LAYOUT) - 1, len(LAYOUT)), f"{file}: {schema.names}")
    for group in range(parquet.num_row_groups):
        order = parquet.metadata.row_group(group).sorting_columns[:2]
        require(tuple(c.column_index for c in order) == (0, 2), f"{file}: sorting columns {order}")
        require(tuple(c.descending for c in order) == (False, True), f"{file}: sorting {order}")

    try:
        table = parquet.read()
    except OSError as error:
        sys.exit(f"check.py: {file}: {error}")
    columns = [table[name].to_pylist() for name in schema.names]
    if len(schema) < len(LAYOUT):
        columns.append([0] * table.num_rows)
    entries = list(zip(*columns))
    for (key, _, seq, *_), (next_key, _, next_seq, *_) in zip(entries, entries[1:]):
        require(key < next_key or (key == next_key and seq > next_seq), f"{file}: order at {next_key}")
    for key, value, _, kind, _ in entries:
        require(kind != MERGE, f"{file}: {key} has a merge operand; compact first")
        require(kind in (PUT, DELETE), f"{file}: kind {kind} of {key}")
        require(kind == PUT or value == b"", f"{file}: a tombstone of {key} with a value")
    return entries


def latest(entries: list[Entry]) -> list[tuple[bytes, bytes]]:
    """The view, in plain Python."""
    newest: dict[bytes, Entry] = {}
    for entry in entries:
        key, _, seq, _, _ = entry
        if key not in newest or seq > newest[key][2]:
            newest[key] = entry
    now = time.time() * 1000
    return sorted(
        (key, value)
        for key, value, _, kind, expires_at in newest.values()
        if kind == PUT and (expires_at == 0 or expires_at > now)
    )


def compare(name: str, found: list[tuple[bytes, bytes]], exported: list[tuple[bytes, bytes]]) -> None:
    for row, (ours, theirs) in enumerate(zip(found, exported)):
        require(ours == theirs, f"row {row}: {name} reads {ours}, exported was {theirs}")
    require(len(found) == len(exported), f"{name} reads {len(found)} keys, exported were {len(exported)}")
    print(f"{name}: the same {len(found):,} keys and values")


def main(database: Path, export: Path, keyspace: int) -> None:
    files = sorted(database.glob(f"sst/{keyspace}/*.parquet"))
    require(bool(files), f"{database} has no SSTables of keyspace {keyspace}")
    exported = read_export(export)

    entries = [entry for file in files for entry in read_sstable(file)]
    require(len({(key, seq) for key, _, seq, _, _ in entries}) == len(entries), "a key twice at one seq")
    tombstones = sum(kind == DELETE for _, _, _, kind, _ in entries)
    expire = sum(expires_at != 0 for *_, expires_at in entries)
    print(f"{len(files)} SSTables, {len(entries):,} entries, {tombstones:,} of them tombstones")

    compare("pyarrow", latest(entries), exported)
    connection = duckdb.connect()
    view = LATEST_UNEXPIRED if expire else LATEST
    rows = connection.execute(view, [[str(file) for file in files]]).fetchall()
    compare("DuckDB", rows, exported)


def read_export(export: Path) -> list[tuple[bytes, bytes]]:
    """Keys and values as `duramen export --format jsonl` wrote them."""
    exported = []
    with export.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            value = row["value"]
            exported.append((row["key"].encode(), value.encode()))
    for (key, _), (next_key, _) in zip(exported, exported[1:]):
        require(key < next_key, f"{export}: {next_key} is not in the order of keys")
    return exported


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 1)
