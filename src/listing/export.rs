//! Rows to a file.

use std::mem;

use futures_util::TryStreamExt as _;
use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use tokio_util::sync::CancellationToken;

use super::file::{Error, Format};
use super::output::Sink;
use super::table::Table;
use crate::db::{Error as DbError, Row, Session, Value, on_engine};
use crate::json;

/// Bytes that an export writes at once.
const CHUNK: usize = 64 * 1024;

/// Writes all rows of a table, ordered by the first columns, and returns their number. The memory does not depend on it.
/// After each chunk, `progress` gets the numbers of rows and of bytes so far.
///
/// # Errors
/// [`Error::Write`], [`Error::Stopped`] and those of the database; then what was written is not complete.
pub async fn export(
    session: &mut Session,
    table: &'static Table,
    mut sink: Sink,
    format: Format,
    stop: &CancellationToken,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64, Error> {
    let write = async {
        let (mut count, mut bytes) = (0, 0);
        // Created before the first row, so that an export without rows has a header.
        let mut encoder = Encoder::new(table, format)?;
        on_engine!(Session, session, conn => {
            let mut query = table.select();
            query.push(" ORDER BY ").push(table.order());
            let mut rows = query.build().fetch(conn);
            while let Some(row) = rows.try_next().await.map_err(DbError::from)? {
                count += 1;
                if let Some(chunk) = encoder.push(&values(table, Row::of(&row))?)? {
                    bytes += chunk.len() as u64;
                    sink.write(chunk).await.map_err(Error::Write)?;
                    progress(count, bytes);
                }
            }
        });
        sink.write(encoder.finish()?).await.map_err(Error::Write)?;
        sink.finish().await.map_err(Error::Write)?;
        Ok(count)
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::Stopped),
        count = write => count,
    }
}

fn values<'r>(table: &Table, row: Row<'r>) -> Result<Vec<Value<'r>>, DbError> {
    let values = (0..table.columns.len()).map(|position| table.read(row, position));
    values.collect::<Result<_, _>>().map_err(DbError::from)
}

/// Rows in a file's format, in chunks.
pub(crate) enum Encoder {
    Csv(Box<csv::Writer<Vec<u8>>>),
    Ndjson(&'static Table, Vec<u8>),
}

impl Encoder {
    pub(crate) fn new(table: &'static Table, format: Format) -> Result<Self, Error> {
        match format {
            Format::Csv => {
                let mut writer = csv_writer();
                writer.write_record(table.names()).map_err(csv_error)?;
                Ok(Self::Csv(writer))
            }
            Format::Ndjson => Ok(Self::Ndjson(table, Vec::with_capacity(CHUNK))),
        }
    }

    /// Encodes a row. Returns a chunk when one is full.
    pub(crate) fn push(&mut self, values: &[Value<'_>]) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Csv(writer) => {
                for value in values {
                    match value {
                        Value::Text(text) => writer.write_field(text.as_bytes()),
                        other => writer.write_field(other.to_string()),
                    }
                    .map_err(csv_error)?;
                }
                writer.write_record(None::<&[u8]>).map_err(csv_error)?;
                // The writer has its own buffer, so this length grows in steps.
                if writer.get_ref().len() < CHUNK {
                    return Ok(None);
                }
                Self::Csv(mem::replace(writer, csv_writer())).finish().map(Some)
            }
            Self::Ndjson(table, bytes) => {
                write_object(table, bytes, values).map_err(|error| Error::Write(error.into()))?;
                bytes.push(b'\n');
                Ok((bytes.len() >= CHUNK).then(|| mem::replace(bytes, Vec::with_capacity(CHUNK))))
            }
        }
    }

    /// The last chunk.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Csv(writer) => writer.into_inner().map_err(|error| Error::Write(error.into_error())),
            Self::Ndjson(_, bytes) => Ok(bytes),
        }
    }
}

fn write_object(table: &Table, bytes: &mut Vec<u8>, values: &[Value<'_>]) -> serde_json::Result<()> {
    let mut serializer = json::serializer(bytes);
    let mut object = serializer.serialize_map(Some(values.len()))?;
    for (name, value) in table.names().zip(values) {
        object.serialize_entry(name, value)?;
    }
    object.end()
}

fn csv_writer() -> Box<csv::Writer<Vec<u8>>> {
    let mut writer = csv::WriterBuilder::new();
    Box::new(writer.terminator(csv::Terminator::CRLF).from_writer(Vec::with_capacity(CHUNK + CHUNK / 4)))
}

fn csv_error(error: csv::Error) -> Error {
    Error::Write(error.into())
}
