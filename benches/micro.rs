//! Microbenchmarks of the request path: a page of songs as JSON, row by row and collected first, and
//! the cursor at the end of each page.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use roster::listing::row::{ROW_SIZE, write_json};
use roster::listing::{Column, Key, Table, cursor, row};

const PAGE: usize = 20;

row! {
    /// A row of [`SONGS`].
    pub struct Song<'r> {
        /// The primary key.
        pub id: i64,
        /// As long as a name.
        pub title: &'r str,
        /// As long as an e-mail address.
        pub singer: &'r str,
    }
}

static SONGS: Table = Table {
    name: "songs",
    row: "song",
    from: "songs",
    columns: &[
        Column::id("id"),
        Column::text("title", 80).ordered_by("title_key"),
        Column::text("singer", 254).ordered_by("singer_key"),
    ],
    search: None,
    constraints: &[],
};

fn serialiser(criterion: &mut Criterion) {
    let texts: Vec<_> =
        (0..PAGE).map(|n| (format!("ada.lovelace{n}"), format!("ada.lovelace{n}@example.com"))).collect();
    let songs = || (1..).zip(&texts).map(|(id, (title, singer))| Song { id, title, singer });
    let mut group = criterion.benchmark_group("a page of 20 rows as JSON");
    group.bench_function("each row into one buffer", |bencher| {
        bencher.iter(|| {
            let mut body = Vec::with_capacity(PAGE * ROW_SIZE);
            for song in songs() {
                write_json(&mut body, black_box(&song));
            }
            body
        });
    });
    group.bench_function("collected, then all at once", |bencher| {
        bencher.iter(|| {
            let owned: Vec<_> = songs().map(|song| (song.id, song.title.to_owned(), song.singer.to_owned())).collect();
            let page: Vec<_> =
                black_box(&owned).iter().map(|(id, title, singer)| Song { id: *id, title, singer }).collect();
            serde_json::to_string(&page)
        });
    });
    group.finish();
}

fn cursors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a cursor");
    for (position, value) in [(0, 900_000.into()), (2, "ada@example.com".into())] {
        let (column, key) = (&SONGS.columns[position], Key { value, id: None });
        let encoded = cursor::encode(&SONGS, position, &key);
        group.bench_function(format!("{}, encoded", column.name), |bencher| {
            bencher.iter(|| cursor::encode(&SONGS, position, black_box(&key)));
        });
        group.bench_function(format!("{}, decoded", column.name), |bencher| {
            bencher.iter(|| cursor::decode(black_box(&encoded), &SONGS, position));
        });
    }
    group.finish();
}

criterion_group!(benches, serialiser, cursors);
criterion_main!(benches);
