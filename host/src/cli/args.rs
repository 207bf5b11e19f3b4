//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use duramen::compaction::simulate::Workload;
use duramen::{CompactionStrategy, Durability, KeyspaceOptions, MemtableKind};

use super::text;

const EXAMPLES: &str = "\
Examples:
  duramen --db data put user:42 ada
  duramen --db data get user:42
  duramen --db data scan --prefix user:
  duramen --db data delete --prefix user:
  duramen --db data keyspace create hits --merge-operator i64.add
  duramen --db data merge front-page 1 --int --keyspace hits
  duramen --db data apply changes.jsonl
  duramen --db data import people.csv --key country,id --keyspace people
  duramen --db data export people.jsonl --keyspace people
  duramen --db data stats

The engine runs in a sandbox that reaches the directory and nothing else; with
--native it runs in this process. The files are the same.

Exit codes: 0 found or done, 1 not found or not as expected, 2 usage, 3 the database or
a file refused.";

const PUT_EXAMPLES: &str = "\
Examples:
  duramen --db data put user:42 ada
  duramen --db data put session:7 '{\"user\":42}' --ttl 30m
  duramen --db data put portrait --value-file ada.jpg --durability sync
  duramen --db data put front-page 1000 --int --keyspace hits

Without --ttl the value lives as long as its keyspace says: for ever, unless that was
created with a time to live.";

const MERGE_EXAMPLES: &str = "\
Examples:
  duramen --db data keyspace create hits --merge-operator i64.add
  duramen --db data merge front-page 1 --int --keyspace hits
  duramen --db data merge front-page -5 --int --keyspace hits
  duramen --db data get front-page --int --keyspace hits
  duramen --db data keyspace create log --merge-operator append
  duramen --db data merge today 'a line;' --keyspace log

The operand is folded into the value by the merge operator that the keyspace was
created with, without reading the value first. i64.add, i64.min and i64.max need --int.";

const DELETE_EXAMPLES: &str = "\
Examples:
  duramen --db data delete user:42
  duramen --db data delete --prefix user:
  duramen --db data delete --start a --end c
  duramen --db data delete --prefix ''                  # every key of the keyspace

A prefix or a range is deleted at once, by one commit that costs as much as one put,
however many keys there are; nothing is asked.";

const BACKUP_EXAMPLES: &str = "\
Examples:
  duramen --db data checkpoint /mnt/copy           # opens as a database
  duramen --db data backup create /mnt/backups     # copies what the last one has not
  duramen backup list /mnt/backups
  duramen backup verify /mnt/backups 3
  duramen --db restored restore /mnt/backups 3
  duramen backup delete /mnt/backups 1

A sandbox reaches one directory, so all of these but checkpoint run the engine in this
process.";

const REPAIR_NOTES: &str = "\
Examples:
  duramen --db damaged verify
  duramen --db damaged repair rescued

The damaged database is not changed. What is lost is listed, with the file, the place
and where they are known the keys; then the exit code is 1.";

const KEYSPACE_EXAMPLES: &str = "\
Examples:
  duramen --db data keyspace create users
  duramen --db data keyspace create hits --merge-operator i64.add
  duramen --db data keyspace create sessions --ttl 30d
  duramen --db data keyspace create sessions --ttl never
  duramen --db data keyspace create hits --memtable skiplist
  duramen --db data keyspace create readings --strategy time_series
  duramen --db data keyspace drop sessions
  duramen --db data keyspaces                           # lists them";

const CREATE_NOTES: &str = "\
A keyspace that exists takes on another time to live, which is that of entries written
from then on, another memtable and another strategy, which change no answer and rewrite
nothing; it refuses another merge operator.";

const APPLY_EXAMPLES: &str = "\
Examples:
  duramen --db data apply changes.jsonl
  duramen --db data apply changes.jsonl --keyspace accounts --durability sync
  generate-changes | duramen --db data apply -

Each line is a JSON object, one operation:
  {\"op\":\"put\",\"key\":\"ada\",\"value\":\"36\"}
  {\"op\":\"put\",\"key_hex\":\"00ff\",\"value_hex\":\"cafe\",\"keyspace\":\"blobs\"}
  {\"op\":\"delete\",\"key\":\"grace\"}
  {\"op\":\"merge\",\"key\":\"front-page\",\"int\":1,\"keyspace\":\"hits\"}
  {\"op\":\"delete_range\",\"start\":\"a\",\"end\":\"c\"}
  {\"op\":\"expect\",\"key\":\"ada\",\"value\":\"35\"}
  {\"op\":\"expect\",\"key\":\"alan\",\"absent\":true}

Keys and bounds are given as key, start and end, or in hexadecimal digits as key_hex,
start_hex and end_hex; values as value, value_hex, or int for an integer of 8 bytes. A
line without keyspace is for that of --keyspace; keyspaces must exist.

The whole file is one transaction: all of it is committed at once, or nothing. A line
that expects something is looked up in it, with what the lines before have written; if
it finds something else, nothing is changed and the exit code is 1.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  duramen --db data import flights.parquet --key carrier,time_hour,flight --keyspace flights
  duramen --db data import words.tsv --key word --value meaning
  duramen --db data import dump.jsonl          # as written by `duramen export`

The key is the text of the key columns, joined by '/'. The value is a JSON object of
the other columns, or the text of one with --value. Cells of CSV and TSV become numbers
where they are written as JSON writes numbers, null where they are empty, and strings
otherwise. Rows are committed in the order of the file, --batch-rows at a time; a row
that cannot be imported ends the import, and nothing of its batch is committed. Without
--key, the columns must be key and value, or key_hex and value_hex.";

const COMPACT_EXAMPLES: &str = "\
Examples:
  duramen --db data compact
  duramen --db data compact --keyspace users --prefix user:4

Compactions go on in the background anyway; this one gives back all the space that it
can, and needs as much for the time being.";

const SCAN_EXAMPLES: &str = "\
Examples:
  duramen --db data scan --prefix user: --limit 10
  duramen --db data scan --start a --end b --reverse --format jsonl
  duramen --db data scan --prefix user: --count
  duramen --db data scan --int --keyspace hits";

const EXPORT_EXAMPLES: &str = "\
Examples:
  duramen --db data export users.jsonl --keyspace users
  duramen --db data export users.parquet
  duramen --db data export --format csv --output - | head";

const INSPECT_EXAMPLES: &str = "\
Examples:
  duramen --db data inspect
  duramen --db data inspect --keyspace users --svg users.svg
  duramen --db data inspect --json

A line is a sorted run, the newest on top, from the first key of the keyspace to the
last; a table is as wide as its share of the bytes, and the darker the denser. The
database is opened for reading alone, by this process; while somebody has it open for
writing, that is refused.";

const SIMULATE_EXAMPLES: &str = "\
Examples:
  duramen simulate                                      # every scaling and workload
  duramen simulate --scaling T4/L4 --scaling T8,T4/L4 --workload overwrite,queue
  duramen simulate --entries 100M --value-bytes 1000 --memtable-bytes 64MiB
  duramen simulate --workload overwrite --svg overwrite.svg

Nothing is read or written but the picture: the engine's own choice of compactions runs
over a model of its tables. Columns: bytes written to tables for each byte put, without
the log; runs that may hold a key, on average and at most; bytes of tables for each
byte of newest versions, on average, at most and in the end; merges, moves and drops;
bytes of the largest merge. Values are taken to be compressed by half.";

/// An embedded key-value database whose SSTables are Parquet files.
#[derive(Debug, Parser)]
#[command(name = "duramen", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    pub db: Option<PathBuf>,
    /// Run the engine in this process instead of the sandbox
    #[arg(long)]
    pub native: bool,
    /// Memory of the sandbox, in MiB [default: 256]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=4096))]
    pub memory: Option<u64>,
    /// Fuel of one call into the sandbox, about one unit per instruction; opening,
    /// flush, compact, verify and checkpoint are not limited [default: no limit]
    #[arg(long, value_name = "UNITS")]
    pub fuel: Option<u64>,
    /// When sorted runs are merged, in keyspaces without a strategy of their own:
    /// scaling parameters as T4/L4, write_heavy, balanced, read_heavy, time_series or
    /// adaptive [default: balanced]
    #[arg(long, value_name = "STRATEGY")]
    pub compaction: Option<CompactionStrategy>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a value under a key
    #[command(after_help = PUT_EXAMPLES)]
    Put(Put),
    /// Print the value of a key
    Get(Get),
    /// Fold an operand into the value of a key
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(Merge),
    /// Remove a key, or all keys of a prefix or a range
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(Delete),
    /// Commit the operations of a file, all of them or none
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(Apply),
    /// List pairs in the order of their keys
    #[command(after_help = SCAN_EXAMPLES)]
    Scan(Scan),
    /// Load rows of a file
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(Import),
    /// Write all pairs of a keyspace to a file
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// List the keyspaces
    Keyspaces,
    /// Create or drop a keyspace
    #[command(subcommand, after_help = KEYSPACE_EXAMPLES)]
    Keyspace(Keyspace),
    /// Make a complete copy of the database in another directory
    #[command(after_help = BACKUP_EXAMPLES)]
    Checkpoint {
        /// A new or empty directory
        target: PathBuf,
    },
    /// Make and look after backups that share what did not change
    #[command(subcommand, after_help = BACKUP_EXAMPLES)]
    Backup(Backup),
    /// Make a new database of what is sound in a damaged one
    #[command(after_help = REPAIR_NOTES)]
    Repair {
        /// A new or empty directory
        target: PathBuf,
    },
    /// Make the database of --db, which must not exist yet, from a backup
    #[command(after_help = BACKUP_EXAMPLES)]
    Restore(Restore),
    /// Write memtables to SSTables
    Flush,
    /// Merge each keyspace, or the keys of a range, into one sorted run
    #[command(after_help = COMPACT_EXAMPLES)]
    Compact(Compact),
    /// Read and check every byte of every live file
    Verify,
    /// Show sizes, levels and counters
    Stats(Stats),
    /// Draw the sorted runs of each keyspace
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(Inspect),
    /// Compare compaction settings on a model of the tables
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(Simulate),
}

/// What to do about backups.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Add a backup of the database as it is now
    Create {
        /// The directory of backups
        backups: PathBuf,
    },
    /// List the backups in a directory
    List {
        /// The directory of backups
        backups: PathBuf,
    },
    /// Read and check every byte of a backup
    Verify {
        /// The directory of backups
        backups: PathBuf,
        /// Its number
        id: u64,
    },
    /// Delete a backup; the others stay whole
    Delete {
        /// The directory of backups
        backups: PathBuf,
        /// Its number
        id: u64,
    },
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The directory of backups
    pub backups: PathBuf,
    /// The backup's number [default: the newest]
    pub id: Option<u64>,
}

/// The keyspace a command works on.
#[derive(Debug, Args)]
pub struct InKeyspace {
    /// The keyspace
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub keyspace: String,
}

/// What a commit must survive.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Survives {
    /// Nothing in particular
    None,
    /// The end of this process
    Buffered,
    /// Power loss
    Sync,
}

impl From<Survives> for Durability {
    fn from(survives: Survives) -> Durability {
        match survives {
            Survives::None => Durability::None,
            Survives::Buffered => Durability::Buffered,
            Survives::Sync => Durability::Sync,
        }
    }
}

#[derive(Debug, Args)]
pub struct Put {
    /// The key
    pub key: String,
    /// The value
    #[arg(required_unless_present = "value_file", conflicts_with = "value_file")]
    #[arg(allow_negative_numbers = true)]
    pub value: Option<String>,
    /// Take the value from a file, or from standard input with -
    #[arg(long, value_name = "FILE")]
    pub value_file: Option<PathBuf>,
    /// How long it is there: 90s, 15m, 12h or 30d
    #[arg(long, value_name = "TIME", value_parser = text::parse_ttl)]
    pub ttl: Option<u64>,
    /// Key and value are given as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// The value is given as an integer, and stored in 8 bytes
    #[arg(long, conflicts_with = "value_file")]
    pub int: bool,
    /// What the commit survives
    #[arg(long, value_enum, default_value = "buffered")]
    pub durability: Survives,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Args)]
pub struct Get {
    /// The key
    pub key: String,
    /// The key is given, and the value printed, as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// The value is printed as the integer that its 8 bytes are
    #[arg(long)]
    pub int: bool,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Args)]
pub struct Merge {
    /// The key
    pub key: String,
    /// The operand
    #[arg(allow_negative_numbers = true)]
    pub operand: String,
    /// Key and operand are given as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// The operand is given as an integer, as i64.add, i64.min and i64.max need
    #[arg(long)]
    pub int: bool,
    /// What the commit survives
    #[arg(long, value_enum, default_value = "buffered")]
    pub durability: Survives,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The key
    #[arg(required_unless_present_any = ["prefix", "start", "end"])]
    #[arg(conflicts_with_all = ["prefix", "start", "end"])]
    pub key: Option<String>,
    /// All keys that start with this
    #[arg(long, conflicts_with_all = ["start", "end"])]
    pub prefix: Option<String>,
    /// All keys from this one on
    #[arg(long, requires = "end", value_name = "KEY")]
    pub start: Option<String>,
    /// All keys below this one
    #[arg(long, requires = "start", value_name = "KEY")]
    pub end: Option<String>,
    /// Keys and prefix are given as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// What the commit survives
    #[arg(long, value_enum, default_value = "buffered")]
    pub durability: Survives,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Args)]
pub struct Apply {
    /// A .jsonl file, or - for standard input
    pub file: PathBuf,
    /// No summary
    #[arg(long)]
    pub quiet: bool,
    /// What the commit survives
    #[arg(long, value_enum, default_value = "buffered")]
    pub durability: Survives,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Subcommand)]
pub enum Keyspace {
    /// Create a keyspace, or give one another time to live or memtable
    #[command(after_help = CREATE_NOTES)]
    Create(Create),
    /// Drop a keyspace and everything in it
    Drop {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// Its name
    pub name: String,
    /// How values take in operands: i64.add, i64.min, i64.max or append
    #[arg(long, value_name = "OPERATOR")]
    pub merge_operator: Option<String>,
    /// How long entries live that say nothing else: 90s, 15m, 12h, 30d or never
    #[arg(long, value_name = "TIME", value_parser = text::parse_ttl_or_never)]
    pub ttl: Option<u64>,
    /// What keeps its writes sorted in memory
    #[arg(long, value_enum, value_name = "KIND")]
    pub memtable: Option<Memtable>,
    /// When its sorted runs are merged, as in the option of the same name before the
    /// command
    #[arg(long = "strategy", value_name = "STRATEGY")]
    pub compaction: Option<CompactionStrategy>,
}

impl From<&Create> for KeyspaceOptions {
    fn from(create: &Create) -> KeyspaceOptions {
        KeyspaceOptions {
            merge_operator: create.merge_operator.clone(),
            ttl_ms: create.ttl,
            memtable: create.memtable.map(MemtableKind::from),
            compaction: create.compaction.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Memtable {
    /// A B-tree: what a keyspace has that was told nothing
    Sorted,
    /// A skip list
    Skiplist,
    /// An adaptive radix tree
    Trie,
}

impl From<Memtable> for MemtableKind {
    fn from(memtable: Memtable) -> MemtableKind {
        match memtable {
            Memtable::Sorted => MemtableKind::Sorted,
            Memtable::Skiplist => MemtableKind::SkipList,
            Memtable::Trie => MemtableKind::Trie,
        }
    }
}

/// How pairs are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// key, tab, value; 0x and hexadecimal digits for what is not printable
    Text,
    /// One JSON object a line; key_hex and value_hex for what is not UTF-8
    Jsonl,
    /// A header and two columns; UTF-8 only
    Csv,
    /// Hexadecimal digits, separated by a tab
    Hex,
}

#[derive(Debug, Args)]
pub struct Scan {
    /// Only keys that start with this
    #[arg(long, conflicts_with_all = ["start", "end"])]
    pub prefix: Option<String>,
    /// First key, included
    #[arg(long)]
    pub start: Option<String>,
    /// Last key, excluded
    #[arg(long)]
    pub end: Option<String>,
    /// Prefix, start and end are given as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// From the last key to the first
    #[arg(long)]
    pub reverse: bool,
    /// At most so many pairs
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Print only how many pairs there are
    #[arg(long, conflicts_with = "format")]
    pub count: bool,
    /// Values of 8 bytes are printed as the integers that they are
    #[arg(long)]
    pub int: bool,
    /// How pairs are printed
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Args)]
pub struct Compact {
    /// Only this keyspace
    #[arg(long, value_name = "NAME")]
    pub keyspace: Option<String>,
    /// Only keys that start with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// The prefix is given as hexadecimal digits
    #[arg(long, requires = "prefix")]
    pub hex: bool,
}

#[derive(Debug, Args)]
pub struct Import {
    /// A .csv, .tsv, .jsonl or .parquet file
    pub file: PathBuf,
    /// Columns that make the key
    #[arg(long, value_name = "COL[,COL...]", value_delimiter = ',')]
    pub key: Vec<String>,
    /// The column that is the value
    #[arg(long, value_name = "COL")]
    pub value: Option<String>,
    /// Rows of one commit
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
    pub batch_rows: u64,
    /// No progress bar and no summary
    #[arg(long)]
    pub quiet: bool,
    /// Print "committed ROWS" after each so many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub progress_every: Option<u64>,
    /// What each commit survives
    #[arg(long, value_enum, default_value = "buffered")]
    pub durability: Survives,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Columns key and value
    Parquet,
    /// Columns key and value, or key_hex and value_hex with --hex
    Csv,
    /// One JSON object a line
    Jsonl,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The file to write; its extension tells the format
    #[arg(required_unless_present = "format", conflicts_with = "output")]
    pub file: Option<PathBuf>,
    /// The format, where the file's extension does not tell it
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// The file to write, or - for standard output [default: -]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Hexadecimal digits in CSV, for what is not UTF-8
    #[arg(long)]
    pub hex: bool,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// No progress and no summary
    #[arg(long)]
    pub quiet: bool,
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Args)]
pub struct Stats {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// Only this keyspace [default: all]
    #[arg(long, value_name = "NAME")]
    pub keyspace: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write a picture to this file as well
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Simulate {
    /// A preset, or parameters as in T4/L4; repeatable [default: a choice of both]
    #[arg(long, value_name = "SCALING")]
    pub scaling: Vec<String>,
    /// uniform, zipfian, sequential, time-series, queue or overwrite [default: all]
    #[arg(long, value_name = "NAME[,NAME...]", value_delimiter = ',')]
    pub workload: Vec<Workload>,
    /// Keys that the workload is about
    #[arg(long, value_name = "N", default_value = "10M", value_parser = text::parse_count)]
    pub entries: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = text::parse_bytes)]
    pub value_bytes: u64,
    /// Bytes of a memtable
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = text::parse_bytes)]
    pub memtable_bytes: u64,
    /// Bytes at which a merge begins its next file
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = text::parse_bytes)]
    pub target_file_bytes: u64,
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
    /// Write a chart to this file as well
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
