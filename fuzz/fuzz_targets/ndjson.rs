#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for table in roster::resources::TABLES {
        roster::fuzzing::ndjson(table, bytes);
    }
});
