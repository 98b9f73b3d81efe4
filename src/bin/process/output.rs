//! Results on standard output.

use std::fmt::Display;
use std::io;

use roster::listing::output::Sink;

/// The exit code of a program that SIGPIPE ended, in a shell: 128 and the number of the signal. A pipeline with `pipefail`
/// does not mistake the beginning of an export for all of it.
pub(crate) const READER_ENDED: u8 = 141;

/// Prints a line. Its reader may have ended, or may not read. The macros of the standard library would panic or block.
///
/// # Errors
/// Those of the system: [`io::ErrorKind::BrokenPipe`] when the reader has ended.
pub(crate) async fn print(line: impl Display) -> io::Result<()> {
    let mut output = Sink::standard()?;
    output.write(format!("{line}\n").into()).await?;
    output.finish().await
}
