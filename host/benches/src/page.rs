//! The page: charts as SVG, tables beneath them, in one file that needs no other.

use std::fmt::Write as _;

use crate::publish::{CONDITIONS, PROFILED, pairs, profiles, tally, target_lines, versions};
use crate::report::{Latencies, PERCENTILES, Report, Row, shown};
use crate::results::Results;
use crate::targets::Verdict;

/// Colours that people who see few of them can tell apart (Okabe and Ito), darker or
/// lighter as the background asks for.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1f2328; --dim: #59636e; --line: #d1d9e0; --back: #fff; --card: #f6f8fa;
  --good: #00695c; --bad: #b3261e;
  --duramen: #0072b2; --sandbox: #3f9fd8; --rocksdb: #b87a00; --fjall: #d55e00; --redb: #00825f;
  --sqlite: #b0568f; --lmdb: #807400; --tonbo: #6a51a3; --machine: #59636e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d; --back: #0d1117;
  --card: #151b23; --good: #4fc3a1; --bad: #ff8a80;
  --duramen: #4aa8ff; --sandbox: #9ad4f7; --rocksdb: #f0b840; --fjall: #ff8248; --redb: #35c99b;
  --sqlite: #e3a1c6; --lmdb: #ddd04a; --tonbo: #b9a3f5; --machine: #9198a1; } }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 0 0 .25rem; }
p { max-width: 44rem; } code { font-size: .9em; overflow-wrap: anywhere; }
.cards { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: .5rem; }
figcaption { color: var(--dim); font-size: .8rem; }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .dim { fill: var(--dim); } svg line { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 2; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back); }
.text th, .text td { text-align: left; white-space: normal; padding: .25rem .4rem; }
.met { color: var(--good); font-weight: 600; } .missed { color: var(--bad); font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; font-size: .85rem; }
.legend svg { display: inline-block; width: 28px; height: 10px; vertical-align: middle; margin-right: .3rem; }
";

/// Width of every chart, in its own units: those of a small phone.
const WIDTH: f64 = 340.0;

/// How lines are dashed, so that colour is not all that tells them apart.
const DASHES: [&str; 8] = ["", "6 2", "2 2", "8 2 2 2", "1 3", "4 4", "10 3", "3 1"];

/// The whole page.
pub fn html(all: &[Results], first: &Results, verdicts: &[Verdict]) -> String {
    let mut body = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(body, "<h1>Duramen: benchmarks</h1>");
    body += &text_table(&pairs("machine", "", &first.machine));
    body += &text_table(&pairs("engine", "built from", &versions(all)));
    CONDITIONS.iter().for_each(|paragraph| body += &format!("<p>{}</p>\n", escaped(paragraph)));
    let _ = writeln!(
        body,
        "<h2>Targets</h2>\n<p>{}.</p>\n{}",
        tally(verdicts),
        text_table(&target_lines(verdicts))
    );
    let profiles = profiles(verdicts);
    if !profiles.is_empty() {
        let _ = writeln!(body, "<p>{}</p>", escaped(PROFILED));
    }
    for (name, profile) in profiles {
        let _ = writeln!(body, "<p><b>{}</b>: {}</p>", escaped(&name), escaped(profile));
    }
    all.iter().for_each(|results| section(&mut body, results, first));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Duramen: benchmarks</title>\n<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
}

fn section(body: &mut String, results: &Results, first: &Results) {
    let report = &results.report;
    let _ = writeln!(body, "<h2>{}</h2>", escaped(&results.name));
    let _ = writeln!(body, "<p><code>cargo xtask bench {}</code></p>", escaped(&results.command));
    if results.machine != first.machine {
        *body += &text_table(&pairs("another machine", "", &results.machine));
    }
    if let Some(base) = report.baseline() {
        let base = &report.subjects()[base];
        let rows = report.rows().iter().filter(|row| less_is_better(row));
        cards(
            body,
            &format!("Times as good as {base}: longer is better"),
            rows.filter_map(|row| bars(report, row)),
        );
    }
    let growth = growth(report);
    let latencies: Vec<String> = report.rows().iter().filter_map(|row| latency(report, row)).collect();
    if !growth.is_empty() || !latencies.is_empty() {
        *body += &legend(report);
    }
    cards(body, "Cost against the number of entries", growth.into_iter());
    cards(body, "Latencies", latencies.into_iter());
    *body += &table(&report.figures(), "");
    if report.latencies().len() > 1 {
        let latencies = table(&report.latencies(), "");
        let _ = writeln!(body, "<details><summary>Latencies in figures</summary>\n{latencies}</details>");
    }
}

fn cards(body: &mut String, heading: &str, cards: impl Iterator<Item = String>) {
    let cards: String = cards.collect();
    if !cards.is_empty() {
        let _ = writeln!(body, "<h3>{}</h3>\n<div class=\"cards\">\n{cards}</div>", escaped(heading));
    }
}

fn less_is_better(row: &Row) -> bool {
    ["ns", "us", "ms", "s", "MB", "MiB"].contains(&row.unit.as_str()) || row.name == "write amplification"
}

/// A bar for each subject: how many times as good as the baseline, to the left where
/// it is worse.
fn bars(report: &Report, row: &Row) -> Option<String> {
    const LABELS: f64 = 56.0;
    const STEP: f64 = 17.0;
    let base = row.cells[report.baseline()?].median().filter(|base| *base > 0.0)?;
    let ratios: Vec<(&String, f64, f64)> = (report.subjects().iter().zip(&row.cells))
        .filter_map(|(name, cell)| Some((name, cell.median().filter(|value| *value > 0.0)?)))
        .map(|(name, value)| (name, value, base / value))
        .collect();
    if ratios.len() < 2 {
        return None;
    }
    // Powers of two, so that half as good is as long as twice as good.
    let reach = ratios.iter().map(|(_, _, ratio)| ratio.log2().abs()).fold(1.0, f64::max);
    let (left, right) = (LABELS + 4.0, WIDTH - 4.0);
    let (middle, scale) = ((left + right) / 2.0, (right - left) / 2.0 / reach);
    let height = STEP * ratios.len() as f64;
    let mut svg = String::new();
    let _ = write!(svg, r#"<line x1="{middle:.1}" y1="0" x2="{middle:.1}" y2="{height:.1}"/>"#);
    for (index, (name, value, ratio)) in ratios.iter().enumerate() {
        let (y, end) = (STEP * index as f64, middle + ratio.log2() * scale);
        let (x, width) = (middle.min(end), (end - middle).abs().max(1.0));
        let _ = write!(
            svg,
            r#"<text x="0" y="{:.1}">{name}</text><rect x="{x:.1}" y="{:.1}" width="{width:.1}" height="11" rx="2" fill="var(--{name})"><title>{name}: {} {}</title></rect>"#,
            y + 12.0,
            y + 3.0,
            shown(*value),
            escaped(&row.unit)
        );
        // On the side that the bar leaves free.
        let (x, anchor) = if *ratio >= 1.0 { (middle - 4.0, "end") } else { (middle + 4.0, "start") };
        let _ = write!(
            svg,
            r#"<text class="dim" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{}×</text>"#,
            y + 12.0,
            shown(*ratio)
        );
    }
    let caption = format!("1× is {} {}", shown(base), row.unit);
    Some(figure(&row.name, &caption, height, &svg))
}

/// A line for each subject, from the median to the maximum.
fn latency(report: &Report, row: &Row) -> Option<String> {
    let curves: Vec<(usize, Latencies)> =
        (row.cells.iter().enumerate()).filter_map(|(index, cell)| Some((index, cell.latencies()?))).collect();
    let labels = PERCENTILES.map(|(label, _)| label.to_owned());
    let lines: Vec<Line<'_>> = curves
        .iter()
        .map(|(index, values)| Line {
            subject: *index,
            name: &report.subjects()[*index],
            points: values.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect(),
        })
        .collect();
    let last = labels.len() as f64 - 1.0;
    let ticks: Vec<(f64, String)> =
        labels.into_iter().enumerate().map(|(at, label)| (at as f64, label)).collect();
    chart(&row.name, "µs", (0.0, last), &ticks, &lines)
}

/// Figures named `operation, N entries`, as lines over N.
fn growth(report: &Report) -> Vec<String> {
    let points: Vec<(&str, f64, &Row)> = report
        .rows()
        .iter()
        .filter_map(|row| {
            let (name, rest) = row.name.rsplit_once(", ")?;
            let entries: f64 = rest.strip_suffix(" entries")?.parse().ok()?;
            Some((name, entries, row))
        })
        .collect();
    let mut names: Vec<&str> = Vec::new();
    points.iter().for_each(|(name, ..)| {
        if !names.contains(name) {
            names.push(name);
        }
    });
    let charts = names.iter().filter_map(|name| {
        let points: Vec<_> = points.iter().filter(|(other, ..)| other == name).collect();
        let ticks: Vec<(f64, String)> =
            points.iter().map(|(_, entries, _)| (entries.log10(), short(*entries))).collect();
        let lines: Vec<Line<'_>> = report
            .subjects()
            .iter()
            .enumerate()
            .map(|(subject, name)| {
                let of = |(_, entries, row): &&(&str, f64, &Row)| {
                    Some((entries.log10(), row.cells[subject].median()?))
                };
                Line { subject, name, points: points.iter().filter_map(of).collect() }
            })
            .collect();
        let (first, last) = (ticks.first()?.0, ticks.last()?.0);
        chart(name, "ns", (first, last), &ticks, &lines)
    });
    charts.collect()
}

/// `100K` and `10M`.
fn short(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{}M", number / 1e6),
        _ if number >= 1e3 => format!("{}K", number / 1e3),
        _ => number.to_string(),
    }
}

/// A subject's line in a chart.
struct Line<'a> {
    subject: usize,
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// Lines over a logarithmic scale of `unit`.
fn chart(
    name: &str,
    unit: &str,
    (first, last): (f64, f64),
    ticks: &[(f64, String)],
    lines: &[Line<'_>],
) -> Option<String> {
    const HEIGHT: f64 = 170.0;
    let (left, right, top, bottom) = (48.0, WIDTH - 16.0, 8.0, HEIGHT - 20.0);
    let values = || lines.iter().flat_map(|line| &line.points).map(|(_, value)| value.max(1e-3).log10());
    let (low, high) = (values().reduce(f64::min)?.floor(), values().reduce(f64::max)?.ceil());
    let high = high.max(low + 1.0);
    let x_of = |x: f64| left + (right - left) * if last > first { (x - first) / (last - first) } else { 0.5 };
    let y_of = |value: f64| bottom - (bottom - top) * (value.max(1e-3).log10() - low) / (high - low);
    let mut svg = String::new();
    for power in low as i32..=high as i32 {
        let value = 10_f64.powi(power);
        let y = y_of(value);
        let _ = write!(
            svg,
            r#"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}"/><text class="dim" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 5.0,
            y + 4.0,
            power_of_ten(power)
        );
    }
    for (x, label) in ticks {
        let (x, y) = (x_of(*x), HEIGHT - 4.0);
        let _ = write!(svg, r#"<text class="dim" x="{x:.1}" y="{y}" text-anchor="middle">{label}</text>"#);
    }
    for Line { subject, name, points } in lines.iter().filter(|line| !line.points.is_empty()) {
        let dash = DASHES[subject % DASHES.len()];
        let mut path = String::new();
        for (x, value) in points {
            let (x, y) = (x_of(*x), y_of(*value));
            let _ = write!(path, "{x:.1},{y:.1} ");
            let _ = write!(
                svg,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="var(--{name})"><title>{name}: {} {unit}</title></circle>"#,
                shown(*value)
            );
        }
        let path = path.trim_end();
        let _ =
            write!(svg, r#"<polyline points="{path}" stroke="var(--{name})" stroke-dasharray="{dash}"/>"#);
    }
    Some(figure(name, &format!("{unit}, logarithmic"), HEIGHT, &svg))
}

/// `0.1`, `1`, `10`, `100`, `10K` and so on.
fn power_of_ten(power: i32) -> String {
    if power < 0 { 10_f64.powi(power).to_string() } else { short(10_f64.powi(power)) }
}

fn legend(report: &Report) -> String {
    let items = report.subjects().iter().enumerate().map(|(index, name)| {
        let dash = DASHES[index % DASHES.len()];
        format!(
            r#"<li><svg viewBox="0 0 28 10"><polyline points="0,5 28,5" stroke="var(--{name})" stroke-dasharray="{dash}"/></svg>{name}</li>"#
        )
    });
    format!("<ul class=\"legend\">{}</ul>\n", items.collect::<String>())
}

fn figure(name: &str, caption: &str, height: f64, svg: &str) -> String {
    let (name, caption) = (escaped(name), escaped(caption));
    format!(
        "<figure><h3>{name}</h3><svg viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{name}\">{svg}</svg>\
         <figcaption>{caption}</figcaption></figure>\n"
    )
}

fn text_table(lines: &[Vec<String>]) -> String {
    table(lines, "text")
}

/// The first line is the header; a verdict has its colour.
fn table(lines: &[Vec<String>], class: &str) -> String {
    let mut html = format!("<div class=\"scroll\"><table class=\"{class}\">\n");
    for (number, line) in lines.iter().enumerate() {
        let tag = if number == 0 { "th" } else { "td" };
        let cells = line.iter().map(|cell| {
            let class = if ["met", "missed"].contains(&cell.as_str()) {
                format!(" class=\"{cell}\"")
            } else {
                String::new()
            };
            format!("<{tag}{class}>{}</{tag}>", escaped(cell))
        });
        let _ = writeln!(html, "<tr>{}</tr>", cells.collect::<String>());
    }
    html + "</table></div>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Measure;
    use crate::targets::verdicts;

    #[test]
    fn the_page_has_bars_curves_and_growth_and_no_foreign_markup() {
        let mut report = Report::new(vec!["duramen".into(), "rocksdb".into()], "rocksdb");
        for (subject, factor) in [(0, 1.0), (1, 4.0)] {
            let latencies = Some([factor, 2.0, 3.0, 4.0, 100.0]);
            report.add(
                subject,
                vec![
                    Measure { latencies, ..Measure::new("get <hot>", "ns", 100.0 * factor) },
                    Measure::new("put, 1000 entries", "ns", 10.0),
                    Measure::new("put, 2000000 entries", "ns", 20.0 * factor),
                ],
            );
        }
        let (name, command) = ("kv".to_owned(), "kv --keys <&>".to_owned());
        let all = [Results { name, command, machine: vec![], versions: vec![], report }];
        let page = html(&all, &all[0], &verdicts(&all));
        assert!(page.contains("get &lt;hot&gt;") && page.contains("kv --keys &lt;&amp;&gt;"));
        assert!(!page.contains("<hot>") && !page.contains("http"));
        // Bars of three figures, one curve of latencies, one of growth.
        assert_eq!(page.matches("<figure>").count(), 5, "{page}");
        assert!(page.contains(">4.00×<") && page.contains(">1K<") && page.contains(">2M<"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
