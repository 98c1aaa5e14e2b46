//! gzip and deflate at level 1, with one state that is kept: it is a quarter of a megabyte.

use flate2::{Compress, Compression as Level, Crc, FlushCompress, Status};

use crate::config::Compression;

const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Compresses bodies for one exporter.
pub struct Compressor {
    kind: Compression,
    state: Option<Compress>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor; its state comes with the first body.
    pub fn new(kind: Compression) -> Self {
        Self { kind, state: None }
    }

    /// The value of `Content-Encoding` and `grpc-encoding`.
    pub(crate) fn name(kind: Compression) -> Option<&'static str> {
        match kind {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Deflate => Some("deflate"),
        }
    }

    /// Appends `body` compressed to `out`. `None`: the compressor failed, `out` is to be thrown away.
    pub fn append(&mut self, body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self.kind {
            Compression::None => out.extend_from_slice(body),
            Compression::Deflate => self.deflate(body, out)?,
            Compression::Gzip => {
                out.extend_from_slice(&GZIP_HEADER);
                self.deflate(body, out)?;
                let mut crc = Crc::new();
                crc.update(body);
                out.extend_from_slice(&crc.sum().to_le_bytes());
                out.extend_from_slice(&(body.len() as u32).to_le_bytes());
            }
        }
        Some(())
    }

    fn deflate(&mut self, body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let zlib = self.kind == Compression::Deflate;
        let state = self.state.get_or_insert_with(|| Compress::new(Level::new(1), zlib));
        state.reset();
        let mut rest = body;
        loop {
            out.reserve((rest.len() / 4).max(1024));
            let before = state.total_in();
            let status = state.compress_vec(rest, out, FlushCompress::Finish).ok()?;
            rest = rest.get((state.total_in() - before) as usize..)?;
            if status == Status::StreamEnd {
                return Some(());
            }
        }
    }

    /// Frees the state of an exporter that has nothing to do.
    pub(crate) fn shrink(&mut self) {
        self.state = None;
    }
}
