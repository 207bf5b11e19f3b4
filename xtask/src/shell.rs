//! Where things are, and how other programs are run.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map(Path::to_owned).unwrap_or(here)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into()))
}

/// A program built by cargo in `profile`'s directory.
pub fn built(profile: &str, name: &str) -> PathBuf {
    target().join(profile).join(name).with_extension(env::consts::EXE_EXTENSION)
}

/// A program to be run in the workspace's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or("cargo".into()))
}

/// Says what runs, runs it, and fails if it fails.
pub fn run(command: &mut Command) -> Result<(), String> {
    say(&format!("$ {}", shown(command)));
    let status = command.status().map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

/// Standard output of a program that does its work quietly; `None` if it does
/// not start or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program of this name on the PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let name = Path::new(name).with_extension(env::consts::EXE_EXTENSION);
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(&name)).find(|file| file.is_file())
}

/// Prints a line at once, before what a program prints by itself.
pub fn say(line: &str) {
    println!("{line}");
    // A reader that went away takes nothing from the work.
    let _ = std::io::stdout().flush();
}

/// Prints a heading.
pub fn heading(text: &str) {
    say(&format!("\n== {text}"));
}

/// `73 s` or `4 min 05 s`.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..100 => format!("{s} s"),
        s => format!("{} min {:02} s", s / 60, s % 60),
    }
}

/// Reads a text file of the workspace.
pub fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The command as one would type it, with the paths below the root shortened.
fn shown(command: &Command) -> String {
    let root = format!("{}{}", root().display(), std::path::MAIN_SEPARATOR);
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", name.display(), value.display()));
        }
    }
    let program = Path::new(command.get_program());
    let cargo = program.file_stem() == Some(OsStr::new("cargo"));
    words.push(if cargo { "cargo".to_owned() } else { program.display().to_string() });
    words.extend(command.get_args().map(|word| word.display().to_string()));
    words.iter().map(|word| word.replace(&root, "")).collect::<Vec<_>>().join(" ")
}
