//! The inner loops of the engine, timed: `cargo bench --package duramen-loops`.

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mut each in duramen::measuring::loops() {
        let mut group = criterion.benchmark_group("loops");
        group.throughput(Throughput::Elements(each.steps));
        group.bench_function(each.name, |bencher| bencher.iter(&mut each.run));
        group.finish();
    }
    criterion.final_summary();
}
