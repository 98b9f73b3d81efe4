#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| roster::fuzzing::cursor(roster::resources::TABLES[0], text));
