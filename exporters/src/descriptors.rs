//! A table of descriptors of the exporter thread's own, where the kernel gives one (Linux 5.9 and later).
//!
//! What an application closes by number (`os.closerange`, a daemon's beginnings) is then never ours, none of our
//! numbers is open in its table or reaches its children, and its limit of open files is not ours to use up. Its system
//! calls cost what they do in a process of one thread: in a table that threads share, each counts a reference to the
//! file, some 30 ns a call.
//!
//! Nothing that is opened on one side may be used by its number on the other. The application's threads wake this one
//! by memory alone ([`crate::thread::Bell`]), and stderr is opened by name for each line: a copy that was kept would keep
//! the stream open that an application closes for its reader to see.
#![expect(unsafe_code, reason = "libc calls: close_range, epoll_create1")]

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;

/// Closes in a copy of the table, which is the caller's from then on. <linux/close_range.h>
const CLOSE_RANGE_UNSHARE: libc::c_uint = 1 << 1;
/// `/proc/self` is the process's first thread, whose table is the application's.
const OPEN: &str = "/proc/self/fd/2";
const INFO: &str = "/proc/self/fdinfo";

thread_local! {
    static SEPARATE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread's numbers mean something else than the process's.
pub(crate) fn are_separate() -> bool {
    SEPARATE.get()
}

/// Gives the calling thread an empty table of its own. False: it goes on sharing the process's, since the kernel has
/// none, or stderr cannot be opened by name (a socket; a file that is not appended to).
pub(crate) fn separate() -> bool {
    // No more calls than CPython itself makes: a filter such as systemd's kills who makes one that it does not know.
    let reached = stderr().is_ok() || flags().is_none();
    if !reached || fs::metadata(INFO).is_err() || !look_ups_keep_none() {
        return false;
    }
    // SAFETY: plain numbers. The calling thread has opened nothing yet; what the others have open stays so in theirs.
    if unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, CLOSE_RANGE_UNSHARE) } != 0 {
        return false;
    }
    SEPARATE.set(true);
    // What somebody writes to the standard ones (the C library before it aborts) must not go into a connection. An
    // epoll can be neither read nor written, and needs no file system.
    for _ in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        // SAFETY: takes a plain number; the descriptor is left open for as long as the table is there.
        unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    }
    true
}

/// How the process has its stderr open. `None` where it is closed, or is the application's: what Python opens under
/// that number is closed on exec, a stderr is not.
fn flags() -> Option<libc::c_int> {
    let info = fs::read_to_string(format!("{INFO}/{}", libc::STDERR_FILENO)).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    libc::c_int::from_str_radix(flags.trim(), 8).ok().filter(|flags| flags & libc::O_CLOEXEC == 0)
}

/// The process's stderr, for a thread whose table is separate.
pub(crate) fn stderr() -> io::Result<File> {
    let flags = flags().ok_or(ErrorKind::NotFound)?;
    let file = OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(OPEN)?;
    // The process goes on where its last write ended: into what we had written behind that.
    if file.metadata()?.is_file() && flags & libc::O_APPEND == 0 {
        return Err(ErrorKind::Unsupported.into());
    }
    Ok(file)
}

/// Whether looking up a name leaves no descriptor open that the application's next look-up would use by its number:
/// the modules of the C library that are known to open one for each call.
fn look_ups_keep_none() -> bool {
    fs::read_to_string("/etc/nsswitch.conf").map_or(true, |configured| keep_none(&configured))
}

fn keep_none(configured: &str) -> bool {
    const KNOWN: [&str; 5] = ["files", "dns", "myhostname", "mymachines", "resolve"];
    let hosts = configured.lines().find_map(|line| line.trim().strip_prefix("hosts:")).unwrap_or_default();
    let hosts = hosts.split('#').next().unwrap_or_default();
    // What to do with an answer stands in brackets.
    let services = hosts.split(']').filter_map(|piece| piece.split('[').next());
    let mut names = services.flat_map(str::split_whitespace);
    names.all(|name| KNOWN.contains(&name) || name.starts_with("mdns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_its_own_starts_empty_and_ends_with_its_thread() {
        let (mut reader, writer) = io::pipe().unwrap();
        let theirs = std::thread::spawn(move || {
            let separate = separate();
            assert_eq!(separate, are_separate());
            let listed = fs::read_dir("/proc/thread-self/fd").unwrap();
            let mut open: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
            open.sort_unstable();
            separate.then_some(open)
        });
        // Where the test's own stderr is a socket there is nothing to see.
        if let Some(open) = theirs.join().unwrap() {
            // The folder itself is open while it is read.
            assert_eq!(open, ["0", "1", "2", "3"]);
        }
        assert!(!are_separate());
        drop(writer);
        assert_eq!(io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn only_known_services_are_asked_from_a_table_of_their_own() {
        for known in [
            "",
            "passwd: files ldap\nhosts: files dns",
            "hosts:          files mdns4_minimal [NOTFOUND=return] dns # ldap",
            " hosts: files mymachines [ !UNAVAIL = return ] resolve[NOTFOUND=return]myhostname",
        ] {
            assert!(keep_none(known), "{known:?}");
        }
        for unknown in ["hosts: files wins dns", "hosts: ldap", "hosts: files [x] sss"] {
            assert!(!keep_none(unknown), "{unknown:?}");
        }
    }
}
