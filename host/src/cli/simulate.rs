//! simulate: what compaction settings cost and bring, on a model of the tables.

use duramen::Scaling;
use duramen::compaction::simulate::{Outcome as Simulated, Simulation, Workload};
use serde_json::{Value, json};

use super::args::Simulate;
use super::report::size;
use super::svg::Svg;
use super::{Failure, Outcome, Result, bar};

/// What is compared where the caller names nothing, beside the presets.
const SWEEP: [&str; 5] = ["L10", "L4", "N", "T4", "T8"];

/// Steps of the progress bar for a run.
const STEPS: f64 = 100.0;

/// Width and height of a chart with its margins, and of those.
const CHART: (f64, f64) = (430.0, 300.0);
const MARGIN: f64 = 46.0;

/// A run of the model: the workload, the scaling and its name, and what came of it.
struct Row {
    workload: Workload,
    name: String,
    scaling: Scaling,
    outcome: Simulated,
}

pub fn simulate(simulate: &Simulate) -> Result<Outcome> {
    let rows = run(simulate)?;
    if simulate.json {
        println!("{}", Value::from(rows.iter().map(to_json).collect::<Vec<_>>()));
    } else {
        print!("{}", table(&rows));
    }
    if let Some(file) = &simulate.svg {
        std::fs::write(file, charts(&rows))?;
    }
    Ok(Outcome::Done)
}

fn run(simulate: &Simulate) -> Result<Vec<Row>> {
    let scalings = scalings(&simulate.scaling)?;
    let workloads = match simulate.workload.as_slice() {
        [] => Workload::ALL.to_vec(),
        some => some.to_vec(),
    };
    let steps = (workloads.len() * scalings.len()) as u64 * STEPS as u64;
    let bar = bar(steps, "{msg:28} [{bar:30}] {percent}%", simulate.quiet);
    let mut rows = Vec::new();
    for workload in workloads {
        for (name, scaling) in &scalings {
            bar.set_message(format!("{workload}, {name}"));
            let done = rows.len() as f64;
            let simulation = Simulation {
                scaling: scaling.clone(),
                workload,
                entries: simulate.entries,
                value_bytes: simulate.value_bytes,
                memtable_bytes: simulate.memtable_bytes,
                target_file_bytes: simulate.target_file_bytes,
                ..Simulation::default()
            };
            let outcome = simulation.run(|share| bar.set_position(((done + share) * STEPS) as u64))?;
            rows.push(Row { workload, name: name.clone(), scaling: scaling.clone(), outcome });
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// The scalings that the command line names, or the usual ones.
fn scalings(texts: &[String]) -> Result<Vec<(String, Scaling)>> {
    let usual = || SWEEP.iter().chain(&Scaling::PRESETS).map(ToString::to_string).collect();
    let texts: Vec<String> = if texts.is_empty() { usual() } else { texts.to_vec() };
    let parsed = texts.into_iter().map(|text| {
        let scaling = text.parse().map_err(|error: duramen::Error| Failure::Usage(error.to_string()))?;
        Ok((text, scaling))
    });
    parsed.collect()
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        if index == 0 || rows[index - 1].workload != row.workload {
            text.push_str(&format!(
                "{}{:<24}{:>7}  {:^12}  {:^20}  {:>7}{:>7}{:>7}  {:>10}\n",
                if index == 0 { "" } else { "\n" },
                row.workload,
                "writes",
                "runs ø max",
                "space ø max end",
                "merges",
                "moves",
                "drops",
                "largest"
            ));
        }
        text.push_str(&line(row));
    }
    text
}

fn line(Row { name, scaling, outcome, .. }: &Row) -> String {
    let parameters = scaling.to_string();
    let name = if *name == parameters { parameters } else { format!("{name} ({parameters})") };
    format!(
        "  {name:<22}{:>7.2}  {:>6.2}{:>6}  {:>6.2}{:>7.2}{:>7.2}  {:>7}{:>7}{:>7}  {:>10}\n",
        outcome.write_amplification(),
        outcome.runs_mean,
        outcome.runs_max,
        outcome.space_mean,
        outcome.space_max,
        outcome.space_settled(),
        outcome.merges,
        outcome.moves,
        outcome.drops,
        size(outcome.job_bytes_max)
    )
}

fn to_json(Row { workload, name, scaling, outcome }: &Row) -> Value {
    json!({
        "workload": workload.name(), "name": name, "scaling": scaling.to_string(),
        "write_amplification": outcome.write_amplification(),
        "runs_mean": outcome.runs_mean, "runs_max": outcome.runs_max,
        "space_mean": outcome.space_mean, "space_max": outcome.space_max,
        "space_settled": outcome.space_settled(),
        "bytes_put": outcome.bytes_put, "bytes_flushed": outcome.bytes_flushed,
        "bytes_merged": outcome.bytes_merged, "bytes_latest": outcome.bytes_latest,
        "bytes_settled": outcome.bytes_settled, "flushes": outcome.flushes, "merges": outcome.merges,
        "moves": outcome.moves, "drops": outcome.drops, "job_bytes_max": outcome.job_bytes_max,
    })
}

/// For each workload what is written against space, and against runs.
fn charts(rows: &[Row]) -> String {
    let mut svg = Svg::default();
    let mut y = 0.0;
    for workload in Workload::ALL {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.workload == workload).collect();
        if rows.is_empty() {
            continue;
        }
        svg.text((12.0, y + 20.0), "", workload.name());
        let points = |of: fn(&Simulated) -> f64| {
            let point = |row: &&Row| (of(&row.outcome), row.outcome.write_amplification(), row.name.clone());
            rows.iter().map(point).collect::<Vec<_>>()
        };
        chart(&mut svg, (0.0, y + 24.0), "space (bytes of tables / newest)", &points(|o| o.space_mean));
        chart(&mut svg, (CHART.0, y + 24.0), "runs that may hold a key", &points(|o| o.runs_mean));
        y += CHART.1 + 30.0;
    }
    svg.finish(2.0 * CHART.0, y)
}

/// Points with names: across, up, and the name.
fn chart(svg: &mut Svg, (left, top): (f64, f64), across: &str, points: &[(f64, f64, String)]) {
    let (width, height) = (CHART.0 - 2.0 * MARGIN, CHART.1 - 2.0 * MARGIN);
    let most = |of: fn(&(f64, f64, String)) -> f64| points.iter().map(of).fold(1.0, f64::max) * 1.1;
    let (x_max, y_max) = (most(|point| point.0), most(|point| point.1));
    // Neither space nor runs are below 1.
    let place = |x: f64, y: f64| {
        let (x, y) = ((x - 1.0).max(0.0) / (x_max - 1.0), y / y_max);
        (left + MARGIN + x * width, top + MARGIN + (1.0 - y) * height)
    };
    svg.rect((left + MARGIN, top + MARGIN), (width, height), "frame", 1.0, across);
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let (x, y) = (1.0 + (x_max - 1.0) * part, y_max * part);
        svg.line(place(1.0, y), place(x_max, y));
        let (label_x, label_y) = place(1.0, y);
        svg.text((label_x - 34.0, label_y + 4.0), "dim", &format!("{y:.1}"));
        let (label_x, label_y) = place(x, 0.0);
        svg.text((label_x - 8.0, label_y + 16.0), "dim", &format!("{x:.1}"));
    }
    svg.text((left + MARGIN, top + MARGIN - 8.0), "dim", "bytes written / put");
    svg.text((left + MARGIN, top + CHART.1 - 12.0), "dim", across);
    for (x, y, name) in points {
        let at = place(*x, *y);
        svg.dot(at, &format!("{name}: {x:.2}, {y:.2}"));
        svg.text((at.0 + 6.0, at.1 - 4.0), "", name);
    }
}
