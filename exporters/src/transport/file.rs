//! OTLP/JSON, one request per line. <https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/>
//!
//! Opened with the first line and where another file, or none, has taken its name since; appended to with one write
//! per line, so that processes may share a file.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::output;
use crate::request::{Failure, io_text};

/// An open file and what it was.
#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
}

/// A file of lines.
#[derive(Debug)]
pub(crate) struct Lines {
    path: String,
    /// The same where the application goes to another folder.
    absolute: PathBuf,
    open: Option<Open>,
    torn: bool,
}

impl Lines {
    /// `%p` in the path is the process id.
    pub(crate) fn new(path: &str) -> Self {
        let path = path.replace("%p", &std::process::id().to_string());
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| PathBuf::from(&path));
        Self { path, absolute, open: None, torn: false }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::File(format!("cannot write {}: {}", self.path, io_text(error)))
    }

    fn open(&self) -> std::io::Result<Open> {
        // A FIFO that nobody reads fails instead of waiting for a reader.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(&self.absolute)?;
        let metadata = file.metadata()?;
        Ok(Open { file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Whether it can be written to; leaves no empty file behind.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        // A link that leads to nothing yet is there all the same.
        let existed = std::fs::symlink_metadata(&self.absolute).is_ok();
        self.open().map_err(|error| self.failure(&error))?;
        if !existed {
            let _ = std::fs::remove_file(&self.absolute);
        }
        Ok(())
    }

    /// Until the next line.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// The file that has the name now.
    fn current(&mut self) -> std::io::Result<Open> {
        let Some(open) = self.open.take() else { return self.open() };
        let moved = match std::fs::metadata(&self.absolute) {
            Ok(now) => (now.dev(), now.ino()) != open.identity,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if !moved {
            return Ok(open);
        }
        match self.open() {
            // Out of reach since (chroot, other rights): what still has a name somewhere is not lost.
            Err(_) if open.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) => Ok(open),
            other => {
                self.torn &= other.is_err();
                other
            }
        }
    }

    /// Appends `line`, which has no newline yet.
    pub(crate) fn append(&mut self, line: &mut Vec<u8>) -> Result<(), Failure> {
        let open = self.current().map_err(|error| self.failure(&error))?;
        if self.torn {
            // An earlier line was written in part: what follows must not be glued to it.
            line.insert(0, b'\n');
        }
        line.push(b'\n');
        match output::write_all(open.file.as_fd(), line, usize::MAX, output::PATIENCE) {
            Ok(()) => {
                self.open = Some(open);
                self.torn = false;
                Ok(())
            }
            Err(error) => {
                self.torn = true;
                Err(self.failure(&error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_leaves_a_link_that_leads_to_nothing() {
        let folder = std::env::temp_dir().join(format!("remora-link-{}", std::process::id()));
        let (link, target) = (folder.join("spans.jsonl"), folder.join("target.jsonl"));
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let result = Lines::new(&link.to_string_lossy()).check();
        let found = std::fs::read_link(&link);
        let plain = folder.join("plain.jsonl");
        let checked = Lines::new(&plain.to_string_lossy()).check();
        let left_behind = plain.exists();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(result.is_ok() && checked.is_ok());
        assert_eq!(found.ok(), Some(target));
        assert!(!left_behind);
    }
}
