//! What `/proc` says of the processes under test: CPU time spent, memory held.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// The unit of `/proc/PID/stat`: Linux reports it to user space in hundredths of a second everywhere.
const TICK: Duration = Duration::from_millis(10);

/// CPU time that processes have spent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// In their own code.
    pub(crate) user: Duration,
    /// In the kernel, on their behalf.
    pub(crate) system: Duration,
}

impl Spent {
    /// Both.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    /// What was spent from `earlier` to this.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// What the processes have spent so far, all threads, together. Grain: 10 ms each.
pub(crate) fn cpu(pids: &[u32]) -> Result<Spent> {
    pids.iter().try_fold(Spent::default(), |sum, pid| {
        let spent = cpu_of(&pid.to_string())?;
        Ok(Spent { user: sum.user + spent.user, system: sum.system + spent.system })
    })
}

/// User and system time of this very process.
pub(crate) fn cpu_own() -> Result<Duration> {
    Ok(cpu_of("self")?.total())
}

/// A process and all that descend from it, as they are now.
pub(crate) fn family(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended since the directory was read.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(family)
}

/// Field 4.
fn parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

fn cpu_of(process: &str) -> Result<Spent> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    spent(&stat).with_context(|| format!("{path} is not as expected: {stat}"))
}

/// Fields 14 and 15, counted after the program's name, which may itself contain spaces and parentheses.
fn spent(stat: &str) -> Option<Spent> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut next = || Some(TICK * fields.next()?.parse().ok()?);
    Some(Spent { user: next()?, system: next()? })
}

/// Packets that the kernel has dropped so far since too many waited for a core: the second column of the table. They
/// are sent again, after a pause that is the kernel's own and nobody's server's.
pub(crate) fn kernel_drops() -> Result<u64> {
    let table = std::fs::read_to_string("/proc/net/softnet_stat").context("cannot read softnet_stat")?;
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    table.lines().map(|line| dropped(line).with_context(|| format!("softnet_stat has {line}"))).sum()
}

/// Resident memory of the processes together, in bytes.
pub(crate) fn resident_bytes(pids: &[u32]) -> Result<u64> {
    pids.iter()
        .map(|pid| {
            let path = format!("/proc/{pid}/status");
            let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            resident(&status).with_context(|| format!("{path} has no VmRSS"))
        })
        .sum()
}

/// What the kernel holds for itself, most of it for sockets when there are many: its slabs and what waits in sockets.
pub(crate) fn kernel_bytes() -> Result<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").context("cannot read meminfo")?;
    let sockets = std::fs::read_to_string("/proc/net/sockstat").context("cannot read sockstat")?;
    kernel(&memory, &sockets).context("meminfo or sockstat is not as expected")
}

fn kernel(memory: &str, sockets: &str) -> Option<u64> {
    const PAGE_BYTES: u64 = 4_096;
    let slabs = memory.lines().find_map(|line| line.strip_prefix("SUnreclaim:"))?;
    let tcp = sockets.lines().find_map(|line| line.strip_prefix("TCP:")?.split_once(" mem "))?.1;
    let slabs_kib: u64 = slabs.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(slabs_kib * 1_024 + tcp.trim().parse::<u64>().ok()? * PAGE_BYTES)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_shifts_nothing() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194560 1000 0 0 0 250 50 0 0 20 0 3 0 8856 1 1";
        let (user, system) = (Duration::from_millis(2500), Duration::from_millis(500));
        assert_eq!(spent(stat), Some(Spent { user, system }));
        assert_eq!(spent("nonsense"), None);
        assert_eq!(parent(stat), Some(1));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2048 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn the_kernel_counts_slabs_in_kibibytes_and_buffers_in_pages() {
        let sockets = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 1 alloc 7 mem 3\nUDP: inuse 0 mem 2\n";
        assert_eq!(kernel("Slab: 9 kB\nSUnreclaim:        2 kB\n", sockets), Some(2 * 1_024 + 3 * 4_096));
        assert_eq!(kernel("", sockets), None);
        kernel_bytes().unwrap();
    }

    #[test]
    fn a_family_has_the_grandchildren() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sh -c 'echo started; cat'; true"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        // Theirs first: between the two looks another may be born.
        let theirs = family(child.id()).unwrap();
        let ours = family(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(theirs.len() > 1 && theirs.iter().all(|pid| ours.contains(pid)), "{theirs:?} {ours:?}");
    }

    #[test]
    fn our_own_process_can_be_read() {
        assert!(resident_bytes(&[std::process::id()]).unwrap() > 0);
        cpu_own().unwrap();
        kernel_drops().unwrap();
        assert!(cpu(&[u32::MAX]).is_err());
    }
}
