//! What a process spends, and figures of several rounds.

use std::{fs, io::Write};

use anyhow::{Context, Result};

/// A process and its children, as the kernel sees them.
pub struct Process {
    pid: u32,
}

/// What a process had used when something began.
pub struct Begun<'a> {
    process: &'a Process,
    cpu_seconds: f64,
    memory: u64,
}

/// What a process used for something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub cpu_seconds: f64,
    /// KiB that its memory grew by at most meanwhile.
    pub growth: u64,
}

impl Process {
    pub fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// Forgets the peak of its memory, and counts from now on.
    pub fn begin(&self) -> Result<Begun<'_>> {
        for pid in self.all()? {
            fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/clear_refs"))?.write_all(b"5")?;
        }
        Ok(Begun { process: self, cpu_seconds: self.cpu_seconds()?, memory: self.memory("VmRSS:")? })
    }

    fn all(&self) -> Result<Vec<u32>> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid))?;
        let children = children.split_whitespace().map(str::parse::<u32>);
        Ok(std::iter::once(Ok(self.pid)).chain(children).collect::<Result<_, _>>()?)
    }

    /// KiB.
    fn memory(&self, name: &str) -> Result<u64> {
        self.all()?.into_iter().map(|pid| memory(pid, name)).sum()
    }

    fn cpu_seconds(&self) -> Result<f64> {
        self.all()?.into_iter().map(cpu_seconds).sum()
    }
}

/// KiB.
fn memory(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line of /proc")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a process")?;
    // Behind the name: utime and stime are the 12th and 13th field, in hundredths (proc(5)).
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}

impl Begun<'_> {
    pub fn end(&self) -> Result<Spent> {
        let cpu_seconds = self.process.cpu_seconds()? - self.cpu_seconds;
        Ok(Spent { cpu_seconds, growth: self.process.memory("VmHWM:")?.saturating_sub(self.memory) })
    }
}

pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// A number from the command line: `--rounds 3`.
pub fn option(name: &str, default: usize) -> Result<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    match arguments.nth(1) {
        Some(value) => value.parse().with_context(|| format!("{name} takes a number")),
        None => Ok(default),
    }
}
