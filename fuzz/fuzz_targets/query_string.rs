#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| roster::fuzzing::query_string(roster::resources::TABLES[0], text));
