//! Where lines of the log go: gathered for a moment, so that a busy process does not call the system for each of them.
//!
//! Warnings and errors go out at once, with all that was said before them; the rest within [`MOMENT`]. A process that ends takes
//! nothing along: [`Flush`] writes what is left. One that is killed may, or that exits at a second signal.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines wait for others.
const MOMENT: Duration = Duration::from_millis(20);
/// With so many bytes they wait no longer; who says more then waits until those are written.
const FULL: usize = 64 << 10;

/// Takes lines. Clones share it.
pub(super) struct Sink<W>(Arc<Shared<W>>);

impl<W> Clone for Sink<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<W> {
    gathered: Mutex<Gathered>,
    begun: Condvar,
    out: Mutex<Out<W>>,
}

struct Out<W> {
    writer: W,
    /// Lines that are being written; its room is used again.
    lines: Vec<u8>,
}

#[derive(Default)]
struct Gathered {
    lines: Vec<u8>,
    closed: bool,
}

/// Writes what is left when it is dropped.
#[must_use]
pub struct Flush {
    close: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(close) = self.close.take() {
            close();
        }
    }
}

impl<W: Write + Send + 'static> Sink<W> {
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(out: W) -> io::Result<(Self, Flush)> {
        let out = Mutex::new(Out { writer: out, lines: Vec::new() });
        let shared = Arc::new(Shared { gathered: Mutex::default(), begun: Condvar::new(), out });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || of_thread.run())?;
        let sink = Self(shared);
        let closed = sink.clone();
        Ok((sink, Flush { close: Some(Box::new(move || closed.close(thread))) }))
    }

    fn close(&self, thread: JoinHandle<()>) {
        self.0.gathered().closed = true;
        self.0.begun.notify_one();
        // A thread that panicked has nothing left to say; what it did not write is written here.
        let _ended = thread.join();
        self.0.flush();
    }
}

impl<W: Write> Shared<W> {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let nothing = |gathered: &mut Gathered| gathered.lines.is_empty() && !gathered.closed;
            let begun = self.begun.wait_while(self.gathered(), nothing).unwrap_or_else(PoisonError::into_inner);
            let more = |gathered: &mut Gathered| !gathered.lines.is_empty() && !gathered.closed;
            let waited = self.begun.wait_timeout_while(begun, MOMENT, more);
            let closed = waited.unwrap_or_else(PoisonError::into_inner).0.closed;
            self.flush();
            if closed {
                return;
            }
        }
    }

    fn add(&self, line: &[u8], at_once: bool) {
        let mut gathered = self.gathered();
        let first = gathered.lines.is_empty();
        gathered.lines.extend_from_slice(line);
        let flush = at_once || gathered.closed || gathered.lines.len() >= FULL;
        drop(gathered);
        if flush {
            self.flush();
        } else if first {
            self.begun.notify_one();
        }
    }

    /// Writes what was gathered. There is nobody to be told that it cannot be.
    fn flush(&self) {
        // Held from before the lines are taken, so that none overtakes another.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Out { writer, lines } = &mut *out;
        lines.clear();
        std::mem::swap(lines, &mut self.gathered().lines);
        let _written = writer.write_all(lines).and_then(|()| writer.flush());
    }
}

/// A writer for one line.
pub(super) struct Line<'a, W> {
    shared: &'a Shared<W>,
    at_once: bool,
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.add(line, self.at_once);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Sink<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line { shared: &self.0, at_once: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a, W> {
        Line { shared: &self.0, at_once: *meta.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Tells of each write.
    struct Told(mpsc::Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink() -> (Sink<Told>, Flush, mpsc::Receiver<Vec<u8>>) {
        let (tell, told) = mpsc::channel();
        let (sink, flush) = Sink::start(Told(tell)).unwrap();
        (sink, flush, told)
    }

    #[test]
    fn lines_go_out_after_a_moment_and_in_order() {
        let (sink, _flush, told) = sink();
        let expected: Vec<u8> = (0..100).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        for n in 0..100 {
            sink.0.add(format!("line {n}\n").as_bytes(), false);
        }
        let mut all = Vec::new();
        while all.len() < expected.len() {
            all.extend(told.recv_timeout(PATIENCE).unwrap());
        }
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_urgent_goes_out_with_all_before_it() {
        let (sink, _flush, told) = sink();
        sink.0.add(b"a request\n", false);
        sink.0.add(b"an error\n", true);
        let mut written: Vec<Vec<u8>> = told.try_iter().collect();
        // The thread may have come in between.
        assert_eq!(written.concat(), b"a request\nan error\n");
        assert!(written.pop().unwrap().ends_with(b"an error\n"));
    }

    #[test]
    fn many_lines_do_not_wait() {
        let (sink, _flush, told) = sink();
        sink.0.add(&vec![b'x'; FULL], false);
        assert_eq!(told.try_iter().map(|piece| piece.len()).sum::<usize>(), FULL);
    }

    #[test]
    fn the_end_takes_nothing_along() {
        let (sink, flush, told) = sink();
        sink.0.add(b"the last\n", false);
        drop(flush);
        assert_eq!(told.try_iter().flatten().collect::<Vec<u8>>(), b"the last\n");
        // What is said later still is not gathered any more.
        sink.0.add(b"after it\n", false);
        assert_eq!(told.try_iter().flatten().collect::<Vec<u8>>(), b"after it\n");
    }
}
