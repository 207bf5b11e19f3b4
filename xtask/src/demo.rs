//! `cargo xtask demo`: builds the `duramen` command, then has the program
//! `examples/src/bin/demo.rs` show it at work.

use std::path::{Path, PathBuf};

use crate::setup::{self, Missing};
use crate::shell::{built, cargo, command, heading, root, run, say, target};

/// Builds for release and shows everything.
pub fn run_release() -> Result<(), String> {
    heading("Build");
    say("The engine is compiled to WebAssembly, made a component and put inside the `duramen`");
    say("command, beside wasmtime. The first build takes minutes, later ones seconds.");
    build(&["--release"])?;
    let python = setup::python().map_err(|missing| match missing {
        Missing::Needs(what) => say(&format!("DuckDB will not be asked at the end: that needs {what}.")),
        Missing::Failed(why) => say(&format!("DuckDB will not be asked at the end: {why}")),
    });
    // Left there for the user to go on with.
    show("release", &target().join("demo/flights"), python.ok().as_deref())
}

/// Builds and shows the same in the dev profile; the engine inside the sandbox
/// is the optimised one there, too. Returns the database.
pub fn run_dev() -> Result<PathBuf, String> {
    let database = target().join("test/flights");
    build(&[])?;
    show("debug", &database, None)?;
    Ok(database)
}

fn build(profile: &[&str]) -> Result<(), String> {
    setup::rust_targets(&["wasm32-wasip1"])?;
    run(cargo()
        .args(["build", "--package", "duramen-host", "--package", "duramen-examples"])
        .args(["--bin", "duramen", "--bin", "demo"])
        .args(profile))
}

fn show(profile: &str, database: &Path, python: Option<&Path>) -> Result<(), String> {
    let mut demo = command(built(profile, "demo"));
    demo.arg(built(profile, "duramen")).arg(root().join("examples/data")).arg(database);
    demo.args(python);
    run(&mut demo)
}
