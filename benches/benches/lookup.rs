//! A look-up among 100,000 tenants takes what one among 100 takes.
//!
//! `cargo bench -p benches --bench lookup`

use benches::lookup::{Lookup, TENANTS};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route::find");
    for tenants in TENANTS {
        let mut lookup = Lookup::among(tenants);
        let id = BenchmarkId::from_parameter(tenants);
        group.bench_function(id, |bencher| bencher.iter(|| lookup.find()));
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
