//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use duramen::Durability;

const EXAMPLES: &str = "\
Examples:
  duramen --db data put user:42 ada
  duramen --db data get user:42
  duramen --db data scan --prefix user:
  duramen --db data import people.csv --key country,id --keyspace people
  duramen --db data export people.jsonl --keyspace people
  duramen --db data stats

The engine runs in a sandbox that reaches the directory and nothing else; with
--native it runs in this process. The files are the same.

Exit codes: 0 found or done, 1 not found, 2 usage, 3 the database or a file refused.";

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

const SCAN_EXAMPLES: &str = "\
Examples:
  duramen --db data scan --prefix user: --limit 10
  duramen --db data scan --start a --end b --reverse --format jsonl
  duramen --db data scan --prefix user: --count";

const EXPORT_EXAMPLES: &str = "\
Examples:
  duramen --db data export users.jsonl --keyspace users
  duramen --db data export users.parquet
  duramen --db data export --format csv --output - | head";

/// An embedded key-value database whose SSTables are Parquet files.
#[derive(Debug, Parser)]
#[command(name = "duramen", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    pub db: PathBuf,
    /// Run the engine in this process instead of the sandbox
    #[arg(long)]
    pub native: bool,
    /// Memory of the sandbox, in MiB [default: 256]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=4096))]
    pub memory: Option<u64>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a value under a key
    Put(Put),
    /// Print the value of a key
    Get(Get),
    /// Remove a key
    Delete(Delete),
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
    /// Write memtables to SSTables
    Flush,
    /// Merge each keyspace into one sorted run
    Compact,
    /// Read and check every byte of every live file
    Verify,
    /// Show sizes, levels and counters
    Stats(Stats),
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
    pub value: Option<String>,
    /// Take the value from a file, or from standard input with -
    #[arg(long, value_name = "FILE")]
    pub value_file: Option<PathBuf>,
    /// Key and value are given as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
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
    #[command(flatten)]
    pub keyspace: InKeyspace,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The key
    pub key: String,
    /// The key is given as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// What the commit survives
    #[arg(long, value_enum, default_value = "buffered")]
    pub durability: Survives,
    #[command(flatten)]
    pub keyspace: InKeyspace,
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
    /// How pairs are printed
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    #[command(flatten)]
    pub keyspace: InKeyspace,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
