//! The target of an export: a file, a pipe, a device or standard output. A blocked pipe does not block the process.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::{NamedTempFile, TempPath};
use tokio::sync::{mpsc, oneshot};

/// The capacity of the channel to the writer, in chunks.
const AHEAD: usize = 2;
/// The maximum number of symbolic links in a path, as on Linux.
const LINKS_MAX: usize = 40;

/// Writes on a separate thread. A task that waits for the thread can be stopped, but a blocked system call cannot. The
/// thread then ends with the process.
pub struct Sink {
    chunks: mpsc::Sender<Vec<u8>>,
    outcome: oneshot::Receiver<io::Result<()>>,
}

impl Sink {
    /// Opens a target and writes to it. The opening may block: that of a FIFO waits for a reader.
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
            // A stopped task has dropped the receiver.
            let _ = done.send(write());
        })?;
        Ok(Self { chunks, outcome })
    }

    /// Writes to standard output, without the buffer of the standard library, which keeps an incomplete last line.
    ///
    /// # Errors
    /// When it is closed.
    pub fn standard() -> io::Result<Self> {
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::start(|| Ok(output))
    }

    /// Sends a chunk to the writer, and waits while the channel is full.
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

/// A file that replaces another one when it is complete.
pub struct Replacement {
    target: PathBuf,
    content: File,
    /// The path of the content, in the folder of the target. None if that folder is read-only.
    path: Option<TempPath>,
}

/// The kind of target that a path names.
pub enum Place {
    /// Standard output, by `/dev/stdout` or another of its names.
    Standard,
    /// Another open file, by `/dev/fd/N`. The export is appended to it.
    Descriptor(PathBuf),
    /// A FIFO or a device, which is written directly.
    Special(PathBuf),
    /// A regular file, or one that does not exist yet, after all symbolic links.
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

    /// Whether this is the file of a path, also by another path.
    ///
    /// # Errors
    /// When one of them cannot be examined.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.identity()? == Identity::of(path)?)
    }

    fn identity(&self) -> io::Result<Identity> {
        match self {
            Self::Standard => Identity::of_file(&File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Self::Descriptor(path) | Self::Special(path) | Self::Regular(path) => Identity::of(path),
        }
    }

    /// Returns an error if this is a file of the exported SQLite database, also by another path. An export would replace
    /// the database.
    ///
    /// # Errors
    /// When it is one of them, or cannot be examined.
    pub fn check_not_database(&self, database: &Path) -> io::Result<()> {
        // The files of SQLite: https://sqlite.org/tempfiles.html
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut file = database.as_os_str().to_owned();
            file.push(suffix);
            if self.is_at(Path::new(&file))? {
                return Err(io::Error::other("it is a file of the database; choose another one"));
            }
        }
        Ok(())
    }
}

/// A file, whatever its path is.
#[derive(PartialEq, Eq)]
enum Identity {
    /// The device and the inode of an existing file.
    Existing(u64, u64),
    /// The device and the inode of the folder, and the name in it.
    Missing(u64, u64, Option<OsString>),
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) => Ok(Self::Existing(found.dev(), found.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = fs::metadata(folder_of(path))?;
                Ok(Self::Missing(folder.dev(), folder.ino(), path.file_name().map(OsStr::to_owned)))
            }
            Err(error) => Err(error),
        }
    }

    fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self::Existing(found.dev(), found.ino()))
    }
}

/// Opens an existing file to append to it.
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
        // The error of a folder that does not exist is clearer than that of the temporary file.
        fs::metadata(folder_of(&target))?;
        // Private while it may replace a private file. A new file gets the permissions of the umask.
        let mode = Permissions::from_mode(if exists { 0o600 } else { 0o666 });
        let mut beside = tempfile::Builder::new();
        beside.prefix(".roster-export-").permissions(mode);
        match beside.tempfile_in(folder_of(&target)).map(NamedTempFile::into_parts) {
            Ok((content, path)) => Ok(Self { target, content, path: Some(path) }),
            // A file may be writable in a read-only folder, such as a file that is mounted into a container.
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
            // The message names the temporary file, so only the error of the system is returned.
            Err(error) => {
                let cause = error.get_ref().and_then(Error::source).and_then(<dyn Error>::downcast_ref::<io::Error>);
                let code = cause.and_then(io::Error::raw_os_error);
                Err(code.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error))
            }
        }
    }

    /// The file to write to.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn content(&self) -> io::Result<File> {
        self.content.try_clone()
    }

    /// Replaces the target with the complete content. The mode and the owner of an existing target are kept.
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
                // Another group does not get the permissions of the old group.
                let mode = old.mode() & if group.is_ok() { 0o777 } else { 0o707 };
                self.content.set_permissions(Permissions::from_mode(mode))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match path.persist(&self.target) {
            Ok(()) => Ok(()),
            // The target is a mount point, which cannot be replaced.
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

/// Whether a folder is `/dev/fd`, also by another path. It contains the open files of this process.
fn is_of_descriptors(folder: &Path) -> bool {
    let folder = fs::canonicalize(folder).unwrap_or_default();
    folder == Path::new("/dev/fd") || folder.starts_with("/proc") && folder.ends_with("fd")
}
