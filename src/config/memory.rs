//! The default of `memory_max`, from the memory of this machine, or the part of it that a control group or `ulimit -v`
//! leaves to this process.

use super::units::Unit;
use super::{Config, ReadFile};
use crate::limits::HEAP_BYTES_MAX;
use std::path::{Path, PathBuf};

/// The default, as a percentage of that memory.
const PERCENT: u64 = 80;

/// The default is a multiple of this.
const MIB: u64 = 1 << 20;

/// Sets `memory_max` to its default. Returns a message about it; `None` if the memory is not known: there is no limit
/// then.
pub(super) fn set_default(config: &mut Config, read: &ReadFile<'_>) -> Option<String> {
    let (bytes, of) = machine_memory(read)?;
    config.limits.memory_max = share(bytes, 1);
    let [max, all] = [config.limits.memory_max, bytes / MIB * MIB].map(|bytes| Unit::Bytes.show(bytes));
    let why = if config.limits.memory_max == HEAP_BYTES_MAX {
        "what items up to 16 KiB can take".to_owned()
    } else {
        format!("{PERCENT} % of the {all} of {of}")
    };
    Some(format!("memory_max is {max}, {why} (memory_max = 0: no limit)"))
}

/// The default of `memory_max` for each of `nodes` nodes on this machine; `None` if its memory is not known.
pub fn memory_max_of(nodes: u64, read: &ReadFile<'_>) -> Option<u64> {
    Some(share(machine_memory(read)?.0, nodes))
}

fn share(bytes: u64, nodes: u64) -> u64 {
    (bytes / 100 * PERCENT / nodes.max(1) / MIB * MIB).clamp(MIB, HEAP_BYTES_MAX)
}

/// Bytes of memory, and their owner: the least of the machine's memory, the limits of its control group and of the
/// groups above it, and the limit of `ulimit -v`.
fn machine_memory(read: &ReadFile<'_>) -> Option<(u64, &'static str)> {
    let text = |path: &Path| String::from_utf8(read(path).ok()?.bytes).ok();
    let total = text(Path::new("/proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
        line.trim().parse::<u64>().ok()?.checked_mul(1_024)
    });
    let groups = text(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = PathBuf::from(root).join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|group| group.starts_with(root));
        above.filter_map(|group| text(&group.join(file))?.trim().parse::<u64>().ok()).min()
    });
    let group = limits.min().map(|limit| (limit, "its control group"));
    let space = text(Path::new("/proc/self/limits")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
        line.split_whitespace().next()?.parse().ok()
    });
    let space = space.map(|limit| (limit, "its address space"));
    let all = [total.map(|total| (total, "this machine")), group, space];
    all.into_iter().flatten().min_by_key(|&(bytes, _)| bytes)
}

#[cfg(test)]
mod tests {
    use super::{MIB, memory_max_of};
    use crate::config::{FileRead, Sources, load};
    use std::io;
    use std::path::Path;

    const MEMINFO: (&str, &str) = ("/proc/meminfo", "MemTotal:       10240000 kB\nMemFree: 1 kB\n");
    const TOTAL: u64 = 10_240_000 * 1_024;

    fn files<'f>(files: &'f [(&'f str, &'f str)]) -> impl Fn(&Path) -> io::Result<FileRead> + 'f {
        |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            let text = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.1;
            Ok(FileRead { bytes: text.into(), open_to_others: false })
        }
    }

    fn whole_mib(bytes: u64) -> u64 {
        bytes / 100 * 80 / MIB * MIB
    }

    #[test]
    fn default_is_a_share_of_the_machine_or_of_the_tightest_control_group() {
        let group = ("/proc/self/cgroup", "1:name=systemd:/x\n0::/a/b\n");
        let space =
            ("/proc/self/limits", "Max cpu time unlimited\nMax address space   8000000  8000000  bytes\n");
        let old = ("/proc/self/cgroup", "3:cpu,memory:/docker/1\n");
        for (files_there, of) in [
            (vec![], None),
            (vec![MEMINFO], Some(TOTAL)),
            (vec![MEMINFO, group], Some(TOTAL)),
            (vec![MEMINFO, group, ("/sys/fs/cgroup/a/b/memory.max", "max\n")], Some(TOTAL)),
            (vec![MEMINFO, group, ("/sys/fs/cgroup/a/b/memory.max", "5000000\n")], Some(5_000_000)),
            (vec![MEMINFO, group, ("/sys/fs/cgroup/a/memory.max", "7000000\n")], Some(7_000_000)),
            (vec![MEMINFO, group, ("/sys/fs/cgroup/memory.max", "6000000\n")], Some(6_000_000)),
            (vec![group, ("/sys/fs/cgroup/a/b/memory.max", "5000000\n")], Some(5_000_000)),
            (
                vec![MEMINFO, old, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8000000\n")],
                Some(8_000_000),
            ),
            (
                vec![
                    MEMINFO,
                    old,
                    ("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "9223372036854771712"),
                ],
                Some(TOTAL),
            ),
            (vec![MEMINFO, space, ("/sys/fs/cgroup/memory.max", "9000000")], Some(8_000_000)),
            (vec![("/proc/meminfo", "MemTotal: 9999999999 kB\n")], Some((40 << 30) + MIB)),
        ] {
            let memory_max = memory_max_of(1, &files(&files_there));
            assert_eq!(memory_max, of.map(whole_mib), "{files_there:?}");
        }
        assert_eq!(memory_max_of(3, &files(&[MEMINFO])), Some(TOTAL / 100 * 80 / 3 / MIB * MIB));
    }

    #[test]
    fn default_gives_way_to_what_is_configured() {
        let with = |limits: &str| {
            let there = [MEMINFO, ("olivia.toml", limits)];
            let loaded = load(&Sources::default(), &files(&there)).unwrap();
            (loaded.config.limits.memory_max, loaded.notes.len())
        };
        assert_eq!(with(""), (whole_mib(TOTAL), 2));
        assert_eq!(with("[limits]\nmemory_max = 0"), (0, 1));
        assert_eq!(with("[limits]\nmemory_max = '2MiB'"), (2 << 20, 1));
    }
}
