//! `migrate import` and `migrate export`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use roster::db::Session;
use roster::listing::Table;
use roster::listing::export;
use roster::listing::file::{Error, Format};
use roster::listing::import::{self, Import, Imported};
use roster::listing::output::{Place, Replacement, Sink, append};
use tokio_util::sync::CancellationToken;

use super::bad_rows::BadRows;
use super::progress::{self, Progress};
use super::report::{Failure, counted, print};

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum FileFormat {
    Csv,
    Ndjson,
}

pub(super) fn format_of(file: &Path, format: Option<FileFormat>) -> Result<Format, Failure> {
    let extension = file.extension().unwrap_or_default();
    match format {
        Some(FileFormat::Csv) => Ok(Format::Csv),
        Some(FileFormat::Ndjson) => Ok(Format::Ndjson),
        None if extension.eq_ignore_ascii_case("csv") => Ok(Format::Csv),
        None if ["ndjson", "jsonl"].iter().any(|known| extension.eq_ignore_ascii_case(known)) => Ok(Format::Ndjson),
        None => {
            Err(Failure::new(2, &"the format is not known from the file name; pass --format csv or --format ndjson"))
        }
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// A file that is written.
struct Target {
    /// The content of a regular file, which it replaces at the end.
    replacement: Option<Replacement>,
    /// Whether it is an open file, such as standard output, which must contain nothing else.
    is_open: bool,
}

impl Target {
    async fn open(session: &mut Session, path: &Path) -> Result<(Sink, Self), Failure> {
        let cannot_write = |error| cannot_write(path, &error);
        let place = place_of(path).map_err(cannot_write)?;
        if let Some(database) = session.file().await? {
            place.check_not_database(&database).map_err(cannot_write)?;
        }
        let (is_open, mut replacement) = (matches!(place, Place::Standard | Place::Descriptor(_)), None);
        let sink = match place {
            Place::Standard => Sink::standard()?,
            Place::Descriptor(path) | Place::Special(path) => Sink::start(move || append(&path))?,
            Place::Regular(path) => {
                let new = replacement.insert(Replacement::of(path).map_err(cannot_write)?);
                let content = new.content()?;
                Sink::start(|| Ok(content))?
            }
        };
        Ok((sink, Self { replacement, is_open }))
    }

    /// Completes the file, when everything was written to it.
    fn finish(self) -> io::Result<()> {
        self.replacement.map_or(Ok(()), Replacement::finish)
    }
}

fn place_of(path: &Path) -> io::Result<Place> {
    if is_standard(path) { Ok(Place::Standard) } else { Place::of(path) }
}

/// Returns an error if the list of bad rows would replace the file to import.
fn check_not_input(list: &Path, input: &Path) -> Result<(), Failure> {
    let input = if is_standard(input) { Path::new("/dev/stdin") } else { input };
    let is_at = || place_of(list)?.is_at(input);
    // A terminal or /dev/null can be both.
    if input.is_file() && is_at().map_err(|error| cannot_write(list, &error))? {
        return Err(Failure::new(2, &"--bad-rows: it is the file to import; choose another one"));
    }
    Ok(())
}

/// Completes the list of bad rows.
async fn finish_list(sink: Option<Sink>, target: Option<Target>) -> io::Result<()> {
    if let Some(sink) = sink {
        sink.finish().await?;
    }
    target.map_or(Ok(()), Target::finish)
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(74, &format_args!("cannot write {}: {error}", path.display()))
}

pub(super) async fn import(
    session: &mut Session,
    what: Import,
    file: PathBuf,
    bad_rows: Option<PathBuf>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (skip_bad, row) = (what.skip_bad, what.table.row);
    let (sink, target) = match bad_rows {
        Some(list) => {
            check_not_input(&list, &file)?;
            Some(Target::open(session, &list).await?)
        }
        None => None,
    }
    .unzip();
    let mut progress = Progress::new("rows", None);
    let bar = progress.bar().clone();
    let mut bad_rows = BadRows::new(bar.clone(), sink)?;
    let reader = bar.clone();
    let open = move || -> io::Result<Box<dyn io::Read>> {
        if is_standard(&file) {
            return Ok(Box::new(reader.wrap_read(io::stdin())));
        }
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        let opened = File::open(&file).and_then(|opened| Ok((opened.metadata()?, opened)));
        let (metadata, opened) = opened.map_err(named)?;
        if metadata.is_dir() {
            return Err(named(io::ErrorKind::IsADirectory.into()));
        }
        if metadata.is_file() {
            progress::set_length(&reader, metadata.len());
        }
        Ok(Box::new(reader.wrap_read(opened)))
    };
    let report = async |rows| bad_rows.report(rows).await;
    let at = |rows| progress.at(rows, Some(bar.position()));
    let imported = import::import(session, what, open, stop, report, at).await;
    let sink = bad_rows.finish(stop).await;
    progress.end();
    let is_open = target.as_ref().is_some_and(|target| target.is_open);
    // The result is printed before the list is complete: that may wait for a reader or fail, and does not undo the import.
    let (done, outcome) = match imported {
        Ok(Imported { rows, bad }) => {
            let result = format!("{} imported, {} left out", counted(rows, row), counted(bad, "row"));
            let printed = if is_open { Ok(()) } else { print(result).await };
            ("the rows are imported".to_owned(), printed.map_err(Failure::from))
        }
        Err(error @ Error::BadRows { .. }) => (error.to_string(), Err(error.into())),
        // The bad rows prevent the import, whatever prevents their list.
        Err(Error::Write(error)) if !skip_bad => {
            return Err(not_listed(Some(65), "some rows cannot be imported, so none was", error));
        }
        Err(error) => return Err(error.into()),
    };
    let listed = tokio::select! {
        listed = finish_list(sink, target) => listed,
        () = stop.cancelled() => Err(io::Error::other("stopped by a signal")),
    };
    match listed {
        Ok(()) => outcome,
        Err(error) => Err(not_listed(outcome.err().map(|Failure(code, _)| code), &done, error)),
    }
}

/// The failure of a list, with the exit code and the effect of the import.
fn not_listed(code: Option<u8>, done: &str, error: io::Error) -> Failure {
    let message = format!("{done}; the list could not be written: {error}");
    Failure(code.unwrap_or_else(|| Failure::from(error).0), message)
}

pub(super) async fn export(
    session: &mut Session,
    table: &'static Table,
    file: PathBuf,
    format: Format,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (sink, target) = Target::open(session, &file).await?;
    let mut progress = Progress::new("rows", None);
    let exported = export::export(session, table, sink, format, stop, |rows, bytes| progress.at(rows, Some(bytes)));
    let exported = exported.await;
    progress.end();
    let (count, is_open) = (exported?, target.is_open);
    target.finish().map_err(|error| cannot_write(&file, &error))?;
    if !is_open {
        print(format_args!("{} exported", counted(count, table.row))).await?;
    }
    Ok(())
}
