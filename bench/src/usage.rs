//! What processes use up, from `/proc`.

use synod_harness::cluster;

/// Totals at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Processor time of this process, microseconds.
    pub client_cpu: u64,
    /// Of all servers together.
    pub server_cpu: u64,
    /// Syncs to disk of all servers together, as they count them themselves.
    pub syncs: u64,
    /// Packets over loopback, everybody's.
    pub packets: u64,
}

/// Processor time of these processes together, microseconds.
pub fn cpu_micros(pids: &[u32]) -> u64 {
    pids.iter()
        .filter_map(|pid| cluster::cpu_micros(*pid))
        .sum()
}

/// Packets sent over loopback so far (a batch handed to the kernel at once counts once).
pub fn loopback_packets() -> u64 {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    packets_of(&table, "lo").unwrap_or(0)
}

fn packets_of(table: &str, interface: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name.trim() == interface).then_some(rest)
    })?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The largest memory in use by one of these processes now, MiB.
pub fn resident_mib(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        resident_kib(&status)
    };
    let largest = pids.iter().filter_map(of).max().unwrap_or(0);
    largest as f64 / 1024.0
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let table = "Inter-|   Receive\n face |bytes packets\n    lo: 800 42 0 0 0 0 0 0 800 42\n";
        assert_eq!(packets_of(table, "lo"), Some(42));
        assert_eq!(packets_of(table, "eth0"), None);
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2048));
        assert!(resident_mib(&[std::process::id()]) > 0.5);
    }
}
