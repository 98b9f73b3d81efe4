//! Microbenchmarks of the request path, for `cargo bench`: a page of users as JSON, row by row and collected first, and
//! the cursor at the end of each page.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use roster::listing::row::{ROW_SIZE, write_json};
use roster::listing::{Key, Resource as _, cursor};
use roster::users::{User, Users};

const PAGE: usize = 20;

fn serialiser(criterion: &mut Criterion) {
    let texts: Vec<_> =
        (0..PAGE).map(|n| (format!("ada.lovelace{n}"), format!("ada.lovelace{n}@example.com"))).collect();
    let users = || (1..).zip(&texts).map(|(id, (username, email))| User { id, username, email });
    let mut group = criterion.benchmark_group("a page of 20 users as JSON");
    group.bench_function("each row into one buffer", |bencher| {
        bencher.iter(|| {
            let mut body = Vec::with_capacity(PAGE * ROW_SIZE);
            for user in users() {
                write_json(&mut body, black_box(&user));
            }
            body
        });
    });
    group.bench_function("collected, then all at once", |bencher| {
        bencher.iter(|| {
            let owned: Vec<_> =
                users().map(|user| (user.id, user.username.to_owned(), user.email.to_owned())).collect();
            let page: Vec<_> =
                black_box(&owned).iter().map(|(id, username, email)| User { id: *id, username, email }).collect();
            serde_json::to_string(&page)
        });
    });
    group.finish();
}

fn cursors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a cursor");
    for (position, value) in [(0, 900_000.into()), (2, "ada@example.com".into())] {
        let (column, key) = (&Users::TABLE.columns[position], Key { value, id: None });
        let encoded = cursor::encode(Users::TABLE, position, &key);
        group.bench_function(format!("{}, encoded", column.name), |bencher| {
            bencher.iter(|| cursor::encode(Users::TABLE, position, black_box(&key)));
        });
        group.bench_function(format!("{}, decoded", column.name), |bencher| {
            bencher.iter(|| cursor::decode(black_box(&encoded), Users::TABLE, position));
        });
    }
    group.finish();
}

criterion_group!(benches, serialiser, cursors);
criterion_main!(benches);
