//! Finds the migrations in their folder, for `build.rs`.
//!
//! A folder for each engine has two files for each migration, `NNNN_name.up.sql` and `NNNN_name.down.sql`. The numbers
//! begin with 0001 and have no gap. A number has the same name and the same meaning on each engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const DIRECTIONS: [&str; 2] = ["up", "down"];

/// The content of an engine's files, by their names.
type Files = BTreeMap<String, String>;

/// Rust code with a table for each engine, or what is wrong with the folder.
pub(crate) fn table(folder: &Path) -> Result<String, String> {
    let mut engines = BTreeMap::new();
    for engine in entries(folder)? {
        engines.insert(engine.clone(), files(folder, &engine)?);
    }
    let mut migrations = BTreeSet::new();
    for (engine, file) in engines.iter().flat_map(|(engine, files)| files.keys().map(move |file| (engine, file))) {
        migrations.insert(parse(file).ok_or_else(|| {
            format!("{}: expected a name such as 0001_songs.up.sql", folder.join(engine).join(file).display())
        })?);
    }
    check_numbers(folder, &migrations)?;

    let mut code = String::new();
    for (engine, files) in &engines {
        let folder = folder.join(engine);
        let _ = writeln!(code, "pub(in crate::db) const {}: &[Files] = &[", engine.to_uppercase());
        for (version, name) in &migrations {
            let _ = writeln!(code, "    Files {{ version: {version}, name: {name:?},");
            for direction in DIRECTIONS {
                let file = format!("{version:04}_{name}.{direction}.sql");
                let path = folder.join(&file).display().to_string();
                let sql = files.get(&file).ok_or_else(|| {
                    format!("{path} is missing: each engine has an up and a down file for each migration")
                })?;
                let no_transaction = excludes_transaction(sql);
                if no_transaction && engine == "sqlite" {
                    return Err(format!(
                        "{path}: remove its first line: on SQLite, all migrations of a run are one transaction"
                    ));
                }
                let _ = writeln!(
                    code,
                    "        {direction}: Script {{ sql: include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/\", \
                     {path:?})), no_transaction: {no_transaction} }},"
                );
            }
            code.push_str("    },\n");
        }
        code.push_str("];\n");
    }
    let _ = writeln!(code, "/// The version of the newest migration in this binary.");
    let _ = writeln!(code, "pub const LATEST: i64 = {};", migrations.len());
    Ok(code)
}

/// The names in a folder, except hidden ones.
fn entries(folder: &Path) -> Result<Vec<String>, String> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    let names: Result<Vec<String>, std::io::Error> = read();
    let names = names.map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
}

fn files(folder: &Path, engine: &str) -> Result<Files, String> {
    let folder = folder.join(engine);
    let read = |file: String| {
        let path = folder.join(&file);
        match fs::read_to_string(&path) {
            Ok(sql) => Ok((file, sql)),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    };
    entries(&folder)?.into_iter().map(read).collect()
}

/// The number and the name in the name of a file.
fn parse(file: &str) -> Option<(u16, String)> {
    let stem = DIRECTIONS.iter().find_map(|direction| file.strip_suffix(&format!(".{direction}.sql")))?;
    let (number, name) = stem.split_once('_')?;
    let is_number = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_number && is_name).then_some(())?;
    Some((number.parse().ok()?, name.to_owned()))
}

/// Checks that there is a migration for each number from 1, and one name for each number.
fn check_numbers(folder: &Path, migrations: &BTreeSet<(u16, String)>) -> Result<(), String> {
    let folder = folder.display();
    let mut last: Option<&(u16, String)> = None;
    for migration @ (number, name) in migrations {
        let expected = last.map_or(1, |(number, _)| number + 1);
        match last {
            Some((same, other)) if number == same => {
                return Err(format!("{folder}: {number:04} has two names, {other} and {name}; keep one"));
            }
            _ if *number != expected => {
                return Err(format!("{folder}: {expected:04} is missing before {number:04}_{name}"));
            }
            _ => last = Some(migration),
        }
    }
    last.map(drop).ok_or_else(|| format!("{folder} has no migration files"))
}

/// Whether the first line of a file is `-- no transaction`, or sqlx's own spelling of it.
fn excludes_transaction(sql: &str) -> bool {
    matches!(sql.lines().next().map(str::trim_end), Some("-- no transaction" | "-- no-transaction"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of a folder with these files, or the problem without the path of the folder.
    fn table_of(files: &[(&str, &str)]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (file, sql) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("it is in the folder of an engine")).expect("it is created");
            fs::write(path, sql).expect("it is written");
        }
        table(folder.path()).map_err(|problem| problem.replace(&format!("{}", folder.path().display()), "migrations"))
    }

    /// A migration on two engines.
    fn both(number: &str, up: &'static str) -> Vec<(String, &'static str)> {
        let of = |engine: &str| {
            DIRECTIONS.map(|direction| {
                (format!("{engine}/{number}.{direction}.sql"), if direction == "up" { up } else { "SELECT 1" })
            })
        };
        [of("first"), of("second")].concat()
    }

    fn table_of_all(files: &[(String, &str)]) -> Result<String, String> {
        table_of(&files.iter().map(|(file, sql)| (file.as_str(), *sql)).collect::<Vec<_>>())
    }

    #[test]
    fn each_engine_has_a_table_of_its_files() {
        let files: Vec<_> = (1..=12).flat_map(|number| both(&format!("{number:04}_songs"), "SELECT 1")).collect();
        let code = table_of_all(&files).expect("it is complete");
        assert!(code.contains("const FIRST: &[Files]") && code.contains("const SECOND: &[Files]"), "{code}");
        assert!(code.contains("version: 12, name: \"songs\"") && code.contains("LATEST: i64 = 12;"), "{code}");
        assert!(code.contains("/second/0010_songs.down.sql") && !code.contains("no_transaction: true"), "{code}");
    }

    #[test]
    fn a_first_line_excludes_the_transaction() {
        let code = table_of_all(&both("0001_songs", "-- no transaction\nSELECT 1")).expect("it is complete");
        assert_eq!(code.matches("no_transaction: true").count(), 2, "{code}");
        assert!(excludes_transaction("-- no transaction\r\nSELECT 1") && excludes_transaction("-- no-transaction"));
        for other in ["", "SELECT 1\n-- no transaction", "-- no transactions", "-- no transaction is needed"] {
            assert!(!excludes_transaction(other), "{other}");
        }
    }

    #[test]
    fn an_incomplete_folder_is_reported() {
        let without = |file: &str| {
            let files = [both("0001_songs", "SELECT 1"), both("0002_tracks", "SELECT 1")].concat();
            let files: Vec<_> = files.into_iter().filter(|(name, _)| !name.contains(file)).collect();
            table_of_all(&files).expect_err("it is incomplete")
        };
        for file in ["first/0002_tracks.down.sql", "second/0001_songs.up.sql"] {
            let problem =
                format!("migrations/{file} is missing: each engine has an up and a down file for each migration");
            assert_eq!(without(file), problem);
        }
        assert!(without("first/0002").starts_with("migrations/first/0002_tracks.up.sql is missing"));
        assert_eq!(without("0001"), "migrations: 0001 is missing before 0002_tracks");
        assert_eq!(without(".sql"), "migrations has no migration files");
    }

    #[test]
    fn a_wrong_name_is_reported() {
        let problem = |file: &str| {
            let mut files = both("0001_songs", "SELECT 1");
            files.push((file.to_owned(), "SELECT 1"));
            table_of_all(&files).expect_err("it is wrong")
        };
        for file in ["first/2_x.up.sql", "first/0002.up.sql", "first/0002_.up.sql", "first/0002_x.sql", "first/notes"] {
            assert_eq!(problem(file), format!("migrations/{file}: expected a name such as 0001_songs.up.sql"));
        }
        assert_eq!(problem("first/0001_tracks.up.sql"), "migrations: 0001 has two names, songs and tracks; keep one");
    }

    #[test]
    fn sqlite_has_no_migration_without_a_transaction() {
        let files = [("sqlite/0001_songs.up.sql", "-- no transaction"), ("sqlite/0001_songs.down.sql", "SELECT 1")];
        assert_eq!(
            table_of(&files).expect_err("it is rejected"),
            "migrations/sqlite/0001_songs.up.sql: remove its first line: on SQLite, all migrations of a run are one transaction"
        );
    }
}
