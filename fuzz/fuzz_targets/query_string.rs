#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    for table in roster::resources::TABLES {
        roster::fuzzing::query_string(table, text);
    }
});
