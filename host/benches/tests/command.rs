//! The program as it is called: processes for each engine, one of which is killed,
//! results in files, and a report of them.

use std::path::Path;
use std::process::Command;
use std::{env, fs, process};

/// Runs it with `arguments`; what it prints.
fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_duramen-bench"))
        .args(arguments)
        .arg("--directory")
        .arg(directory)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[test]
fn results_of_processes_become_a_page_and_a_document() {
    let directory = env::temp_dir().join(format!("duramen-bench-{}", process::id()));
    let document = directory.join("benchmarks.md");
    fs::create_dir_all(&directory).unwrap();
    let reopened = run(&directory, &["reopen", "--entries", "1000", "--log", "1", "--runs", "2"]);
    assert!(reopened.contains("reopen after a kill") && reopened.contains("±"), "{reopened}");
    run(&directory, &["memtable", "--entries", "1000", "--keys", "random"]);
    run(&directory, &["report", "--document", document.to_str().unwrap()]);
    let document = fs::read_to_string(document).unwrap();
    for text in ["## reopen", "cargo xtask bench reopen --entries 1000 --log 1 --runs 2\n", "| duramen |"] {
        assert!(document.contains(text), "{text} is not in:\n{document}");
    }
    assert!(!document.contains(directory.to_str().unwrap()));
    assert!(fs::read_to_string(directory.join("report.html")).unwrap().contains("</html>"));
    fs::remove_dir_all(directory).unwrap();
}
