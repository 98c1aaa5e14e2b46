//! Descriptors with a reader at the other end: written to without waiting long for one that does not read.
#![expect(unsafe_code, reason = "libc calls: fcntl, poll, write")]

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::descriptors;

/// How long the exporter thread waits for a reader that takes nothing.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// stderr stands still: who writes to it does not wait again until it has moved.
static STALLED: AtomicBool = AtomicBool::new(false);

/// Writes to the process's stderr, by no lock: a child of a fork could inherit one locked. Fails where descriptor 2
/// is closed, or is the application's: what Python opens under that number is closed on exec, a stderr is not.
pub fn stderr(bytes: &[u8], patience: Duration) -> io::Result<()> {
    let closed = || io::Error::other("it is closed");
    let patience = if STALLED.load(Ordering::Relaxed) { Duration::ZERO } else { patience };
    // No more at once than a pipe that has room takes without waiting.
    let write = |stderr| write_all(stderr, bytes, libc::PIPE_BUF, patience);
    let result = if descriptors::are_separate() {
        write(descriptors::stderr().map_err(|_| closed())?.as_fd())
    } else {
        // SAFETY: takes plain numbers; that nothing is open under this one is an answer.
        let flags = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_GETFD) };
        if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
            return Err(closed());
        }
        // SAFETY: it was open a moment ago. Where the application closes it meanwhile, the write fails.
        write(unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) })
    };
    match &result {
        Ok(()) => STALLED.store(false, Ordering::Relaxed),
        Err(error) if error.kind() == ErrorKind::TimedOut => STALLED.store(true, Ordering::Relaxed),
        Err(_) => {}
    }
    result
}

/// Writes everything, at most `most` bytes at once, cut behind a line where one ends there. Fails where nothing was
/// taken for as long as `patience`.
pub(crate) fn write_all(
    fd: BorrowedFd<'_>,
    mut bytes: &[u8],
    most: usize,
    patience: Duration,
) -> io::Result<()> {
    let mut until = Instant::now() + patience;
    while !bytes.is_empty() {
        wait_writable(fd, until)?;
        let piece = bytes.get(..most).map_or(bytes, |piece| {
            let line = piece.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            piece.get(..line.unwrap_or(most)).unwrap_or(piece)
        });
        // SAFETY: `piece` is readable for its length.
        let written = unsafe { libc::write(fd.as_raw_fd(), piece.as_ptr().cast(), piece.len()) };
        match usize::try_from(written) {
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                until = Instant::now() + patience;
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => {}
                // Somebody else was faster, or what is polled and what is taken differ.
                error if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1).min(patience));
                    if Instant::now() >= until {
                        return Err(nobody_reads());
                    }
                }
                error => return Err(error),
            },
        }
    }
    Ok(())
}

fn nobody_reads() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "nobody reads it")
}

fn wait_writable(fd: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        let millis = libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one valid structure.
        match unsafe { libc::poll(&raw mut asked, 1, millis) } {
            0 if left.as_millis() == 0 => return Err(nobody_reads()),
            0 => {}
            // A write would raise SIGPIPE, which the application may have at its default.
            1 if asked.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => {
                return Err(ErrorKind::BrokenPipe.into());
            }
            1 => return Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_given_up_and_one_that_is_read_gets_everything_in_whole_lines() {
        let (mut reader, writer) = io::pipe().unwrap();
        let line = format!("{}\n", "x".repeat(99));
        let text = line.repeat(10_000);
        let error = write_all(writer.as_fd(), text.as_bytes(), libc::PIPE_BUF, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let reading = std::thread::spawn(move || {
            let mut all = String::new();
            reader.read_to_string(&mut all).unwrap();
            all
        });
        write_all(writer.as_fd(), text.as_bytes(), libc::PIPE_BUF, Duration::from_secs(20)).unwrap();
        drop(writer);
        let all = reading.join().unwrap();
        assert!(all.len() > text.len());
        assert!(all.lines().all(|read| read.len() == 99));
    }

    #[test]
    fn a_pipe_without_a_reader_raises_no_signal() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = write_all(writer.as_fd(), b"x", 1, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
