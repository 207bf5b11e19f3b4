//! Goal: the `duramen` command does what its help says, sandboxed and native
//! alike, and answers bad input with a reason and an exit code. Method: run it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const FOUND: i32 = 0;
const NOT_FOUND: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

/// A database in a new directory, and the command on it.
struct Cli {
    directory: TempDir,
    native: bool,
}

/// How a run of the command ended.
struct Run {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Run {
    fn of(output: Output) -> Run {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Run { code: output.status.code().expect("an exit code"), stdout: output.stdout, stderr }
    }

    /// What it printed, if it ended well.
    fn text(self) -> String {
        assert_eq!(self.code, FOUND, "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// Asserts how it failed, and that it said why.
    fn fails(self, code: i32, reasons: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        for reason in reasons {
            assert!(self.stderr.contains(reason), "{reason:?} is not in: {}", self.stderr);
        }
    }
}

impl Cli {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn db(&self) -> PathBuf {
        self.path("db")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duramen"));
        command.arg("--db").arg(self.db()).args(self.native.then_some("--native")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Runs it with bytes on standard input.
    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Run {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // It may have refused before it read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        Run::of(child.wait_with_output().unwrap())
    }

    fn file(&self, name: &str, contents: &str) -> String {
        fs::write(self.path(name), contents).unwrap();
        self.path(name).display().to_string()
    }
}

/// Runs a test on a new directory, sandboxed and native.
fn on_both(test: impl Fn(&Cli)) {
    for native in [false, true] {
        test(&Cli { directory: tempfile::tempdir().unwrap(), native });
    }
}

#[test]
fn what_was_put_is_got_until_it_is_deleted() {
    on_both(|cli| {
        cli.run(&["put", "user:42", "ada"]).text();
        assert_eq!(cli.run(&["get", "user:42"]).text(), "ada");
        cli.run(&["put", "k", "elsewhere", "--keyspace", "other", "--durability", "sync"]).text();
        cli.run(&["get", "k"]).fails(NOT_FOUND, &[]);
        assert_eq!(cli.run(&["keyspaces"]).text(), "default\nother\n");
        cli.run(&["delete", "user:42"]).text();
        cli.run(&["get", "user:42"]).fails(NOT_FOUND, &[]);
    });
}

#[test]
fn wrong_command_lines_and_missing_databases_are_told_apart() {
    on_both(|cli| {
        cli.run(&["get", "k"]).fails(REFUSED, &["does not exist", "put, import and keyspace create"]);
        cli.run(&["merge", "k", "1"]).fails(REFUSED, &["does not exist"]);
        cli.run(&["delete", "--prefix", "k"]).fails(REFUSED, &["does not exist"]);
        cli.run_with(&["apply", "-"], b"{\"op\":\"delete\",\"key\":\"k\"}")
            .fails(REFUSED, &["does not exist"]);
        assert!(!cli.db().exists(), "a read creates nothing");
        cli.run(&["fetch", "k"]).fails(USAGE, &["fetch"]);
        cli.run(&["put", "0g", "00", "--hex"]).fails(USAGE, &["0g", "hexadecimal"]);
        assert!(!cli.db().exists(), "a wrong command line creates nothing");
        cli.run(&["put", "k", "v"]).text();
        cli.run(&["get", "k", "--keyspace", "nowhere"]).fails(REFUSED, &["nowhere", "there is default"]);
    });
}

#[test]
fn help_has_examples() {
    let help = |arguments: &[&str]| {
        let help = Command::new(env!("CARGO_BIN_EXE_duramen")).args(arguments).arg("--help").output();
        let text = Run::of(help.unwrap()).text();
        assert!(text.contains("Examples:"), "{arguments:?}: {text}");
        text
    };
    assert!(help(&[]).contains("Exit codes"));
    for command in ["put", "merge", "delete", "keyspace", "apply", "scan", "import", "export", "inspect"] {
        assert!(help(&[command]).contains(&format!("duramen --db data {command}")), "{command}");
    }
    assert!(help(&["simulate"]).contains("duramen simulate --scaling"));
}

#[test]
fn what_is_put_for_a_time_is_gone_after_it() {
    on_both(|cli| {
        cli.run(&["put", "brief", "v", "--ttl", "2s"]).text();
        let written = Instant::now();
        cli.run(&["put", "long", "v", "--ttl", "30d"]).text();
        cli.run(&["put", "ever", "v"]).text();
        if written.elapsed() < Duration::from_secs(1) {
            assert_eq!(cli.run(&["get", "brief"]).text(), "v");
        }
        thread::sleep(Duration::from_millis(2100).saturating_sub(written.elapsed()));
        cli.run(&["get", "brief"]).fails(NOT_FOUND, &[]);
        assert_eq!(cli.run(&["scan"]).text(), "ever\tv\nlong\tv\n");
        for time in ["2", "0s", "1w", "-1s", "never"] {
            let ttl = format!("--ttl={time}");
            cli.run(&["put", "k", "v", &ttl]).fails(USAGE, &["90s, 15m, 12h, 30d"]);
        }
        cli.run(&["get", "k"]).fails(NOT_FOUND, &[]);

        // A keyspace's own time to live, until it has another one.
        cli.run(&["keyspace", "create", "sessions", "--ttl", "1s"]).text();
        cli.run(&["put", "brief", "v", "--keyspace", "sessions"]).text();
        let written = Instant::now();
        cli.run(&["put", "long", "v", "--keyspace", "sessions", "--ttl", "1h"]).text();
        cli.run(&["keyspace", "create", "sessions", "--ttl", "never"]).text();
        cli.run(&["put", "ever", "v", "--keyspace", "sessions"]).text();
        thread::sleep(Duration::from_millis(1100).saturating_sub(written.elapsed()));
        assert_eq!(cli.run(&["scan", "--keyspace", "sessions"]).text(), "ever\tv\nlong\tv\n");
    });
}

#[test]
fn keyspaces_are_created_and_dropped() {
    on_both(|cli| {
        // A new database, too.
        assert!(
            cli.run(&["keyspace", "create", "hits", "--merge-operator", "i64.add"]).text().contains("hits")
        );
        assert!(cli.run(&["keyspace", "create", "hits"]).text().contains("already"));
        cli.run(&["keyspace", "create", "hits", "--merge-operator", "append"])
            .fails(REFUSED, &["i64.add", "cannot be changed"]);
        cli.run(&["keyspace", "create", "x", "--merge-operator", "i64.mul"])
            .fails(REFUSED, &["i64.mul", "i64.add, i64.min, i64.max, append"]);
        cli.run(&["keyspace", "create", "x", "--ttl", "soon"]).fails(USAGE, &["soon"]);
        cli.run(&["keyspace", "create", "x", "--memtable", "hash"])
            .fails(USAGE, &["sorted", "skiplist", "trie"]);
        let said = cli.run(&["keyspace", "create", "hits", "--memtable", "skiplist"]).text();
        assert!(said.contains("its memtable is set"), "{said}");
        cli.run(&["put", "k", "v"]).text();
        assert_eq!(cli.run(&["keyspaces"]).text(), "hits\ndefault\n");
        assert!(cli.run(&["keyspace", "drop", "default"]).text().contains("dropped"));
        cli.run(&["keyspace", "drop", "default"]).fails(NOT_FOUND, &["no keyspace default"]);
        assert_eq!(cli.run(&["keyspaces"]).text(), "hits\n");
        cli.run(&["get", "k"]).fails(REFUSED, &["no keyspace default"]);
        cli.run(&["keyspace", "create", "default"]).text();
        cli.run(&["get", "k"]).fails(NOT_FOUND, &[]);
    });
}

#[test]
fn operands_are_merged_and_integers_printed() {
    on_both(|cli| {
        cli.run(&["keyspace", "create", "hits", "--merge-operator", "i64.add"]).text();
        let hits = ["--keyspace", "hits"];
        let run = |arguments: &[&str]| cli.run(&[arguments, &hits].concat());
        for operand in ["40", "7", "-5"] {
            run(&["merge", "n", operand, "--int"]).text();
        }
        assert_eq!(run(&["get", "n", "--int"]).text(), "42\n");
        run(&["put", "m", "-1", "--int"]).text();
        run(&["merge", "00", "0200000000000000", "--hex"]).text();
        assert_eq!(run(&["get", "m", "--int"]).text(), "-1\n");
        assert_eq!(run(&["get", "00", "--hex", "--int"]).text(), "2\n");
        run(&["put", "text", "three"]).text();
        assert_eq!(run(&["scan", "--int"]).text(), "0x00\t2\nm\t-1\nn\t42\ntext\tthree\n");
        assert_eq!(
            run(&["scan", "--int", "--prefix", "n", "--format", "jsonl"]).text(),
            "{\"key\":\"n\",\"int\":42}\n"
        );
        assert_eq!(run(&["scan", "--int", "--prefix", "n", "--format", "csv"]).text(), "key,value\nn,42\n");
        assert_eq!(run(&["scan", "--prefix", "n"]).text(), "n\t0x2a00000000000000\n");

        run(&["merge", "n", "1"]).fails(REFUSED, &["\"n\"", "not a 64-bit integer"]);
        run(&["merge", "n", "1.5", "--int"]).fails(USAGE, &["1.5", "integer"]);
        run(&["merge", "n", "9223372036854775808", "--int"]).fails(USAGE, &["integer"]);
        run(&["get", "text", "--int"]).fails(REFUSED, &["5 bytes", "8"]);
        run(&["scan", "--int", "--format", "hex"]).fails(USAGE, &["--int"]);
        assert_eq!(run(&["get", "n", "--int"]).text(), "42\n");

        cli.run(&["keyspace", "create", "log", "--merge-operator", "append"]).text();
        cli.run(&["merge", "today", "a;", "--keyspace", "log"]).text();
        cli.run(&["merge", "today", "b;", "--keyspace", "log"]).text();
        assert_eq!(cli.run(&["get", "today", "--keyspace", "log"]).text(), "a;b;");
        cli.run(&["put", "k", "v"]).text();
        cli.run(&["merge", "k", "v"]).fails(REFUSED, &["\"k\"", "no merge operator"]);
        cli.run(&["merge", "k", "v", "--keyspace", "nowhere"]).fails(REFUSED, &["no keyspace nowhere"]);
    });
}

#[test]
fn ranges_are_deleted_at_once() {
    on_both(|cli| {
        let fill = || {
            let lines: String = ["a", "b", "ba", "bb", "c", "d"]
                .map(|key| format!("{{\"op\":\"put\",\"key\":\"{key}\",\"value\":\"1\"}}\n"))
                .concat();
            cli.run(&["keyspace", "create", "default"]).text();
            cli.run_with(&["apply", "-"], lines.as_bytes()).text();
        };
        let keys = || cli.run(&["scan"]).text().replace("\t1\n", " ");
        fill();
        let said = cli.run(&["delete", "--prefix", "b"]).text();
        assert_eq!(said, "deleted from keyspace default: all keys that start with b\n");
        assert_eq!(keys(), "a c d ");
        fill();
        let said = cli.run(&["delete", "--start", "b", "--end", "c"]).text();
        assert_eq!(said, "deleted from keyspace default: all keys from b on and below c\n");
        assert_eq!(keys(), "a c d ");
        let commits = |cli: &Cli| -> serde_json::Value {
            serde_json::from_str(&cli.run(&["stats", "--json"]).text()).unwrap()
        };
        fill();
        let before = commits(cli)["last_sequence"].as_u64().unwrap();
        cli.run(&["delete", "--hex", "--start", "6261", "--end", "64"]).text();
        assert_eq!(commits(cli)["last_sequence"], before + 1, "one commit");
        assert_eq!(keys(), "a b d ");
        for wrong in [
            &["delete"][..],
            &["delete", "--start", "a"],
            &["delete", "--end", "a"],
            &["delete", "a", "--prefix", "a"],
            &["delete", "--prefix", "a", "--start", "a", "--end", "b"],
            &["delete", "--start", "b", "--end", "a"],
        ] {
            cli.run(wrong).fails(USAGE, &[]);
        }
        assert_eq!(keys(), "a b d ");
        // It hides what is older, in SSTables as well, and nothing newer.
        cli.run(&["flush"]).text();
        cli.run(&["delete", "--prefix", ""]).text();
        cli.run(&["put", "b", "1"]).text();
        cli.run(&["flush"]).text();
        assert_eq!(keys(), "b ");
        // A compaction may have seen to it meanwhile.
        let said = cli.run(&["stats"]).text();
        let before = said.contains("1 entries, 0 tombstones, 1 range tombstones");
        assert!(before || said.contains("1 entries, 0 tombstones, 0 range tombstones"), "{said}");
        cli.run(&["compact"]).text();
        assert_eq!(keys(), "b ");
    });
}

#[test]
fn a_file_of_operations_is_all_or_nothing() {
    on_both(|cli| {
        cli.run(&["put", "old", "1"]).text();
        cli.run(&["keyspace", "create", "hits", "--merge-operator", "i64.add"]).text();
        let changes = cli.file(
            "changes.jsonl",
            "{\"op\":\"put\",\"key\":\"ada\",\"value\":\"36\"}\n\
             {\"op\":\"put\",\"key_hex\":\"00ff\",\"value_hex\":\"cafe\"}\n\n\
             {\"op\":\"merge\",\"key\":\"n\",\"int\":5,\"keyspace\":\"hits\"}\n\
             {\"op\":\"merge\",\"key\":\"n\",\"value_hex\":\"0200000000000000\",\"keyspace\":\"hits\"}\n\
             {\"op\":\"put\",\"key\":\"b\",\"value\":\"gone\"}\n\
             {\"op\":\"delete_range\",\"start\":\"b\",\"end\":\"c\"}\n\
             {\"op\":\"put\",\"key\":\"bb\",\"value\":\"stays\"}\n\
             {\"op\":\"delete\",\"key\":\"old\"}",
        );
        let sequence = || -> u64 {
            let stats: serde_json::Value =
                serde_json::from_str(&cli.run(&["stats", "--json"]).text()).unwrap();
            stats["last_sequence"].as_u64().unwrap()
        };
        let before = sequence();
        assert_eq!(cli.run(&["apply", &changes]).text(), "8 operations committed\n");
        assert_eq!(sequence(), before + 1, "one commit");
        let all = "00ff\tcafe\n616461\t3336\n6262\t7374617973\n";
        assert_eq!(cli.run(&["scan", "--format", "hex"]).text(), all);
        assert_eq!(cli.run(&["get", "n", "--int", "--keyspace", "hits"]).text(), "7\n");
        let merge = b"{\"op\":\"merge\",\"key\":\"n\",\"int\":1}\n";
        cli.run_with(&["apply", "-", "--keyspace", "hits", "--durability", "sync", "--quiet"], merge).text();
        assert_eq!(cli.run(&["get", "n", "--int", "--keyspace", "hits"]).text(), "8\n");

        // A bad line, wherever it is, leaves out the good ones.
        let long = "k".repeat((64 << 10) + 1);
        for (bad, reasons) in [
            ("{\"op\":\"put\",\"key\":\"k\"", &["line 3", "EOF"][..]),
            ("[]", &["line 3", "JSON object"]),
            ("{\"op\":\"increment\",\"key\":\"k\"}", &["line 3", "increment", "merge"]),
            ("{\"op\":\"put\",\"key\":\"k\"}", &["line 3", "value is missing"]),
            ("{\"op\":\"delete\",\"key_hex\":\"abc\"}", &["line 3", "key_hex"]),
            (
                "{\"op\":\"delete\",\"key\":\"k\",\"keyspace\":\"nowhere\"}",
                &["line 3", "no keyspace nowhere"],
            ),
            ("{\"op\":\"merge\",\"key\":\"k\",\"value\":\"v\"}", &["line 3", "no merge operator"]),
            (&format!("{{\"op\":\"delete\",\"key\":\"{long}\"}}"), &["line 3", "65537 bytes"]),
            (
                "{\"op\":\"merge\",\"key\":\"n\",\"value\":\"v\",\"keyspace\":\"hits\"}",
                &["line 3", "not a 64-bit integer"],
            ),
        ] {
            let put = "{\"op\":\"put\",\"key\":\"bad\",\"value\":\"v\"}\n";
            let file = cli.file("bad.jsonl", &format!("{put}\n{bad}\n{put}"));
            cli.run(&["apply", &file]).fails(REFUSED, &[&["bad.jsonl"], reasons].concat());
            cli.run_with(&["apply", "-"], format!("{put}\n{bad}").as_bytes())
                .fails(REFUSED, &[&["standard input"], reasons].concat());
        }
        cli.run(&["apply", "nowhere.jsonl"]).fails(REFUSED, &["nowhere.jsonl"]);
        assert_eq!(cli.run(&["scan", "--format", "hex"]).text(), all);
        assert_eq!(cli.run(&["get", "n", "--int", "--keyspace", "hits"]).text(), "8\n");
    });
}

#[test]
fn what_a_file_expects_must_be_so() {
    on_both(|cli| {
        cli.run(&["keyspace", "create", "default"]).text();
        let expect = |value: &str| format!("{{\"op\":\"expect\",\"key\":\"ada\",{value}}}\n");
        let put = |value: &str| format!("{{\"op\":\"put\",\"key\":\"ada\",\"value\":\"{value}\"}}\n");
        let apply = |lines: &[String]| cli.run_with(&["apply", "-"], lines.concat().as_bytes());
        let create = [expect("\"absent\":true"), put("35")];
        assert_eq!(apply(&create).text(), "1 operations committed\n");
        apply(&create).fails(NOT_FOUND, &["line 1", "key ada has the value 35, not no value"]);
        let raise = [put("one"), expect("\"value\":\"one\""), put("36")];
        apply(&raise).text();
        assert_eq!(cli.run(&["get", "ada"]).text(), "36");
        let swap = [expect("\"value\":\"36\""), put("37")];
        apply(&swap).text();
        apply(&swap)
            .fails(NOT_FOUND, &["standard input, line 1", "key ada", "37", "36", "nothing was changed"]);
        // Nothing of what came before it, either.
        let late = [put("38"), "{\"op\":\"expect\",\"key\":\"other\",\"value_hex\":\"ff\"}".to_owned()];
        apply(&late).fails(NOT_FOUND, &["line 2", "key other has no value, not the value 0xff"]);
        assert_eq!(cli.run(&["scan"]).text(), "ada\t37\n");
        // A file that only looks.
        assert_eq!(apply(&[expect("\"value\":\"37\"")]).text(), "0 operations committed\n");
        apply(&[expect("\"int\":37")]).fails(NOT_FOUND, &["key ada"]);
    });
}

#[test]
fn an_exported_empty_key_comes_in_again() {
    on_both(|cli| {
        cli.run(&["put", "", "nothing"]).text();
        cli.run(&["put", "k", ""]).text();
        let all = cli.run(&["scan", "--format", "hex"]).text();
        assert_eq!(all, "\t6e6f7468696e67\n6b\t\n");
        for name in ["dump.jsonl", "dump.parquet", "dump.csv", "hex.csv"] {
            let file = cli.path(name).display().to_string();
            let hex: &[&str] = if name == "hex.csv" { &["--hex"] } else { &[] };
            cli.run(&[&["export", &file], hex].concat()).text();
            cli.run(&["import", &file, "--keyspace", name]).text();
            assert_eq!(cli.run(&["scan", "--format", "hex", "--keyspace", name]).text(), all, "{name}");
        }
        // No key at all is not an empty one, and neither is a column without text.
        let null = cli.file("null.jsonl", "{\"key\":null,\"value\":\"v\"}\n");
        cli.run(&["import", &null, "--keyspace", "x"]).fails(REFUSED, &["line 1", "null"]);
        let empty = cli.file("empty.jsonl", "{\"id\":\"\",\"v\":1}\n");
        cli.run(&["import", &empty, "--key", "id", "--keyspace", "x"]).fails(REFUSED, &["line 1", "empty"]);
        assert_eq!(cli.run(&["scan", "--keyspace", "x", "--count"]).text(), "0\n");
    });
}

#[test]
fn any_bytes_go_in_and_come_out() {
    on_both(|cli| {
        let bytes: Vec<u8> = (0..=255).chain([b'\n', 0, 0xff]).collect();
        cli.run_with(&["put", "00ff0a", "--hex", "--value-file", "-"], &bytes).text();
        fs::write(cli.path("value"), &bytes).unwrap();
        let file = cli.path("value").display().to_string();
        cli.run(&["put", "text", "--value-file", &file]).text();
        assert_eq!(cli.run(&["get", "text"]).stdout, bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(cli.run(&["get", "00ff0a", "--hex"]).text().trim_end(), hex);
        assert_eq!(cli.run(&["scan", "--format", "hex", "--limit", "1"]).text(), format!("00ff0a\t{hex}\n"));

        // Out as JSON lines and in again, it is the same.
        let exported = cli.path("all.jsonl").display().to_string();
        cli.run(&["export", &exported]).text();
        cli.run(&["import", &exported, "--keyspace", "copy"]).text();
        let [first, second] = ["default", "copy"]
            .map(|keyspace| cli.run(&["scan", "--format", "hex", "--keyspace", keyspace]).text());
        assert_eq!(first, second);
        // CSV holds text alone, and says so.
        let exported = cli.path("all.csv").display().to_string();
        cli.run(&["export", &exported]).fails(REFUSED, &["not UTF-8", "jsonl"]);
        assert!(!Path::new(&exported).exists(), "half a file is left");
    });
}

#[test]
fn scans_have_bounds_directions_and_formats() {
    on_both(|cli| {
        for (key, value) in [("a", "1"), ("b", "2"), ("ba", "3"), ("bb", "say \"hi\""), ("c", "5")] {
            cli.run(&["put", key, value]).text();
        }
        let keys = |arguments: &[&str]| {
            let scanned = cli.run(&[&["scan"], arguments].concat()).text();
            scanned.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&[]), ["a", "b", "ba", "bb", "c"]);
        assert_eq!(keys(&["--prefix", "b"]), ["b", "ba", "bb"]);
        assert_eq!(keys(&["--prefix", "b", "--reverse", "--limit", "2"]), ["bb", "ba"]);
        assert_eq!(keys(&["--start", "b", "--end", "c"]), ["b", "ba", "bb"]);
        assert_eq!(cli.run(&["scan", "--prefix", "b", "--count"]).text(), "3\n");
        let line = cli.run(&["scan", "--start", "bb", "--end", "bc", "--format", "jsonl"]).text();
        assert_eq!(line, "{\"key\":\"bb\",\"value\":\"say \\\"hi\\\"\"}\n");
        let csv = cli.run(&["scan", "--start", "bb", "--end", "bc", "--format", "csv"]).text();
        assert_eq!(csv, "key,value\nbb,\"say \"\"hi\"\"\"\n");
        cli.run(&["scan", "--prefix", "a", "--start", "a"]).fails(USAGE, &["cannot be used with"]);
    });
}

#[test]
fn rows_become_pairs() {
    on_both(|cli| {
        let people =
            cli.file("people.csv", "country,id,name,age\nde,1,Ada,36\nde,2,\"Müller, G.\",\nfr,3,Zoé,4.50\n");
        cli.run(&["import", &people, "--key", "country,id", "--keyspace", "people"]).text();
        let scanned = cli.run(&["scan", "--keyspace", "people"]).text();
        assert_eq!(
            scanned,
            "de/1\t{\"name\":\"Ada\",\"age\":36}\n\
             de/2\t{\"name\":\"Müller, G.\",\"age\":null}\n\
             fr/3\t{\"name\":\"Zoé\",\"age\":4.50}\n"
        );
        let words = cli.file("words.tsv", "word\tmeaning\nhaus\thouse\nbaum\ttree\n");
        cli.run(&["import", &words, "--key", "word", "--value", "meaning", "--keyspace", "words", "--quiet"])
            .text();
        assert_eq!(cli.run(&["get", "baum", "--keyspace", "words"]).text(), "tree");
        let lines = cli.file(
            "lines.jsonl",
            "{\"k\": \"x\", \"v\": {\"deep\": [1, null]}, \"n\": 7}\n\n{\"k\": \"y\", \"n\": true}\n",
        );
        cli.run(&["import", &lines, "--key", "k", "--keyspace", "lines"]).text();
        let scanned = cli.run(&["scan", "--keyspace", "lines"]).text();
        assert_eq!(scanned, "x\t{\"v\":{\"deep\":[1,null]},\"n\":7}\ny\t{\"n\":true}\n");

        // A Parquet export is a table of pairs, and comes in again as it went out.
        let exported = cli.path("people.parquet").display().to_string();
        cli.run(&["export", &exported, "--keyspace", "people"]).text();
        cli.run(&["export", &exported, "--keyspace", "people"]).fails(REFUSED, &["exists", "--force"]);
        cli.run(&["import", &exported, "--keyspace", "again"]).text();
        let again = cli.run(&["scan", "--keyspace", "again"]).text();
        assert_eq!(again, cli.run(&["scan", "--keyspace", "people"]).text());
    });
}

#[test]
fn bad_rows_name_their_place_and_leave_their_batch_out() {
    on_both(|cli| {
        let csv: String =
            (0..30).map(|i| if i == 25 { "25,x,surplus\n".to_owned() } else { format!("{i},x\n") }).collect();
        let csv = cli.file("bad.csv", &format!("id,name\n{csv}"));
        cli.run(&["import", &csv, "--key", "id", "--batch-rows", "10"]).fails(
            REFUSED,
            &["bad.csv, line 27", "3 columns where the header has 2", "20 rows before were committed"],
        );
        assert_eq!(cli.run(&["scan", "--count"]).text(), "20\n");

        let cut = cli.file("cut.jsonl", "{\"k\": \"1\"}\n{\"k\": \"2\"\n");
        cli.run(&["import", &cut, "--key", "k", "--keyspace", "j"]).fails(REFUSED, &["cut.jsonl, line 2"]);
        let list = cli.file("list.jsonl", "[1]\n");
        cli.run(&["import", &list, "--key", "k", "--keyspace", "j"])
            .fails(REFUSED, &["line 1", "JSON object"]);
        let without = cli.file("without.jsonl", "{\"k\": \"1\"}\n{\"other\": \"2\"}\n");
        cli.run(&["import", &without, "--key", "k", "--keyspace", "j"])
            .fails(REFUSED, &["line 2", "no column k", "there are other"]);
        let null = cli.file("null.jsonl", "{\"k\": null}\n");
        cli.run(&["import", &null, "--key", "k", "--keyspace", "j"]).fails(REFUSED, &["line 1", "null"]);
        assert_eq!(cli.run(&["scan", "--keyspace", "j", "--count"]).text(), "0\n");

        cli.run(&["import", &csv, "--key", "nom"]).fails(USAGE, &["no column nom", "there are id, name"]);
        let odd = cli.file("odd.xml", "<x/>");
        cli.run(&["import", &odd, "--key", "k"]).fails(USAGE, &["odd.xml", ".csv, .tsv, .jsonl or .parquet"]);
        cli.run(&["import", "nowhere.csv", "--key", "k"]).fails(REFUSED, &["nowhere.csv"]);
        let garbage = cli.file("garbage.parquet", "PAR1 this is not Parquet PAR1");
        cli.run(&["import", &garbage, "--key", "k"]).fails(REFUSED, &["garbage.parquet"]);
    });
}

#[test]
fn what_is_too_long_is_refused_before_anything_is_written() {
    on_both(|cli| {
        cli.run(&["put", "k", "v"]).text();
        let key = "k".repeat(64 << 10);
        cli.run(&["put", &key, "v"]).text();
        cli.run(&["put", &format!("{key}k"), "v"]).fails(REFUSED, &["65537 bytes", "limit of 65536"]);
        let memory: &[&str] = if cli.native { &[] } else { &["--memory", "16"] };
        let most = if cli.native { 64 << 20 } else { 2 << 20 };
        let put = [memory, &["put", "long", "--value-file", "-"]].concat();
        cli.run_with(&put, &vec![b'x'; most]).text();
        cli.run_with(&put, &vec![b'y'; most + 1]).fails(REFUSED, &["over the limit", &most.to_string()]);
        assert_eq!(cli.run(&["get", "long"]).stdout.len(), most);

        let row = cli.file("row.csv", &format!("id,text\n1,short\n{key}k,long\n"));
        cli.run(&["import", &row, "--key", "id", "--keyspace", "rows"])
            .fails(REFUSED, &["row.csv, line 3", "65537 bytes"]);
        assert_eq!(cli.run(&["scan", "--keyspace", "rows", "--count"]).text(), "0\n");
    });
}

#[test]
fn upkeep_reports_and_draws() {
    on_both(|cli| {
        let rows: String = (0..5000).map(|i| format!("{i:05},{}\n", "text".repeat(10))).collect();
        let rows = cli.file("rows.csv", &format!("id,text\n{rows}"));
        let said = cli.run(&["import", &rows, "--key", "id", "--progress-every", "2000"]).text();
        assert_eq!(said, "committed 2000\ncommitted 4000\ncommitted 5000\n");
        cli.run(&["delete", "00001"]).text();
        assert!(cli.run(&["flush"]).text().contains("memtables flushed"));
        let stats = cli.run(&["stats"]).text();
        assert!(stats.contains("default\n") && stats.contains("level 0") && stats.contains('█'), "{stats}");
        assert!(cli.run(&["compact"]).text().contains("before"));
        let stats: serde_json::Value = serde_json::from_str(&cli.run(&["stats", "--json"]).text()).unwrap();
        let runs = stats["keyspaces"][0]["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 1, "{stats}");
        assert_eq!((&runs[0]["entries"], &runs[0]["tombstones"]), (&4999.into(), &0.into()), "{stats}");
        assert_eq!(runs[0]["range_tombstones"], 0, "{stats}");
        let trouble = (&stats["stall"], &stats["flush_failures"], stats["background_errors"].as_array());
        assert_eq!(trouble, (&serde_json::Value::Null, &0.into(), Some(&vec![])), "{stats}");
        let verified = cli.run(&["verify"]).text();
        assert!(verified.contains("4,999 entries") && verified.contains("no damage"), "{verified}");
    });
}

#[test]
fn runs_are_drawn_where_nobody_writes() {
    on_both(|cli| {
        for key in ["ada", "grace"] {
            cli.run(&["put", key, "1"]).text();
        }
        cli.run(&["flush"]).text();
        let drawn = cli.run(&["inspect"]).text();
        for part in ["default: ", "in 1 files, 1 runs", "L0 │▐█", "1 file, 2 entries", "ada to grace"] {
            assert!(drawn.contains(part), "{part:?} is not in {drawn}");
        }
        let svg = cli.path("runs.svg");
        let json = cli.run(&["inspect", "--json", "--svg", svg.to_str().unwrap()]).text();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let table = &json["keyspaces"][0]["runs"][0]["tables"][0];
        assert_eq!((&table["share_min"], &table["share_max"]), (&0.0.into(), &1.0.into()), "{json}");
        assert_eq!(table["key_max_hex"], "6772616365");
        assert!(fs::read_to_string(svg).unwrap().ends_with("</svg>\n"));
        cli.run(&["inspect", "--keyspace", "none"]).fails(REFUSED, &["there is no keyspace none"]);

        let writer = duramen::Db::open(cli.db(), duramen::Options::default()).unwrap();
        cli.run(&["inspect"]).fails(REFUSED, &["is open in", "cannot be looked at"]);
        drop(writer);
        cli.run(&["inspect"]).text();
    });
}

#[test]
fn scalings_are_compared_on_a_model() {
    let directory = tempfile::tempdir().unwrap();
    let svg = directory.path().join("chart.svg");
    let duramen = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duramen"));
        Run::of(command.arg("simulate").args(["--entries", "20k"]).args(arguments).output().unwrap())
    };
    let small =
        ["--memtable-bytes", "64KiB", "--target-file-bytes", "256KiB", "--workload", "overwrite,queue"];
    let both = ["--scaling", "balanced", "--scaling", "T8,T4/L4", "--svg", svg.to_str().unwrap()];
    let table = duramen(&[&small[..], &both].concat()).text();
    for part in ["overwrite ", "queue ", "  balanced (T4/L4) ", "  T8,T4/L4 "] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    assert!(fs::read_to_string(svg).unwrap().contains("prefers-color-scheme: dark"));
    let json = duramen(&[&small[..], &["--json", "--scaling", "L10", "--scaling", "T8"]].concat()).text();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(rows.len(), 4);
    let written = |row: usize| rows[row]["write_amplification"].as_f64().unwrap();
    assert!(written(0) > 1.5 * written(1), "{json}");
    duramen(&["--scaling", "X4"]).fails(USAGE, &["no scaling parameter"]);
    duramen(&["--workload", "none"]).fails(USAGE, &["there is no workload"]);
    duramen(&["--memtable-bytes", "8MB"]).fails(USAGE, &["8MiB"]);
}

#[test]
fn copies_are_databases_of_their_own() {
    on_both(|cli| {
        cli.run(&["put", "k", "first"]).text();
        cli.run(&["flush"]).text();
        let path = |name: &str| cli.path(name).display().to_string();
        let (copy, backups, restored) = (path("copy"), path("backups"), path("restored"));
        let at = |db: &str, arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_duramen"));
            Run::of(command.args(["--db", db]).args(arguments).output().unwrap())
        };
        assert!(cli.run(&["checkpoint", &copy]).text().contains("up to commit"));
        cli.run(&["checkpoint", &copy]).fails(REFUSED, &[&copy]);
        assert!(cli.run(&["backup", "create", &backups]).text().contains("backup 1:"));
        cli.run(&["put", "k", "second"]).text();
        assert!(cli.run(&["backup", "create", &backups]).text().contains("backup 2:"));
        cli.run(&["delete", "k"]).text();
        cli.run(&["compact"]).text();
        assert_eq!(at(&copy, &["get", "k"]).text(), "first");
        assert!(at(&copy, &["verify"]).text().contains("no damage"));

        let mut list = Command::new(env!("CARGO_BIN_EXE_duramen"));
        let list = Run::of(list.args(["backup", "list", &backups]).output().unwrap()).text();
        assert_eq!(list.lines().count(), 2, "{list}");
        assert!(cli.run(&["backup", "verify", &backups, "1"]).text().contains("no damage"));
        at(&restored, &["restore", &backups]).text();
        assert_eq!(at(&restored, &["get", "k"]).text(), "second");
        at(&restored, &["restore", &backups, "1"]).fails(REFUSED, &[&restored]);
        let earlier = path("earlier");
        cli.run(&["backup", "delete", &backups, "2"]).text();
        at(&earlier, &["restore", &backups, "2"]).fails(REFUSED, &["2"]);
        at(&earlier, &["restore", &backups]).text();
        assert_eq!(at(&earlier, &["get", "k"]).text(), "first");
        let mut get = Command::new(env!("CARGO_BIN_EXE_duramen"));
        Run::of(get.args(["get", "k"]).output().unwrap()).fails(USAGE, &["--db"]);
    });
}

#[test]
fn what_is_sound_in_a_damaged_database_is_rescued() {
    on_both(|cli| {
        // A page of keys is read where it has more than one.
        cli.run(&["put", "a", "first", "--keyspace", "one"]).text();
        cli.run(&["put", "c", "third", "--keyspace", "one"]).text();
        cli.run(&["flush"]).text();
        cli.run(&["put", "b", "second", "--keyspace", "two"]).text();
        cli.run(&["flush"]).text();
        let rescued = cli.path("rescued").display().to_string();
        assert!(cli.run(&["repair", &rescued]).text().contains("3 entries"));

        let table = fs::read_dir(cli.db().join("sst/1")).unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&table).unwrap();
        bytes[10] ^= 1;
        fs::write(&table, &bytes).unwrap();
        cli.run(&["get", "a", "--keyspace", "one"]).fails(REFUSED, &["corruption in sst/1/"]);
        let again = cli.path("again").display().to_string();
        let repaired = cli.run(&["repair", &again]);
        let said = String::from_utf8(repaired.stdout).unwrap();
        assert_eq!(repaired.code, NOT_FOUND, "{said}{}", repaired.stderr);
        assert!(said.contains("lost: sst/1/"), "{said}");
        assert_eq!(fs::read(&table).unwrap(), bytes, "the damaged database was changed");
        let mut get = Command::new(env!("CARGO_BIN_EXE_duramen"));
        let get = get.args(["--db", &again, "get", "b", "--keyspace", "two"]);
        assert_eq!(Run::of(get.output().unwrap()).text(), "second");
    });
}

#[test]
fn directories_that_are_something_else_are_left_alone() {
    on_both(|cli| {
        fs::create_dir(cli.db()).unwrap();
        fs::write(cli.db().join("thesis.tex"), "precious").unwrap();
        cli.run(&["put", "k", "v"]).fails(REFUSED, &["database", "thesis.tex"]);
        let names: Vec<_> = fs::read_dir(cli.db()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["thesis.tex"]);
        fs::remove_dir_all(cli.db()).unwrap();

        cli.run(&["put", "k", "v"]).text();
        let lock = fs::File::open(cli.db().join("LOCK")).unwrap();
        lock.lock().unwrap();
        cli.run(&["get", "k"]).fails(REFUSED, &["db", "open"]);
        drop(lock);

        // Both slots of CURRENT as a program to come might write them.
        let current = fs::read(cli.db().join("CURRENT")).unwrap();
        let mut newer = current.clone();
        for slot in newer.chunks_mut(4096).filter(|slot| slot[0] != 0) {
            slot[8] = 9;
            let crc = crc32fast::hash(&slot[..40]);
            slot[40..44].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(cli.db().join("CURRENT"), &newer).unwrap();
        cli.run(&["get", "k"]).fails(REFUSED, &["format version 9", "newer"]);
        assert_eq!(fs::read(cli.db().join("CURRENT")).unwrap(), newer);
        fs::write(cli.db().join("CURRENT"), &current).unwrap();
        assert_eq!(cli.run(&["get", "k"]).text(), "v");
    });
}

#[test]
fn a_flipped_bit_is_found_with_file_and_place() {
    on_both(|cli| {
        for key in ["a", "b"] {
            cli.run(&["put", key, &"value ".repeat(50)]).text();
        }
        cli.run(&["flush"]).text();
        cli.run(&["put", "tail", "in the WAL"]).text();
        let mut files = 0;
        for dir in ["", "manifest", "wal", "sst/1"] {
            for entry in fs::read_dir(cli.db().join(dir)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() && !path.ends_with("LOCK") {
                    files += 1;
                    check_damage(cli, path.strip_prefix(cli.db()).unwrap());
                }
            }
        }
        assert!(files >= 4, "{files} files");
    });
}

/// Flips a bit of a file in a copy of the database.
fn check_damage(cli: &Cli, file: &Path) {
    let copy = Cli { directory: tempfile::tempdir().unwrap(), native: cli.native };
    copy_dir(&cli.db(), &copy.db());
    let mut bytes = fs::read(copy.db().join(file)).unwrap();
    let at = match file == Path::new("CURRENT") {
        // The slot with the higher generation is the live one.
        true => (0..2).map(|slot| slot * 4096).max_by_key(|at| bytes[at + 16]).unwrap() + 20,
        false => bytes.len() / 2,
    };
    bytes[at] ^= 4;
    fs::write(copy.db().join(file), bytes).unwrap();
    let run = copy.run(&["verify"]);
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
    let name = file.to_str().unwrap();
    if name == "CURRENT" && run.code == FOUND {
        // The slot before is as good while what it names is still there.
        return;
    }
    assert_eq!(run.code, REFUSED, "{name}: {said}");
    assert!(said.contains(name), "{name}: {said}");
    assert!(said.contains("offset") || said.contains("at byte"), "{name}: {said}");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Kills imports with SIGKILL, again and again, over the same database.
#[test]
fn what_an_import_acknowledged_survives_its_kill() {
    on_both(|cli| {
        let rows: String = (0..200_000).map(|i| format!("{i:06},{}\n", i * 7)).collect();
        let rows = cli.file("rows.csv", &format!("id,n\n{rows}"));
        for round in 0..4_u64 {
            let keyspace = format!("round {round}");
            let import = ["import", &rows, "--key", "id", "--value", "n", "--keyspace", &keyspace];
            let often = ["--batch-rows", "37", "--progress-every", "37"];
            let mut child = cli.command(&[&import[..], &often].concat()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut acknowledged = 0;
            let mut killed = false;
            for line in lines {
                // What was in the pipe at the kill counts as well.
                acknowledged = line.unwrap().strip_prefix("committed ").unwrap().parse::<u64>().unwrap();
                if acknowledged > 1000 * (round + 1) * (round + 1) && !killed {
                    child.kill().unwrap();
                    killed = true;
                }
            }
            assert!(!child.wait().unwrap().success() && killed, "the import was not killed");
            let count: u64 =
                cli.run(&["scan", "--keyspace", &keyspace, "--count"]).text().trim_end().parse().unwrap();
            assert!(count >= acknowledged, "{acknowledged} rows were acknowledged, {count} are there");
            assert_eq!(count % 37, 0, "a batch is there in part");
            let last = cli.run(&["scan", "--keyspace", &keyspace, "--reverse", "--limit", "1"]).text();
            assert_eq!(last, format!("{:06}\t{}\n", count - 1, (count - 1) * 7), "a gap before the end");
            assert!(cli.run(&["verify"]).text().contains("no damage"));
        }
    });
}
