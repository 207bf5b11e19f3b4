//! checkpoint, backup, restore and repair: databases made beside another.
//!
//! The sandbox reaches the database's directory and no other, so all but the
//! checkpoint run the engine in this process.

use std::path::Path;

use duramen::error::DisplayBytes;
use duramen::repair::repair_directory;
use duramen::{Background, Backups, Database, Db, Options};
use duramen_host::Sandbox;

use super::args::{Backup, Restore};
use super::report::{grouped, size};
use super::{Failure, Home, Outcome, Result, with_spinner};

/// The database, opened by this process.
fn open(home: &Home<'_>) -> Result<Db> {
    let options = Options { create_if_missing: false, background: Background::Inline, ..Options::default() };
    Ok(Db::open(home.db()?, options)?)
}

pub fn checkpoint(home: &Home<'_>, target: &Path) -> Result<Outcome> {
    let made = if home.arguments.native {
        let db = open(home)?;
        let made = with_spinner("copying", || db.checkpoint(target))?;
        db.close()?;
        made
    } else {
        let db = Sandbox::open(home.db()?, home.options(false))?;
        let made = with_spinner("copying", || db.checkpoint(target))?;
        db.close()?;
        made
    };
    println!(
        "{} files, {}, {} of it shared with the database, up to commit {}",
        made.files,
        size(made.bytes),
        size(made.bytes_linked),
        grouped(made.last_sequence)
    );
    Ok(Outcome::Done)
}

pub fn backup(home: &Home<'_>, backup: &Backup) -> Result<Outcome> {
    match backup {
        Backup::Create { backups } => {
            let db = open(home)?;
            let made = with_spinner("backing up", || db.backup(&Backups::new(backups)))?;
            db.close()?;
            println!("backup {}: {} files, SSTables of {}", made.id, made.files, size(made.table_bytes));
        }
        Backup::List { backups } => {
            for backup in Backups::new(backups).list()? {
                match backup.problem {
                    None => println!(
                        "{}\t{} files, SSTables of {}",
                        backup.id,
                        backup.files,
                        size(backup.table_bytes)
                    ),
                    Some(problem) => println!("{}\tcannot be restored: {problem}", backup.id),
                }
            }
        }
        Backup::Verify { backups, id } => {
            let report = with_spinner("verifying", || Backups::new(backups).verify(*id))?;
            super::report::verified(&report)?;
        }
        Backup::Delete { backups, id } => {
            Backups::new(backups).delete(*id)?;
            println!("backup {id} deleted");
        }
    }
    Ok(Outcome::Done)
}

pub fn restore(home: &Home<'_>, restore: &Restore) -> Result<Outcome> {
    let backups = Backups::new(&restore.backups);
    let id = match restore.id {
        Some(id) => id,
        None => {
            let sound = backups.list()?.into_iter().filter(|backup| backup.problem.is_none());
            let none = || Failure::Failed(format!("{} holds no backup", restore.backups.display()));
            sound.map(|backup| backup.id).max().ok_or_else(none)?
        }
    };
    let target = home.db()?;
    let made = with_spinner("restoring", || backups.restore(id, target))?;
    println!(
        "backup {id} restored to {}: {} files, {}, up to commit {}",
        target.display(),
        made.files,
        size(made.bytes),
        grouped(made.last_sequence)
    );
    Ok(Outcome::Done)
}

pub fn repair(home: &Home<'_>, target: &Path) -> Result<Outcome> {
    let db = home.db()?;
    let report = with_spinner("repairing", || repair_directory(db, target, &Options::default()))?;
    if report.manifest_lost {
        println!("the manifest could not be relied on: names are lost, and deleted keys may be back");
    }
    for lost in &report.lost {
        let keys = match &lost.keys {
            Some((first, last)) => format!(", keys {} to {}", DisplayBytes(first), DisplayBytes(last)),
            None => String::new(),
        };
        println!("lost: {} at byte {}{keys}: {}", lost.file, lost.offset, lost.what);
    }
    let names: Vec<&str> = report.keyspaces.iter().map(|(name, _)| name.as_str()).collect();
    println!(
        "{}: {} entries and {} batches from {} files, keyspaces {}",
        target.display(),
        grouped(report.entries),
        grouped(report.batches),
        report.files,
        names.join(", ")
    );
    match report.lost.len() {
        0 => Ok(Outcome::Done),
        count => Ok(Outcome::Unexpected(format!("{count} losses; {} is as it was", db.display()))),
    }
}
