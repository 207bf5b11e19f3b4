//! The project's own commands; `cargo xtask --help` lists them.
//!
//! They install what they need where that is possible without rights on the
//! machine, into `target/`, and say what they do.

mod bench;
mod demo;
mod setup;
mod shell;
mod soak;
mod suites;

use std::process::ExitCode;

const HELP: &str = "\
The project's own commands.

Usage: cargo xtask COMMAND

Commands:
  demo                 Build the `duramen` command with the engine as a WebAssembly
                       component inside, and show it at work on a year of flights
  test                 Run every suite; what this machine lacks is skipped by name
  test --list          Name the suites and what they need
  test --only NAME     Run one suite; may be given more than once
  bench NAME           Measure, beside other engines; `bench --list` and `bench --help` say
                       what there is
  soak                 Run the crash suites with new seeds until interrupted, and fill a
                       database of 5 GiB in a sandbox of 256 MiB
  soak ROUNDS          The same for so many rounds of ten minutes
  help                 Print this text

What is missing and can be had without rights on the machine is installed first:
Rust targets by rustup; wasm-bindgen's test runner in target/tools; pyarrow, DuckDB
and matplotlib in target/venv.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["bench", arguments @ ..] => bench::bench(arguments),
        [] | ["help" | "--help" | "-h"] | [_, "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["demo"] => demo::run_release(),
        ["soak"] => soak::soak(None),
        ["soak", rounds] => match rounds.parse() {
            Ok(rounds) => soak::soak(Some(rounds)),
            Err(_) => Err(format!("`soak` takes a number of rounds, not {rounds}")),
        },
        ["test", "--list"] => {
            suites::list();
            Ok(())
        }
        ["test", filters @ ..] => only(filters).and_then(|names| suites::run_suites(&names)),
        _ => Err(format!("no such command: {}\n\n{HELP}", arguments.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nxtask: {}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The names in `--only NAME`, repeated.
fn only<'a>(filters: &[&'a str]) -> Result<Vec<&'a str>, String> {
    filters
        .chunks(2)
        .map(|pair| match pair {
            ["--only", name] => Ok(*name),
            _ => Err(format!("`test` knows --list and --only NAME, not {}", pair.join(" "))),
        })
        .collect()
}
