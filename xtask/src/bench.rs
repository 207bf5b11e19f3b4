//! `cargo xtask bench`: builds the benchmarks for release and runs one.

use crate::setup;
use crate::shell::{built, cargo, command, find, run, say, target};

/// Builds with the engines that `--with NAME`, at the beginning, asks for, and
/// hands the other arguments on. An engine that this machine cannot build is left out.
///
/// # Errors
/// Where it cannot be built, or a run fails.
pub fn bench(mut arguments: &[&str]) -> Result<(), String> {
    let mut engines = Vec::new();
    while let ["--with", engine, rest @ ..] = arguments {
        engines.push(*engine);
        arguments = rest;
    }
    engines.retain(|engine| match lacking(engine) {
        Some(reason) => {
            say(&format!("{engine} is left out: {reason}"));
            false
        }
        None => true,
    });
    setup::rust_targets(&["wasm32-wasip1"])?;
    let mut build = cargo();
    build.args(["build", "--profile", "bench", "--package", "duramen-bench"]);
    if !engines.is_empty() {
        build.args(["--features", &engines.join(",")]);
    }
    run(&mut build)?;
    let mut program = command(built("release", "duramen-bench"));
    program.args(arguments);
    if !arguments.is_empty() && !arguments.contains(&"--directory") {
        program.arg("--directory").arg(target().join("bench"));
    }
    run(&mut program)
}

/// What an engine's build needs and this machine lacks.
fn lacking(engine: &str) -> Option<&'static str> {
    if engine != "rocksdb" || find("clang").is_some() {
        return None;
    }
    Some(
        "it is built with libclang; on Debian: apt-get install clang libclang-dev. It takes half an hour on two cores",
    )
}
