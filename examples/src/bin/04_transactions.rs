//! Transactions and what goes with them: counters by a merge operator, a bank
//! transfer that conflicts and is tried again, a savepoint, a range delete that a
//! snapshot does not see, and values that expire.
//!
//! ```sh
//! cargo run -p duramen-examples --bin 04_transactions
//! ```

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use duramen::{Db, Durability, Error, Expiry, Keyspace, KeyspaceOptions, Options, Result, Transaction};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let db = Db::open(directory.path(), Options::default())?;

    // A merge writes its operand and reads nothing, so counters neither wait for
    // each other nor conflict. Integers are 8 bytes, least significant first.
    let counting = KeyspaceOptions { merge_operator: Some("i64.add".into()), ..KeyspaceOptions::default() };
    let counts = db.keyspace_with("counts", counting)?;
    let count = |key: &[u8]| -> Result<i64> { Ok(int(&counts.get(key)?.unwrap_or_default())) };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..250).try_for_each(|_| counts.merge(b"visits", &1_i64.to_le_bytes()))))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker panicked"))
    })?;
    println!("{} visits", count(b"visits")?);

    // A transfer reads both balances and writes both. Here somebody else pays in
    // between the first attempt's read and its commit: that is a conflict, and
    // `transact` begins again, with what is there by then.
    let accounts = db.keyspace("accounts")?;
    accounts.put(b"ada", &100_i64.to_le_bytes())?;
    accounts.put(b"grace", &0_i64.to_le_bytes())?;
    let mut attempts = 0;
    db.transact(3, Durability::Sync, |transaction| {
        attempts += 1;
        let (ada, grace) =
            (balance(transaction, &accounts, b"ada")?, balance(transaction, &accounts, b"grace")?);
        if attempts == 1 {
            accounts.put(b"ada", &150_i64.to_le_bytes())?;
        }
        transaction.put(&accounts, b"ada", &(ada - 30).to_le_bytes())?;
        transaction.put(&accounts, b"grace", &(grace + 30).to_le_bytes())?;
        // Of the attempt that conflicts this is not counted, either.
        transaction.merge(&counts, b"transfers", &1_i64.to_le_bytes())
    })?;
    let read = |key: &[u8]| -> Result<i64> { Ok(int(&accounts.get(key)?.unwrap_or_default())) };
    let balances = (read(b"ada")?, read(b"grace")?);
    println!("after {attempts} attempts ada has {} and grace {}", balances.0, balances.1);

    // Without `transact` the conflict is an error that names the key.
    let mut late = db.transaction();
    balance(&mut late, &accounts, b"ada")?;
    late.put(&accounts, b"grace", &0_i64.to_le_bytes())?;
    accounts.put(b"ada", &120_i64.to_le_bytes())?;
    let conflict = late.commit(Durability::Buffered).err().ok_or("it read what has changed")?;
    println!("a commit that comes late: {conflict}");

    // A savepoint takes back what was written since, and nothing before.
    let mut transaction = db.transaction();
    transaction.put(&accounts, b"alan", &1_i64.to_le_bytes())?;
    let savepoint = transaction.savepoint();
    transaction.delete_prefix(&accounts, b"")?;
    let emptied = transaction.range::<&[u8]>(&accounts, ..)?.count();
    transaction.rollback_to(savepoint)?;
    transaction.commit(Durability::Buffered)?;
    let names: Vec<_> =
        accounts.range::<&[u8]>(..).map(|row| row.map(|(name, _)| name)).collect::<Result<_>>()?;
    println!("{emptied} accounts before going back, then {names:?}");

    // A range delete is one commit, however many keys there are. Who has a
    // snapshot still sees them, and what is written later stays.
    let events = db.keyspace("events")?;
    let mut batch = db.batch();
    for number in 0..10_000 {
        batch.put(&events, format!("event:{number:05}").as_bytes(), b"");
    }
    batch.commit(Durability::Buffered)?;
    let snapshot = db.snapshot();
    events.delete_range(&b"event:00000"[..]..b"event:09000")?;
    events.put(b"event:00042", b"again")?;
    let (before, after) = (snapshot.prefix(&events, b"event:").count(), events.prefix(b"event:").count());
    println!("{before} events in the snapshot, {after} now");

    // What expires is there until its time has come: that of its own write, or
    // that of the keyspace.
    let brief = KeyspaceOptions { ttl_ms: Some(200), ..KeyspaceOptions::default() };
    let sessions = db.keyspace_with("sessions", brief)?;
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    sessions.put(b"brief", b"ada")?;
    sessions.put_until(b"long", b"grace", Expiry(now_ms + 3_600_000))?;
    thread::sleep(Duration::from_millis(250));
    let alive: Vec<_> = sessions.range::<&[u8]>(..).collect::<Result<_>>()?;
    println!("{} session is left", alive.len());

    assert_eq!(count(b"visits")?, 1000);
    assert_eq!((attempts, balances, count(b"transfers")?), (2, (120, 30), 1));
    assert!(matches!(conflict, Error::Conflict { key } if key == b"ada"));
    assert_eq!((emptied, &names[..]), (0, &["ada".into(), "alan".into(), "grace".into()][..]));
    assert_eq!((before, after), (10_000, 1001));
    assert_eq!(alive, [("long".into(), "grace".into())]);
    Ok(())
}

fn balance(transaction: &mut Transaction, accounts: &Keyspace, name: &[u8]) -> Result<i64> {
    Ok(int(&transaction.get(accounts, name)?.unwrap_or_default()))
}

/// The integer that 8 bytes are; 0 for anything else.
fn int(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}
