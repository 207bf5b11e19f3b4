//! Picks on pictures of runs: a line for each run, newest first; in it the tables,
//! as `first key-last key:bytes`, numbered in the order they are written in.

use super::*;
use crate::key::KeyspaceId;

/// `a-f:10` with 10 entries; `d` and a number make so many of them tombstones, `x`
/// and a number the time at which all have expired.
fn table(text: &str, number: u64) -> TableMeta {
    let (keys, rest) = text.split_once(':').unwrap();
    let (key_min, key_max) = keys.split_once('-').unwrap();
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let after =
        |mark: char| rest.split_once(mark).map_or(0, |(_, rest)| digits(rest).parse::<u64>().unwrap());
    let deletes = after('d');
    TableMeta {
        number: FileNumber(number),
        keyspace: KeyspaceId(1),
        bytes: digits(rest).parse().unwrap(),
        tail_offset: 0,
        tail_checksum: 0,
        key_min: key_min.into(),
        key_max: key_max.into(),
        seq_min: SequenceNumber(1),
        seq_max: SequenceNumber(100 - number),
        puts: 10 - deletes,
        deletes,
        merges: 0,
        range_deletes: 0,
        expires_min: after('x'),
        expires_max: after('x'),
    }
}

fn tables(picture: &str) -> Vec<Vec<TableMeta>> {
    let mut number = 0;
    let lines = picture.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let of_run = line.split_whitespace().map(|text| {
                number += 1;
                table(text, number)
            });
            of_run.collect()
        })
        .collect()
}

fn parameters(scaling: &str) -> Parameters {
    Parameters {
        scaling: scaling.parse().unwrap(),
        flush_bytes: 10,
        target_file_bytes: 1000,
        now_ms: 50,
        oldest_snapshot: None,
        covered: Vec::new(),
        space_left: u64::MAX,
    }
}

fn shapes(tables: &[Vec<TableMeta>]) -> Vec<RunShape<'_>> {
    tables.iter().map(|run| RunShape { tables: run.iter().collect() }).collect()
}

fn told(pick: Option<Pick>) -> String {
    let Some(pick) = pick else { return "nothing".into() };
    let inputs: Vec<String> = pick.inputs.iter().map(|number| number.0.to_string()).collect();
    let work = match pick.work {
        Work::Merge => "merge",
        Work::Move => "move",
        Work::Drop => "drop",
    };
    format!("{work} {} into run {}: {:?}", inputs.join(" "), pick.run, pick.cause)
}

fn picked(picture: &str, parameters: &Parameters) -> String {
    let tables = tables(picture);
    told(pick(&shapes(&tables), parameters))
}

fn levels_of(picture: &str, scaling: &str) -> Vec<u32> {
    let tables = tables(picture);
    levels(&shapes(&tables), &parameters(scaling)).1.iter().map(|level| level.level).collect()
}

#[test]
fn nothing_is_picked_while_few_runs_overlap() {
    let t4 = parameters("T4");
    assert_eq!(picked("", &t4), "nothing");
    assert_eq!(picked("a-z:10", &t4), "nothing");
    assert_eq!(picked("a-z:10 \n a-z:10 \n a-z:10", &t4), "nothing");
}

#[test]
fn a_tiered_level_is_merged_when_as_many_overlap_as_its_fan_out() {
    let picture = "a-z:10
                   a-z:10
                   a-z:10
                   a-z:10
                   a-z:640";
    assert_eq!(levels_of(picture, "T4"), [0, 0, 0, 0, 2]);
    assert_eq!(picked(picture, &parameters("T4")), "merge 1 2 3 4 into run 3: Overlap");
}

#[test]
fn a_levelled_level_is_merged_when_two_overlap() {
    let picture = "a-z:10
                   a-z:30
                   a-z:900";
    assert_eq!(levels_of(picture, "L10"), [0, 0, 1]);
    assert_eq!(picked(picture, &parameters("L10")), "merge 1 2 into run 1: Overlap");
}

#[test]
fn a_level_that_the_outcome_would_set_off_is_merged_along() {
    let picture = "a-z:10
                   a-z:10
                   a-z:10
                   a-z:10
                   a-z:40
                   a-z:40
                   a-z:40
                   a-z:640";
    assert_eq!(levels_of(picture, "T4"), [0, 0, 0, 0, 1, 1, 1, 2]);
    assert_eq!(picked(picture, &parameters("T4")), "merge 1 2 3 4 5 6 7 into run 6: Overlap");
    // Not where that is a large matter.
    let small = Parameters { target_file_bytes: 5, ..parameters("T4") };
    assert_eq!(picked(picture, &small), "merge 1 2 3 4 into run 3: Overlap");
}

#[test]
fn the_deepest_level_has_a_parameter_of_its_own() {
    let picture = "a-z:10
                   a-z:10
                   a-z:10
                   a-z:10
                   a-z:40
                   a-z:40
                   a-z:40
                   a-z:640";
    // What arrives there is merged with it at once.
    assert_eq!(picked(picture, &parameters("T4/L4")), "merge 1 2 3 4 5 6 7 8 into run 7: Overlap");
}

#[test]
fn what_is_above_a_levelled_deepest_level_is_bounded() {
    let picture = "a-z:40
                   a-z:40
                   a-z:40
                   a-z:80
                   a-z:640";
    assert_eq!(levels_of(picture, "T4/L4"), [1, 1, 1, 1, 2]);
    assert_eq!(picked(&picture[..picture.len()], &parameters("T8/L4")), "merge 1 2 3 4 5 into run 4: Space");
    let little = picture.replace("80", "30");
    assert_eq!(picked(&little, &parameters("T8/L4")), "nothing");
    // A tiered one takes as much as it holds itself.
    assert_eq!(picked(picture, &parameters("T8")), "nothing");
}

#[test]
fn a_part_of_a_run_weighs_as_the_whole_would() {
    // A quarter of the keys with a quarter of the bytes.
    let picture = "a-f:160
                   a-f:160 g-l:160 m-r:160 s-z:160";
    assert_eq!(levels_of(picture, "L4"), [2, 2]);
    assert_eq!(picked(picture, &parameters("L4")), "merge 1 2 into run 1: Overlap");
}

#[test]
fn a_merge_takes_what_it_overlaps_and_no_more() {
    let picture = "b-e:200
                   a-c:300 d-f:300 g-z:900";
    assert_eq!(picked(picture, &parameters("L4")), "merge 1 2 3 into run 1: Overlap");
}

#[test]
fn a_pick_is_contiguous_in_age() {
    // What lies between in age must come along.
    let picture = "a-p:100
                   m-n:100
                   a-p:1000";
    assert_eq!(picked(picture, &parameters("L10")), "merge 1 2 3 into run 2: Overlap");
}

#[test]
fn tables_that_overlap_nothing_older_move_as_far_as_they_can() {
    let picture = "t-v:10
                   m-n:10
                   a-f:10
                   t-z:10";
    assert_eq!(picked(picture, &parameters("T4")), "move 1 into run 2: Disjoint");
    let picture = "x-z:10
                   m-n:10
                   a-f:10";
    assert_eq!(picked(picture, &parameters("T4")), "move 1 into run 2: Disjoint");
}

#[test]
fn expired_tables_go_once_nothing_older_is_under_them() {
    let expired = "a-f:10x40 g-z:10x60";
    assert_eq!(picked(expired, &parameters("T8")), "drop 1 into run 0: Expired");
    let above = "a-f:10x40
                 a-f:10";
    assert_eq!(picked(above, &parameters("T8")), "merge 1 2 into run 1: Tombstones");
}

#[test]
fn tables_under_a_range_tombstone_go() {
    let picture = "a-z:10
                   a-f:10 g-z:10
                   a-z:10";
    let covered = Parameters { covered: vec![FileNumber(2)], ..parameters("T8") };
    assert_eq!(picked(picture, &covered), "drop 2 into run 1: Covered");
}

#[test]
fn tables_of_tombstones_are_merged_early_where_that_is_cheap() {
    // By entries: the tombstones would have five times their number written again.
    let dear = "a-z:10d9
                a-d:20 e-h:20 i-m:20 n-q:20 r-z:20";
    assert_eq!(picked(dear, &parameters("T8")), "nothing");
    let cheap = "a-z:10d9
                 a-z:40";
    assert_eq!(picked(cheap, &parameters("T8")), "merge 1 2 into run 1: Tombstones");
    // Not while a snapshot reads what they hide.
    let read = Parameters { oldest_snapshot: Some(SequenceNumber(98)), ..parameters("T8") };
    assert_eq!(picked(cheap, &read), "nothing");
    // Alone, they hide nothing.
    assert_eq!(picked("a-z:10d9", &parameters("T8")), "merge 1 into run 0: Tombstones");
}

#[test]
fn many_small_tables_in_a_row_become_one() {
    let row = "a-b:9 c-d:9 e-f:9 g-h:9 i-j:9 k-l:9 m-n:9 o-p:9";
    assert_eq!(picked(row, &parameters("T8")), "merge 1 2 3 4 5 6 7 8 into run 0: SmallFiles");
    assert_eq!(picked("a-b:9 c-d:9", &parameters("T8")), "nothing");
}

#[test]
fn edges_that_overlap_are_merged_when_they_are_many() {
    let stairs = "h0-i1:100
                  g0-h1:100
                  f0-g1:100
                  e0-f1:100
                  d0-e1:100
                  c0-d1:100
                  b0-c1:100
                  a0-b1:100";
    let few: String = stairs.lines().skip(1).collect::<Vec<_>>().join("\n");
    for scaling in ["T4", "L4", "T16/L10"] {
        assert_eq!(picked(&few, &parameters(scaling)), "nothing", "{scaling}");
        let all = "merge 1 2 3 4 5 6 7 8 into run 7: Overlap";
        assert_eq!(picked(stairs, &parameters(scaling)), all, "{scaling}");
    }
    // A narrow table below a wide one shares all of itself.
    let narrow = "a-z:100
                  m-n:4";
    assert_eq!(picked(narrow, &parameters("L4")), "merge 1 2 into run 1: Overlap");
}

#[test]
fn a_merge_that_does_not_fit_is_made_smaller_or_left() {
    let picture = "a-z:10
                   a-z:10
                   a-z:10
                   a-z:10
                   a-z:640";
    let with = |space_left| Parameters { space_left, ..parameters("T4") };
    assert_eq!(picked(picture, &with(30)), "merge 1 2 3 into run 2: Overlap");
    assert_eq!(picked(picture, &with(15)), "nothing");
}

#[test]
fn a_range_takes_whatever_may_hold_its_keys() {
    let tables = tables(
        "a-f:10 k-m:10
         e-l:10
         a-b:10 c-g:10 h-i:10 x-z:10",
    );
    let of = |min: &str, max: &str| {
        told(pick_range(&shapes(&tables), (Some(min.as_bytes()), Some(max.as_bytes())), &parameters("T4")))
    };
    assert_eq!(of("k", "k"), "merge 2 3 5 6 into run 2: Asked");
    assert_eq!(of("y", "y"), "merge 7 into run 2: Asked");
    assert_eq!(of("r", "s"), "nothing");
    let all = pick_range(&shapes(&tables), (None, None), &parameters("T4"));
    assert_eq!(told(all), "merge 1 2 3 4 5 6 7 into run 2: Asked");
}

#[test]
fn levels_follow_the_densest_run_and_the_parameters() {
    let picture = "a-z:10
                   a-z:10
                   a-z:100
                   a-z:640";
    assert_eq!(levels_of(picture, "T4"), [0, 0, 1, 2]);
    assert_eq!(levels_of(picture, "L10"), [0, 0, 1, 1]);
    assert_eq!(levels_of("a-z:10", "T4"), [0]);
}
