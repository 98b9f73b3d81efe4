//! Where an export is written: whatever a path names, without a blocked pipe blocking the process.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::{NamedTempFile, TempPath};
use tokio::sync::{mpsc, oneshot};

/// Chunks that wait for their writer.
const AHEAD: usize = 2;
/// As many as Linux follows.
const LINKS_MAX: usize = 40;

/// Writes on a thread of its own. A task that waits for it can be stopped, which the system call itself cannot; the
/// thread then ends with the process.
pub struct Sink {
    chunks: mpsc::Sender<Vec<u8>>,
    outcome: oneshot::Receiver<io::Result<()>>,
}

impl Sink {
    /// Writes to what this opens, which may block as well: a FIFO is opened once it has a reader.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<W: Write>(open: impl FnOnce() -> io::Result<W> + Send + 'static) -> io::Result<Self> {
        let (chunks, mut waiting) = mpsc::channel::<Vec<u8>>(AHEAD);
        let (done, outcome) = oneshot::channel();
        thread::Builder::new().name("writer".to_owned()).spawn(move || {
            let write = || {
                let mut writer = open()?;
                while let Some(chunk) = waiting.blocking_recv() {
                    writer.write_all(&chunk)?;
                }
                writer.flush()
            };
            // Nobody waits for the outcome of a task that was stopped.
            let _ = done.send(write());
        })?;
        Ok(Self { chunks, outcome })
    }

    /// Writes to standard output. Its own buffer would hold back what is behind the last line's end.
    ///
    /// # Errors
    /// When it is closed.
    pub fn standard() -> io::Result<Self> {
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::start(|| Ok(output))
    }

    /// Hands a chunk over, and waits while the writer is behind.
    ///
    /// # Errors
    /// Those of the writer.
    pub async fn write(&mut self, chunk: Vec<u8>) -> io::Result<()> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        outcome((&mut self.outcome).await).and_then(|()| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Those of the writer.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.chunks);
        outcome(self.outcome.await)
    }
}

fn outcome(received: Result<io::Result<()>, oneshot::error::RecvError>) -> io::Result<()> {
    received.unwrap_or_else(|_| Err(io::Error::other("the writing thread ended early")))
}

/// A file that takes the place of another when it is complete.
pub struct Replacement {
    target: PathBuf,
    content: File,
    /// The name of the content, beside the target. Where none can be there, the content has no name.
    path: Option<TempPath>,
}

/// What a path names as the place of an export.
pub enum Place {
    /// Standard output, by `/dev/stdout` or another of its names.
    Standard,
    /// Another open file, by `/dev/fd/N`, which is written from its end on.
    Descriptor(PathBuf),
    /// A FIFO or a device, which is written directly.
    Special(PathBuf),
    /// A regular file, or nothing yet; the file behind any symbolic links.
    Regular(PathBuf),
}

impl Place {
    /// Follows the symbolic links of a path.
    ///
    /// # Errors
    /// When it names a folder, or nothing that can be found.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let folder = folder_of(&path);
            if is_of_descriptors(folder) {
                let is_standard = path.file_name().is_some_and(|name| name == "1");
                return Ok(if is_standard { Self::Standard } else { Self::Descriptor(path) });
            }
            let kind = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata.file_type(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Regular(path)),
                Err(error) => return Err(error),
            };
            if kind.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            if !kind.is_symlink() {
                return Ok(if kind.is_file() { Self::Regular(path) } else { Self::Special(path) });
            }
            path = folder.join(fs::read_link(&path)?);
        }
        Err(io::Error::other("too many levels of symbolic links"))
    }
}

/// Opens a file to be written from its end on; there must be one.
///
/// # Errors
/// Those of the system.
pub fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

impl Replacement {
    /// Prepares to replace this file, which may not exist yet.
    ///
    /// # Errors
    /// When no temporary file can be created.
    pub fn of(target: PathBuf) -> io::Result<Self> {
        let exists = target.try_exists()?;
        // As private as the file that it replaces may be, and else as umask has it.
        let mode = Permissions::from_mode(if exists { 0o600 } else { 0o666 });
        let mut beside = tempfile::Builder::new();
        beside.prefix(".roster-export-").permissions(mode);
        match beside.tempfile_in(folder_of(&target)).map(NamedTempFile::into_parts) {
            Ok((content, path)) => Ok(Self { target, content, path: Some(path) }),
            // A file may be writable in a folder that is not, such as one that is mounted into a container.
            Err(error) if exists && is_read_only(&error) => {
                OpenOptions::new().write(true).open(&target)?;
                let content = tempfile::tempfile().map_err(|cause| {
                    let temporary = std::env::temp_dir();
                    let reason = format!(
                        "its folder is read-only ({error}), and there can be no temporary file in {} ({cause}); make \
                         one of them writable, or redirect standard output: `migrate export -`",
                        temporary.display()
                    );
                    io::Error::new(error.kind(), reason)
                })?;
                Ok(Self { target, content, path: None })
            }
            Err(error) => Err(error),
        }
    }

    /// What to write to.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn content(&self) -> io::Result<File> {
        self.content.try_clone()
    }

    /// Puts the content into its place, once it is complete. Another's mode and owner stay.
    ///
    /// # Errors
    /// Those of the system. The file stays as it was, unless its content had to be overwritten and that failed.
    pub fn finish(mut self) -> io::Result<()> {
        self.content.sync_all()?;
        let Some(path) = self.path.take() else { return self.overwrite() };
        match fs::metadata(&self.target) {
            Ok(old) => {
                let group = fchown(&self.content, Some(old.uid()), Some(old.gid()))
                    .or_else(|_| fchown(&self.content, None, Some(old.gid())));
                // What one group may do is not for another.
                let mode = old.mode() & if group.is_ok() { 0o777 } else { 0o707 };
                self.content.set_permissions(Permissions::from_mode(mode))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match path.persist(&self.target) {
            Ok(()) => Ok(()),
            // It is mounted by itself, and stays where it is.
            Err(refused) if refused.error.kind() == io::ErrorKind::ResourceBusy => self.overwrite(),
            Err(refused) => Err(refused.error),
        }
    }

    fn overwrite(mut self) -> io::Result<()> {
        self.content.rewind()?;
        let mut target = OpenOptions::new().write(true).truncate(true).open(&self.target)?;
        io::copy(&mut self.content, &mut target)?;
        target.sync_all()
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The folder that holds this path.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a folder is `/dev/fd`, under any name: what it holds are this process's open files, not files of a folder.
fn is_of_descriptors(folder: &Path) -> bool {
    let folder = fs::canonicalize(folder).unwrap_or_default();
    folder == Path::new("/dev/fd") || folder.starts_with("/proc") && folder.ends_with("fd")
}
