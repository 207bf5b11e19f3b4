//! keyspaces, keyspace create and keyspace drop.

use super::args::{Create, Keyspace};
use super::{Home, Outcome, Result};

pub fn list(home: &Home<'_>) -> Result<Outcome> {
    let db = home.open()?;
    for (name, _) in db.keyspaces()? {
        println!("{name}");
    }
    db.close()?;
    Ok(Outcome::Done)
}

pub fn change(home: &Home<'_>, keyspace: &Keyspace) -> Result<Outcome> {
    match keyspace {
        Keyspace::Create(create) => self::create(home, create),
        Keyspace::Drop { name } => drop(home, name),
    }
}

fn create(home: &Home<'_>, create: &Create) -> Result<Outcome> {
    let db = home.open_or_create()?;
    let existed = db.find_keyspace(&create.name)?.is_some();
    db.create_keyspace_with(&create.name, &create.into())?;
    db.close()?;
    let set = [
        create.ttl.is_some().then_some("its time to live is set"),
        create.memtable.is_some().then_some("its memtable is set"),
        create.compaction.is_some().then_some("its strategy is set"),
    ];
    let set: String = set.into_iter().flatten().map(|set| format!("; {set}")).collect();
    match existed {
        false => println!("keyspace {} created", create.name),
        true => println!("keyspace {} was there already{set}", create.name),
    }
    Ok(Outcome::Done)
}

fn drop(home: &Home<'_>, name: &str) -> Result<Outcome> {
    let db = home.open()?;
    let dropped = db.drop_keyspace(name)?;
    db.close()?;
    if !dropped {
        return Ok(Outcome::Unexpected(format!("there is no keyspace {name}")));
    }
    println!("keyspace {name} dropped");
    Ok(Outcome::Done)
}
