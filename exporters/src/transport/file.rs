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
        let existed = std::path::Path::new(&self.path).exists();
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
