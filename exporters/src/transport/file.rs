//! OTLP/JSON, one request per line. <https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/>
//!
//! Opened with the first line, appended to with one write per line, so that processes may share a file.

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::request::{Failure, io_text};

/// A file of lines.
#[derive(Debug)]
pub(crate) struct Lines {
    path: String,
    file: Option<File>,
    torn: bool,
}

impl Lines {
    /// `%p` in the path is the process id.
    pub(crate) fn new(path: &str) -> Self {
        Self { path: path.replace("%p", &std::process::id().to_string()), file: None, torn: false }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::File(format!("cannot write {}: {}", self.path, io_text(error)))
    }

    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new().append(true).create(true).open(&self.path)
    }

    /// Whether it can be written to; leaves no empty file behind.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        // A link that leads to nothing yet is there all the same.
        let existed = std::fs::symlink_metadata(&self.path).is_ok();
        self.open().map_err(|error| self.failure(&error))?;
        if !existed {
            let _ = std::fs::remove_file(&self.path);
        }
        Ok(())
    }

    /// Appends `line`, which has no newline yet.
    pub(crate) fn append(&mut self, line: &mut Vec<u8>) -> Result<(), Failure> {
        if self.torn {
            // An earlier line was written in part: what follows must not be glued to it.
            line.insert(0, b'\n');
        }
        line.push(b'\n');
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open().map_err(|error| self.failure(&error))?,
        };
        match file.write_all(line) {
            Ok(()) => {
                self.file = Some(file);
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
