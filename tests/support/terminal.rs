//! A terminal for a process: the test reads its screen and types into it.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::eventually;

pub(crate) struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    reader: thread::JoinHandle<()>,
}

impl Terminal {
    /// Attaches standard input and standard error of a command, which is to be started and dropped.
    pub(crate) fn attach(command: &mut Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let noctty = i32::try_from(OpenptFlags::NOCTTY.bits()).unwrap();
        let path = OsStr::from_bytes(name.to_bytes());
        let terminal = OpenOptions::new().read(true).write(true).custom_flags(noctty).open(path).unwrap();
        command.stdin(terminal.try_clone().unwrap()).stderr(terminal);
        let mut output = File::from(controller);
        let keyboard = output.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = screen.clone();
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails when the last process has closed the terminal.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { keyboard, screen, reader }
    }

    /// Waits until this text is shown.
    pub(crate) fn shows(&self, text: &str) {
        eventually(&format!("{text:?} is shown"), || self.screen.lock().unwrap().contains(text));
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// All that was shown, when the process has ended.
    pub(crate) fn into_screen(self) -> String {
        self.reader.join().unwrap();
        self.screen.lock().unwrap().clone()
    }
}
