//! `GET /metrics`: how busy the instance is.

use std::fs::read_to_string;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::daemon::{Daemon, Limits};

const MIB: u64 = 1024 * 1024;

/// Figures of one moment; sizes in bytes unless the name says otherwise.
#[derive(Debug, Serialize)]
pub struct Metrics {
    /// Seconds since the epoch.
    ts: i64,
    cpu_count: u32,
    /// Of all cores, since the last call.
    cpu_used_pct: f64,
    mem_total_mib: u64,
    mem_used_mib: u64,
    mem_total: u64,
    mem_used: u64,
    mem_cache: u64,
    disk_used: u64,
    disk_total: u64,
}

/// The processor times that were seen last.
#[derive(Debug, Default)]
pub struct CpuClock {
    last: Mutex<Times>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Times {
    busy: u64,
    total: u64,
}

impl CpuClock {
    /// Share of busy time since the last call, or since the machine started, in percent.
    fn used(&self, stat: &str) -> f64 {
        let now = times(stat).unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (busy, total) = (now.busy.saturating_sub(last.busy), now.total.saturating_sub(last.total));
        *last = now;
        match total {
            0 => 0.0,
            total => (busy as f64 / total as f64 * 10_000.0).round() / 100.0,
        }
    }
}

/// `GET /metrics`.
pub async fn metrics(State(daemon): State<Arc<Daemon>>) -> Json<Metrics> {
    let stat = read_to_string("/proc/stat").unwrap_or_default();
    let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
    Json(measure(&daemon.cpu_clock, daemon.limits, &stat, &meminfo))
}

/// The sandbox lives on the machine's clock.
#[allow(clippy::disallowed_methods)]
fn measure(clock: &CpuClock, limits: Limits, stat: &str, meminfo: &str) -> Metrics {
    let cores = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
    let memory = |name| field(meminfo, name).unwrap_or_default();
    let (machine_total, available, cache) = (memory("MemTotal"), memory("MemAvailable"), memory("Cached"));
    let mem_total = limits.memory.unwrap_or(machine_total);
    let mem_used = machine_total.saturating_sub(available).min(mem_total);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (disk_used, disk_total) = disk();
    Metrics {
        ts: since.as_secs().cast_signed(),
        cpu_count: limits.cpu.map_or(cores as u32, |cpu| cpu.ceil() as u32).max(1),
        cpu_used_pct: clock.used(stat),
        mem_total_mib: mem_total / MIB,
        mem_used_mib: mem_used / MIB,
        mem_total,
        mem_used,
        mem_cache: cache.min(mem_total),
        disk_used,
        disk_total,
    }
}

fn disk() -> (u64, u64) {
    let Ok(stat) = statvfs("/") else {
        return (0, 0);
    };
    let block = stat.fragment_size();
    ((stat.blocks() - stat.blocks_free()) * block, stat.blocks() * block)
}

/// A line of `/proc/meminfo`, in bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.split(':').next() == Some(name))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// The first line of `/proc/stat`: idle and waiting for I/O are the fourth and fifth figures.
fn times(stat: &str) -> Option<Times> {
    let figures: Vec<u64> =
        stat.lines().next()?.split_ascii_whitespace().skip(1).filter_map(|figure| figure.parse().ok()).collect();
    let total = figures.iter().take(8).sum();
    let idle = figures.get(3)? + figures.get(4)?;
    Some(Times { busy: u64::saturating_sub(total, idle), total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_the_kernel_and_the_limits() {
        let clock = CpuClock::default();
        let meminfo = "MemTotal: 4096 kB\nMemFree: 10 kB\nMemAvailable: 1024 kB\nCached: 512 kB\n";
        let limits = Limits { cpu: Some(1.5), memory: None };
        let first = measure(&clock, limits, "cpu 10 0 10 70 10 0 0 0\ncpu0 1\n", meminfo);
        assert_eq!((first.cpu_count, first.cpu_used_pct), (2, 20.0));
        assert_eq!((first.mem_total, first.mem_used, first.mem_cache), (4 * MIB, 3 * MIB, MIB / 2));
        let later = measure(&clock, Limits::default(), "cpu 60 0 10 120 10 0 0 0\ncpu0 1\n", meminfo);
        assert_eq!((later.cpu_count, later.cpu_used_pct), (1, 50.0));
    }
}
