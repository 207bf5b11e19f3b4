//! `cargo xtask test`: every suite, one after another, and a table at the end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::demo;
use crate::setup::{self, Missing, TARGETS};
use crate::shell::{built, cargo, command, find, heading, root, run, say, seconds, target};

struct Suite {
    name: &'static str,
    what: &'static str,
    needs: &'static str,
    run: fn() -> Result<(), Missing>,
}

/// In the order they run: what fails most often, and is built soonest, first.
const SUITES: &[Suite] = &[
    Suite {
        name: "native",
        what: "unit, behaviour, model and crash tests of engine, host and examples",
        needs: "",
        run: native,
    },
    Suite {
        name: "schedules",
        what: "threads of the engine in thousands of orders, under shuttle",
        needs: "",
        run: schedules,
    },
    Suite {
        name: "instructions",
        what: "instructions of puts, gets, scans and the inner loops: at most 5 % off",
        needs: "valgrind, x86-64 with AVX2",
        run: instructions,
    },
    Suite { name: "builds", what: "the engine for every WebAssembly target", needs: "", run: builds },
    Suite {
        name: "wasi",
        what: "the engine under WASI in wasmtime, and over a directory that fails (wasi-common)",
        needs: "",
        run: wasi,
    },
    Suite { name: "node", what: "the engine as plain WebAssembly in Node", needs: "node", run: node },
    Suite {
        name: "browser",
        what: "the same in headless Chromium",
        needs: "chromium, chromedriver",
        run: browser,
    },
    Suite { name: "examples", what: "every numbered example runs", needs: "", run: examples },
    Suite { name: "demo", what: "the demo and its checks, in the dev profile", needs: "", run: demo },
    Suite {
        name: "python",
        what: "pyarrow and DuckDB read from the SSTables what the engine answers",
        needs: "python3, python3-venv",
        run: python,
    },
];

enum Outcome {
    Passed,
    Failed(String),
    Skipped(&'static str),
}

/// Prints the suites.
pub fn list() {
    for suite in SUITES {
        let needs = if suite.needs.is_empty() { String::new() } else { format!(" (needs {})", suite.needs) };
        println!("{:10} {}{needs}", suite.name, suite.what);
    }
}

/// Runs the suites of these names, or all.
///
/// # Errors
/// If any failed, after all have run.
pub fn run_suites(names: &[&str]) -> Result<(), String> {
    if let Some(unknown) = names.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        return Err(format!("there is no suite {unknown}; `cargo xtask test --list` names them"));
    }
    setup::rust_targets(TARGETS)?;
    let chosen = SUITES.iter().filter(|suite| names.is_empty() || names.contains(&suite.name));
    let results: Vec<_> = chosen.map(|suite| (suite, run_suite(suite))).collect();

    heading("Suites");
    let mut count = [0; 3];
    for (suite, (outcome, time)) in &results {
        let (column, text) = match outcome {
            Outcome::Passed => (0, "passed".to_owned()),
            Outcome::Failed(why) => (1, format!("FAILED: {}", why.lines().next().unwrap_or_default())),
            Outcome::Skipped(needs) => (2, format!("skipped: needs {needs}")),
        };
        count[column] += 1;
        say(&format!("{:10} {:>12}  {text}", suite.name, seconds(*time)));
    }
    let [passed, failed, skipped] = count;
    say(&format!("\n{passed} passed, {failed} failed, {skipped} skipped"));
    if failed == 0 { Ok(()) } else { Err("not every suite passed".to_owned()) }
}

fn run_suite(suite: &Suite) -> (Outcome, Duration) {
    heading(&format!("{}: {}", suite.name, suite.what));
    let start = Instant::now();
    let outcome = match (suite.run)() {
        Ok(()) => Outcome::Passed,
        Err(Missing::Needs(what)) => Outcome::Skipped(what),
        Err(Missing::Failed(why)) => Outcome::Failed(why),
    };
    let time = start.elapsed();
    say(&match &outcome {
        Outcome::Passed => format!("-- {} passed in {}", suite.name, seconds(time)),
        Outcome::Failed(why) => format!("-- {} FAILED after {}: {why}", suite.name, seconds(time)),
        Outcome::Skipped(needs) => format!("-- {} skipped: needs {needs}", suite.name),
    });
    (outcome, time)
}

fn native() -> Result<(), Missing> {
    Ok(run(cargo().args(["test", "--no-fail-fast"]))?)
}

fn schedules() -> Result<(), Missing> {
    Ok(run(cargo().args(["test", "--package", "duramen", "--features", "shuttle", "--test", "schedules"]))?)
}

fn instructions() -> Result<(), Missing> {
    // Others take other ways through checksums and copies.
    #[cfg(target_arch = "x86_64")]
    let usual = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(not(target_arch = "x86_64"))]
    let usual = false;
    if !usual || find("valgrind").is_none() {
        return Err(Missing::Needs("valgrind, on x86-64 with AVX2"));
    }
    Ok(run(cargo().args(["run", "--quiet", "--release", "--package", "duramen-loops"]))?)
}

fn builds() -> Result<(), Missing> {
    let component = ["--package", "duramen-component"];
    // The plain core module, for hosts that know no components.
    run(cargo().arg("build").args(component).args(["--no-default-features", "--target", "wasm32-wasip1"]))?;
    run(cargo().arg("check").args(component).args(["--target", "wasm32-wasip2"]))?;
    Ok(run(cargo().args(["check", "--package", "duramen", "--target", "wasm32-unknown-unknown"]))?)
}

fn wasi() -> Result<(), Missing> {
    let tests = ["test", "--package", "wasm-tests", "--no-fail-fast"];
    run(cargo().args(tests))?;
    run(cargo().args(["build", "--package", "wasm-tests", "--bin", "wasi-runner"]))?;
    Ok(run(cargo()
        .args(tests)
        .args(["--test", "engine", "--target", "wasm32-wasip1"])
        .env("CARGO_TARGET_WASM32_WASIP1_RUNNER", built("debug", "wasi-runner")))?)
}

fn node() -> Result<(), Missing> {
    setup::node()?;
    Ok(run(&mut bindgen_tests()?)?)
}

fn browser() -> Result<(), Missing> {
    let driver = setup::chromedriver()?;
    Ok(run(bindgen_tests()?
        .env("CHROMEDRIVER", driver)
        .env("WASM_BINDGEN_USE_BROWSER", "1")
        .env("WASM_BINDGEN_TEST_TIMEOUT", "300"))?)
}

/// The tests that run in JavaScript's hosts.
fn bindgen_tests() -> Result<std::process::Command, Missing> {
    let runner = setup::wasm_bindgen_runner()?;
    let mut tests = cargo();
    tests
        .args(["test", "--package", "wasm-tests", "--target", "wasm32-unknown-unknown", "--no-fail-fast"])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner);
    Ok(tests)
}

fn examples() -> Result<(), Missing> {
    run(cargo().args(["build", "--package", "duramen-examples", "--bins"]))?;
    let programs = numbered_programs(&root().join("examples/src/bin"))?;
    for program in &programs {
        run(&mut command(built("debug", program)))?;
    }
    if programs.is_empty() {
        return Err(Missing::Failed("examples/src/bin has no numbered program".to_owned()));
    }
    Ok(())
}

/// Names of the programs in `directory` whose names begin with a digit, in order.
fn numbered_programs(directory: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.path().file_stem()?.to_str().map(str::to_owned))
        .filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
        .collect();
    names.sort();
    Ok(names)
}

fn demo() -> Result<(), Missing> {
    Ok(demo::run_dev().map(drop)?)
}

/// Imports over the demo's keyspace once more and deletes some of it, so that
/// the SSTables hold several versions and tombstones; then compares what the
/// engine exports with what others read.
fn python() -> Result<(), Missing> {
    let python = setup::python()?;
    let database = target().join("test/flights");
    if !database.is_dir() {
        demo::run_dev()?;
    }
    let duramen = |arguments: &[&str]| -> Result<(), String> {
        run(command(built("debug", "duramen")).arg("--db").arg(&database).args(arguments))
    };
    let flights = root().join("examples/data/flights.parquet").display().to_string();
    duramen(&["import", &flights, "--keyspace", "flights", "--key", "carrier,time_hour,flight"])?;
    duramen(&["delete", "--keyspace", "flights", "UA/2013-01-01T10:00:00Z/1545"])?;
    duramen(&["flush"])?;
    let exported = target().join("test/flights.jsonl").display().to_string();
    duramen(&["export", "--keyspace", "flights", "--format", "jsonl", "--force", "--output", &exported])?;

    let example = |name: &str, result: &str| -> Result<(), String> {
        let program = root().join("examples/python").join(name);
        run(command(&python).arg(program).arg(&database).arg(result))
    };
    example("check.py", &exported)?;
    Ok(example("flights.py", &target().join("test/delays.png").display().to_string())?)
}
