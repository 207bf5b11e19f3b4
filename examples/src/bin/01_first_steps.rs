//! First steps: keyspaces, puts and deletes, a batch over two keyspaces, scans
//! by prefix and in reverse, a snapshot, and what is there after reopening.
//!
//! ```sh
//! cargo run -p duramen-examples --bin 01_first_steps
//! ```

use duramen::{Db, Durability, Options, Result};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let db = Db::open(directory.path(), Options::default())?;

    // Keys live in keyspaces. Both keys and values are bytes.
    let users = db.keyspace("users")?;
    users.put(b"user:42", b"ada")?;
    users.put(b"user:43", b"grace")?;
    users.put(b"user:7", b"alan")?;
    users.delete(b"user:7")?;
    println!("user:42 is {:?}, user:7 is {:?}", users.get(b"user:42")?, users.get(b"user:7")?);

    // It goes on showing this moment, whatever comes.
    let snapshot = db.snapshot();

    // A batch is committed as one, over any keyspaces. `Sync` survives power loss;
    // the default, `Buffered`, the death of the process.
    let by_name = db.keyspace("by_name")?;
    let mut batch = db.batch();
    batch.put(&users, b"user:44", b"edsger").put(&by_name, b"edsger", b"user:44");
    batch.put(&users, b"user:42", b"ada lovelace").put(&by_name, b"ada lovelace", b"user:42");
    batch.commit(Durability::Sync)?;

    // Keys are in the order of their bytes; a scan may begin at either end.
    users.put(b"zoo", b"not a user")?;
    for row in users.prefix(b"user:") {
        let (key, value) = row?;
        println!("{key:?} is {value:?}");
    }
    let last = users.prefix(b"user:").next_back().transpose()?;
    let (last, _) = last.ok_or("there are users")?;
    let from_43: Vec<_> = users.range(&b"user:43"[..]..).rev().collect::<Result<_>>()?;
    let then: Vec<_> = snapshot.prefix(&users, b"user:").collect::<Result<_>>()?;
    println!("{} users in the snapshot, {} keys from user:43 on", then.len(), from_43.len());

    // Every handle keeps the database open. Nothing has to be closed: what was
    // committed is in the log.
    drop((snapshot, users, by_name, db));
    let db = Db::open(directory.path(), Options { create_if_missing: false, ..Options::default() })?;
    let users = db.keyspace("users")?;

    assert_eq!(then, [(b"user:42"[..].into(), "ada".into()), (b"user:43"[..].into(), "grace".into())]);
    assert_eq!(last, "user:44");
    let keys: Vec<_> = from_43.iter().map(|(key, _)| &key[..]).collect();
    assert_eq!(keys, [&b"zoo"[..], b"user:44", b"user:43"]);
    assert_eq!(users.get(b"user:42")?.as_deref(), Some(&b"ada lovelace"[..]));
    assert_eq!(users.get(b"user:7")?, None);
    assert_eq!(db.keyspace("by_name")?.get(b"edsger")?.as_deref(), Some(&b"user:44"[..]));
    Ok(())
}
