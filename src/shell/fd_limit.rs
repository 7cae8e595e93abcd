//! How many files the process may have open, made to fit how many clients it may have.

use crate::config::Config;
use crate::limits::RESERVED_FILES;
use std::fs::File;
use std::io;

/// Raises the limit of open files to what `clients_max` clients and the links to `active_peers` need.
/// Returns how many clients there is room for, which is fewer, with a warning, where the system does not
/// allow that many: then links are left as much as they need, but not more than half.
pub(super) fn make_room(config: &Config) -> u32 {
    let clients_max = config.limits.clients_max;
    let links = u64::from(config.mesh.active_peers);
    let wanted = u64::from(clients_max) + links + u64::from(RESERVED_FILES);
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
    let free = files.saturating_sub(u64::from(RESERVED_FILES));
    let room = u32::try_from(free - links.min(free / 2)).unwrap_or(clients_max).min(clients_max).max(1);
    log::warn!(
        "only {files} files may be open, room for {room} clients instead of {clients_max} and for {} links \
         instead of {links}; raise it with `ulimit -n {wanted}`, or LimitNOFILE= of a service",
        free.saturating_sub(room.into()).min(links)
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
