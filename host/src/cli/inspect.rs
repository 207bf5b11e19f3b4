//! inspect: the sorted runs of each keyspace, drawn.

use duramen::compaction::picture;
use duramen::stats::{RunInfo, TableInfo};
use duramen::{Background, Database, Db, Error, Options};
use serde_json::{Value, json};

use super::args::Inspect;
use super::report::{grouped, size};
use super::svg::Svg;
use super::text::printable;
use super::{Failure, Home, Outcome, Result};

/// Columns of a picture of text.
const COLUMNS: usize = 60;

/// Width of a picture, of what is written left of it, and height of a run.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 190.0;
const ROW: f64 = 22.0;

/// A keyspace and its runs.
type Named = (String, Vec<RunInfo>);

pub fn inspect(home: &Home<'_>, inspect: &Inspect) -> Result<Outcome> {
    let db = open(home)?;
    let keyspaces = keyspaces(&db, inspect.keyspace.as_deref())?;
    db.close()?;
    if inspect.json {
        println!("{}", json!({ "keyspaces": keyspaces.iter().map(to_json).collect::<Vec<_>>() }));
    } else {
        for keyspace in &keyspaces {
            print!("{}", drawn(keyspace));
        }
    }
    if let Some(file) = &inspect.svg {
        std::fs::write(file, picture_of(&keyspaces))?;
    }
    Ok(Outcome::Done)
}

/// The database for reading alone, opened by this process.
fn open(home: &Home<'_>) -> Result<Db> {
    let options = Options {
        create_if_missing: false,
        read_only: true,
        background: Background::Inline,
        ..Options::default()
    };
    Db::open(home.db()?, options).map_err(|error| match error {
        Error::Locked(why) => Failure::Failed(format!(
            "{why}: while somebody may write to the database, its tables cannot be looked at from outside"
        )),
        other => other.into(),
    })
}

fn keyspaces(db: &Db, name: Option<&str>) -> Result<Vec<Named>> {
    let names: Vec<String> = match name {
        Some(name) => {
            super::find(db, name)?;
            vec![name.to_owned()]
        }
        None => db.keyspaces()?.into_iter().map(|(name, _)| name).collect(),
    };
    names.into_iter().map(|name| Ok((name.clone(), db.tables(&name)?.unwrap_or_default()))).collect()
}

fn drawn((name, runs): &Named) -> String {
    let bytes = runs.iter().map(RunInfo::bytes).sum();
    let files: usize = runs.iter().map(|run| run.tables.len()).sum();
    let mut text = format!("{name}: {} in {files} files, {} runs\n", size(bytes), runs.len());
    let picture = picture::text(runs, COLUMNS, size);
    for (line, run) in picture.lines().zip(runs) {
        text.push_str(&format!("  {line}  {}\n", about(run)));
    }
    let keys = || runs.iter().flat_map(|run| &run.tables);
    if let (Some(first), Some(last)) =
        (keys().map(|table| &table.key_min).min(), keys().map(|table| &table.key_max).max())
    {
        text.push_str(&format!("     {} to {}\n", printable(first), printable(last)));
    }
    text.push('\n');
    text
}

fn about(run: &RunInfo) -> String {
    let files = if run.tables.len() == 1 { "file" } else { "files" };
    format!(
        "{} {files}, {} entries, {}% tombstones, density {}",
        run.tables.len(),
        grouped(run.tables.iter().map(|table| table.entries).sum()),
        tombstone_percent(&run.tables),
        size(run.density as u64)
    )
}

fn tombstone_percent(tables: &[TableInfo]) -> u64 {
    let (entries, tombstones) = tables.iter().fold((0, 0), |(entries, tombstones), table| {
        (entries + table.entries.max(table.tombstones), tombstones + table.tombstones)
    });
    (100 * tombstones).checked_div(entries).unwrap_or(0)
}

fn to_json((name, runs): &Named) -> Value {
    let table = |table: &TableInfo| {
        json!({
            "number": table.number.0, "level": table.level, "bytes": table.bytes, "density": table.density,
            "entries": table.entries, "tombstones": table.tombstones,
            "key_min_hex": super::text::to_hex(&table.key_min),
            "key_max_hex": super::text::to_hex(&table.key_max),
            "share_min": table.share_min, "share_max": table.share_max, "expires_max": table.expires_max,
        })
    };
    let run = |run: &RunInfo| {
        json!({
            "level": run.level, "density": run.density, "bytes": run.bytes(),
            "tables": run.tables.iter().map(table).collect::<Vec<_>>(),
        })
    };
    json!({ "name": name, "runs": runs.iter().map(run).collect::<Vec<_>>() })
}

/// The same as SVG: the redder a table, the more tombstones it holds.
fn picture_of(keyspaces: &[Named]) -> String {
    let mut svg = Svg::default();
    let mut y = 24.0;
    for (name, runs) in keyspaces {
        let bytes = runs.iter().map(RunInfo::bytes).sum();
        svg.text((12.0, y), "", &format!("{name}: {}", size(bytes)));
        y += 12.0;
        let densest = runs.iter().map(|run| run.density).fold(1.0, f64::max);
        for run in runs {
            let label = format!("level {}   {}", run.level, size(run.bytes()));
            svg.text((12.0, y + 14.0), "dim", &label);
            svg.rect((LEFT, y), (WIDTH - LEFT - 12.0, ROW - 4.0), "frame", 1.0, &about(run));
            for table in &run.tables {
                draw(&mut svg, table, y, densest);
            }
            y += ROW;
        }
        y += 30.0;
    }
    svg.finish(WIDTH, y)
}

fn draw(svg: &mut Svg, table: &TableInfo, y: f64, densest: f64) {
    let x = |share: f64| LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - 12.0);
    let (from, to) = (x(table.share_min), x(table.share_max));
    let size_of = ((to - from - 1.0).max(1.0), ROW - 4.0);
    let gone = tombstone_percent(std::slice::from_ref(table));
    let title = format!(
        "file {}: {}, {} entries, {gone}% tombstones, {} to {}",
        table.number.0,
        size(table.bytes),
        grouped(table.entries),
        printable(&table.key_min),
        printable(&table.key_max)
    );
    // A fan-out of four is a step.
    let steps = (densest / table.density.max(1.0)).max(1.0).log(4.0);
    svg.rect((from, y), size_of, "mark", (1.0 - 0.2 * steps).max(0.25), &title);
    if gone > 0 {
        svg.rect((from, y), size_of, "gone", gone as f64 / 100.0, &title);
    }
}
