//! How many files the process may have open, made to fit how many clients it may have.

use crate::limits::RESERVED_FILES;
use std::fs::File;
use std::io;

/// Raises the limit of open files to what `clients_max` clients need. Returns how many clients there is
/// room for, which is fewer, with a warning, where the system does not allow that many.
pub(super) fn make_room(clients_max: u32) -> u32 {
    let wanted = u64::from(clients_max) + u64::from(RESERVED_FILES);
    let Ok((soft, hard)) = rlimit::Resource::NOFILE.get() else { return clients_max };
    if soft >= wanted {
        return clients_max;
    }
    // Beyond the hard limit only a privileged process gets; for others this fails and changes nothing.
    let raised = rlimit::Resource::NOFILE.set(wanted, hard.max(wanted)).is_ok()
        || rlimit::Resource::NOFILE.set(hard, hard).is_ok();
    let files = if raised { wanted.min(rlimit::Resource::NOFILE.get_soft().unwrap_or(soft)) } else { soft };
    if files >= wanted {
        return clients_max;
    }
    let room = u32::try_from(files.saturating_sub(u64::from(RESERVED_FILES))).unwrap_or(clients_max).max(1);
    log::warn!(
        "only {files} files may be open, room for {room} clients instead of {clients_max}; \
         raise it with `ulimit -n {wanted}`, or LimitNOFILE= of a service"
    );
    room
}

/// Whether a system call failed because the process, or the system, has no more files to give.
pub(super) fn are_used_up(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which have no kind of their own.
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// A file held open for nothing: given up when there are no more, it leaves one to refuse clients with.
pub(super) fn spare() -> io::Result<File> {
    File::open("/dev/null")
}
