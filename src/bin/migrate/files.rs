//! `migrate import` and `migrate export`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use roster::db::Session;
use roster::listing::Table;
use roster::listing::export;
use roster::listing::file::{Error, Format, counted};
use roster::listing::import::{self, Import};
use roster::listing::output::{self, Place, Replacement, Sink};
use tokio_util::sync::CancellationToken;

use super::bad_rows::BadRows;
use super::progress::{self, Progress};
use super::report::{Failure, print};

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
        None => Err(Failure::new(2, &"the file's name does not tell its format: pass --format csv or --format ndjson")),
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// A file that is written.
struct Target {
    path: PathBuf,
    /// The content of a regular file, which it replaces at the end.
    replacement: Option<Replacement>,
    /// Whether it is an open file, such as standard output, which must contain nothing else.
    is_open: bool,
}

impl Target {
    async fn open(session: &mut Session, path: PathBuf) -> Result<(Sink, Self), Failure> {
        let cannot_write = |error| cannot_write(&path, &error);
        let place = if is_standard(&path) { Place::Standard } else { Place::of(&path).map_err(cannot_write)? };
        if let Some(database) = session.file().await? {
            place.check_not_database(&database).map_err(cannot_write)?;
        }
        let (is_open, mut replacement) = (matches!(place, Place::Standard | Place::Descriptor(_)), None);
        let sink = match place {
            Place::Standard => Sink::standard()?,
            Place::Descriptor(path) | Place::Special(path) => Sink::start(move || output::append(&path))?,
            Place::Regular(path) => {
                let new = replacement.insert(Replacement::of(path).map_err(cannot_write)?);
                let content = new.content()?;
                Sink::start(|| Ok(content))?
            }
        };
        Ok((sink, Self { path, replacement, is_open }))
    }

    /// Completes the file, when everything was written to it.
    fn finish(self) -> Result<(), Failure> {
        let finished = self.replacement.map_or(Ok(()), Replacement::finish);
        finished.map_err(|error| cannot_write(&self.path, &error))
    }
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
    let (sink, target) = match bad_rows {
        Some(path) => Some(Target::open(session, path).await?),
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
    let sink = tokio::select! {
        () = stop.cancelled() => None,
        sink = bad_rows.finish() => sink,
    };
    progress.end();
    // Also when nothing was imported because of them.
    let is_complete = matches!(imported, Ok(_) | Err(Error::BadRows { .. }));
    if let (Some(sink), Some(target), true) = (sink, target, is_complete) {
        sink.finish().await?;
        target.finish()?;
    }
    let imported = imported?;
    print(format_args!(
        "{} imported, {} left out",
        counted(imported.rows, what.table.row),
        counted(imported.bad, "row")
    ))
    .await?;
    Ok(())
}

pub(super) async fn export(
    session: &mut Session,
    table: &'static Table,
    file: PathBuf,
    format: Format,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (sink, target) = Target::open(session, file).await?;
    let mut progress = Progress::new("rows", None);
    let exported = export::export(session, table, sink, format, stop, |rows, bytes| progress.at(rows, Some(bytes)));
    let exported = exported.await;
    progress.end();
    let (count, is_open) = (exported?, target.is_open);
    target.finish()?;
    if !is_open {
        print(format_args!("{} exported", counted(count, table.row))).await?;
    }
    Ok(())
}
