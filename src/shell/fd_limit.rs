//! The limit of open files, raised to what the configuration needs.

use crate::config::Config;
use crate::limits::RESERVED_FILES;
use std::fs::File;
use std::io;

/// Raises the limit of open files to what `clients_max` clients and `active_peers` links need. Returns the number of
/// clients that fit: fewer than configured, with a warning, where the system does not allow that many. Links come
/// first, with at most half of the files.
pub(super) fn raise(config: &Config) -> u32 {
    let clients_max = config.limits.clients_max;
    let links = u64::from(config.mesh.active_peers);
    let wanted = u64::from(clients_max) + links + RESERVED_FILES;
    let Ok((soft, hard)) = rlimit::Resource::NOFILE.get() else { return clients_max };
    if soft >= wanted {
        return clients_max;
    }
    // Only a privileged process gets beyond the hard limit; for others this fails and changes nothing.
    let raised = rlimit::Resource::NOFILE.set(wanted, hard.max(wanted)).is_ok()
        || rlimit::Resource::NOFILE.set(hard, hard).is_ok();
    let files = if raised { wanted.min(rlimit::Resource::NOFILE.get_soft().unwrap_or(soft)) } else { soft };
    if files >= wanted {
        return clients_max;
    }
    let free = files.saturating_sub(RESERVED_FILES);
    let clients = u32::try_from(free - links.min(free / 2)).unwrap_or(clients_max).min(clients_max).max(1);
    log::warn!(
        "only {files} files may be open, room for {clients} clients instead of {clients_max} and for {} links \
         instead of {links}; raise it with `ulimit -n {wanted}`, or LimitNOFILE= of a service",
        free.saturating_sub(clients.into()).min(links)
    );
    clients
}

/// Whether a system call failed because the process or the system has no more file descriptors.
pub(super) fn is_reached(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which have no kind of their own.
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// A spare file descriptor: closed when no other is left, it makes room to accept a client and refuse it.
pub(super) fn spare() -> io::Result<File> {
    File::open("/dev/null")
}
