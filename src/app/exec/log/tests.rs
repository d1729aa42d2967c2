use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::exec::{Reason, Run};

const WINDOW: usize = 8192;

fn log() -> Arc<Log> {
    let log = Arc::new(Log::new(1, FIRST, WINDOW, None));
    log.started(7);
    log
}

fn exit() -> Arc<Exit> {
    Arc::new(Exit { exit_code: Some(0), signal: None, reason: Reason::Exited, error: None, duration: Duration::ZERO })
}

fn bytes(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data)
}

fn cursor(position: u64) -> Cursor {
    Cursor { epoch: 1, position, ..Cursor::default() }
}

/// What a viewer takes without waiting: the streams' bytes, the gaps, whether the end came.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    started: usize,
    out: Vec<u8>,
    err: Vec<u8>,
    gaps: Vec<Option<u64>>,
    place: u64,
    ended: bool,
}

fn drain(viewer: &mut Viewer, max: usize, seen: &mut Seen) {
    let mut batch = Batch::default();
    while viewer.take(max, &mut batch) == Look::Taken {
        seen.started += usize::from(batch.started.is_some());
        seen.gaps.extend(batch.gap.map(|gap| gap.bytes));
        for chunk in &batch.chunks {
            let kept = if chunk.stream == Stream::Stderr { &mut seen.err } else { &mut seen.out };
            kept.extend_from_slice(&chunk.data);
            seen.place = chunk.end;
        }
        seen.ended |= batch.exit.is_some();
    }
}

fn seen(viewer: &mut Viewer) -> Seen {
    let mut seen = Seen::default();
    drain(viewer, usize::MAX, &mut seen);
    seen
}

#[test]
fn a_viewer_sees_the_start_the_output_and_the_end_once() {
    let log = log();
    let mut viewer = log.attach(None);
    log.append(Stream::Stdout, bytes(b"ab"));
    log.append(Stream::Stderr, bytes(b"!"));
    log.append(Stream::Stdout, bytes(b"c"));
    log.finish(exit());
    let seen = seen(&mut viewer);
    assert_eq!((seen.started, &seen.out[..], &seen.err[..], seen.ended), (1, &b"abc"[..], &b"!"[..], true));
    assert_eq!(viewer.take(1, &mut Batch::default()), Look::Finished);
    assert_eq!(log.total(), 4);
}

#[test]
fn whoever_comes_late_is_served_from_the_window_and_told_what_is_missing() {
    let log = log();
    for _ in 0..10 {
        log.append(Stream::Stdout, bytes(&[b'x'; 1024]));
    }
    log.append(Stream::Stdout, bytes(b"end"));
    assert_eq!(log.held(), WINDOW);
    let seen = seen(&mut log.attach(None));
    assert_eq!(seen.gaps, [Some(10 * 1024 + 3 - WINDOW as u64)]);
    assert_eq!(seen.out.len(), WINDOW);
    assert!(seen.out.ends_with(b"xend"));
}

#[test]
fn a_cursor_of_somebody_elses_output_is_a_gap_and_not_a_place() {
    let log = log();
    log.append(Stream::Stdout, bytes(b"abc"));
    for unknown in [Cursor { epoch: 2, ..cursor(2) }, cursor(5), cursor(u64::MAX)] {
        let seen = seen(&mut log.attach(Some(&unknown)));
        assert_eq!((seen.gaps, seen.out), (vec![None], b"abc".to_vec()));
    }
    log.finish(exit());
    let after_the_end = seen(&mut log.attach(Some(&cursor(5))));
    assert_eq!(after_the_end, Seen::default());
}

#[test]
fn a_switch_of_streams_at_every_byte_holds_no_more_entries_than_allowed() {
    let log = log();
    for index in 0..20_000 {
        log.append(if index % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, bytes(b"x"));
    }
    assert!(log.state().entries.len() <= MIN_ENTRIES);
    let seen = seen(&mut log.attach(None));
    let missing = seen.gaps[0].unwrap() as usize;
    assert_eq!(missing + seen.out.len() + seen.err.len(), 20_000);
}

#[tokio::test]
async fn the_reader_waits_for_the_foremost_viewer_only() {
    let log = log();
    let (mut fast, mut slow) = (log.attach(None), log.attach(None));
    let chunk = bytes(&[b'x'; 4096]);
    for _ in 0..2 {
        log.room(chunk.len()).await;
        log.append(Stream::Stdout, chunk.clone());
    }
    let mut full = tokio_test_task(log.room(chunk.len()));
    assert!(full.poll_once().await, "a window behind");
    let mut read = Seen::default();
    drain(&mut fast, usize::MAX, &mut read);
    assert!(!full.poll_once().await, "the foremost is not behind");
    drop(full);
    log.append(Stream::Stdout, chunk.clone());
    assert_eq!(seen(&mut slow).gaps, [Some(4096)]);
}

#[tokio::test]
async fn without_viewers_the_reader_never_waits() {
    let log = log();
    let viewer = log.attach(None);
    log.append(Stream::Stdout, bytes(&[b'x'; WINDOW]));
    let mut full = tokio_test_task(log.room(1));
    assert!(full.poll_once().await);
    drop(viewer);
    assert!(!full.poll_once().await);
}

#[tokio::test]
async fn a_waiting_viewer_is_woken_by_output_and_by_the_end() {
    let log = log();
    let mut viewer = log.attach(Some(&cursor(1)));
    let mut batch = Batch::default();
    {
        let mut next = tokio_test_task(viewer.next(10, &mut batch));
        assert!(next.poll_once().await);
        log.append(Stream::Pty, bytes(b"x"));
        assert!(!next.poll_once().await);
    }
    assert_eq!(batch.chunks.len(), 1);
    log.finish(exit());
    assert_eq!(viewer.next(10, &mut batch).await, Look::Taken);
    assert!(batch.exit.is_some());
    assert_eq!(viewer.next(10, &mut batch).await, Look::Finished);
}

/// A future that is polled by hand.
struct Polled<F>(std::pin::Pin<Box<F>>);

fn tokio_test_task<F: Future>(future: F) -> Polled<F> {
    Polled(Box::pin(future))
}

impl<F: Future> Polled<F> {
    /// Whether it is still pending.
    async fn poll_once(&mut self) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(self.0.as_mut().poll(cx).is_pending())).await
    }
}

fn kept(most: usize) -> Arc<Log> {
    let keeping = Keeping { most, budget: Budget::new(1 << 30) };
    let log = Arc::new(Log::new(1, FIRST, WINDOW, Some(keeping)));
    log.started(7);
    log
}

#[test]
fn what_is_not_stored_yet_is_held_and_what_is_stored_is_said_to_be_behind() {
    let log = kept(4 * WINDOW);
    let mut viewer = log.attach(None);
    for _ in 0..24 {
        log.append(Stream::Stdout, bytes(&[b'x'; 1024]));
    }
    assert_eq!(log.held(), 3 * WINDOW);
    let segment = log.segment(usize::MAX).unwrap();
    assert_eq!(
        (segment.position, segment.end(), &segment.runs[..]),
        (1, 24577, &[Run::Output(Stream::Stdout, 24576)][..])
    );
    log.stored(segment.end());
    assert_eq!(log.held(), WINDOW);
    assert_eq!(log.segment(usize::MAX), None);
    let mut batch = Batch::default();
    assert_eq!(viewer.take(10, &mut batch), Look::Taken);
    assert_eq!(batch.started, Some(7));
    assert_eq!((viewer.take(10, &mut batch), viewer.place()), (Look::Behind, 1));
    viewer.move_to(101);
    viewer.skip();
    assert_eq!(viewer.take(10, &mut batch), Look::Taken);
    assert_eq!(
        batch.gap,
        Some(Gap { bytes: Some(2 * WINDOW as u64 - 100), reason: GapReason::Window, end: log.start() })
    );
}

#[test]
fn more_than_the_most_is_dropped_stored_or_not_and_a_spent_budget_holds_no_more_than_the_window() {
    let log = kept(2 * WINDOW);
    log.append(Stream::Stdout, bytes(&[b'x'; 3 * WINDOW]));
    assert_eq!(log.held(), 2 * WINDOW);
    assert_eq!(log.segment(10).unwrap().position, 1 + WINDOW as u64);
    let keeping = Keeping { most: 2 * WINDOW, budget: Budget::new(10) };
    let first = Log::new(1, FIRST, WINDOW, Some(keeping.clone()));
    first.append(Stream::Stdout, bytes(&[b'x'; WINDOW + 10]));
    assert_eq!(first.held(), WINDOW + 10);
    let second = Log::new(1, FIRST, WINDOW, Some(keeping.clone()));
    second.append(Stream::Stdout, bytes(&[b'x'; WINDOW + 10]));
    assert_eq!(second.held(), WINDOW);
    drop(first);
    second.append(Stream::Stdout, bytes(b"more"));
    assert_eq!(second.held(), WINDOW + 4);
}

#[test]
fn a_gap_takes_a_place_and_is_told_where_it_is() {
    let log = log();
    let mut viewer = log.attach(Some(&cursor(1)));
    log.append(Stream::Stdout, bytes(b"ab"));
    log.append_gap(GapReason::Reattached);
    log.append(Stream::Stdout, bytes(b"c"));
    let mut batch = Batch::default();
    assert_eq!(viewer.take(100, &mut batch), Look::Taken);
    assert_eq!((batch.gap, batch.chunks.len(), batch.chunks[0].end), (None, 1, 3));
    assert_eq!(viewer.take(100, &mut batch), Look::Taken);
    assert_eq!(batch.gap, Some(Gap { bytes: None, reason: GapReason::Reattached, end: 4 }));
    assert_eq!((&batch.chunks[0].data[..], batch.chunks[0].end), (&b"c"[..], 5));
    let segment = log.segment(100).unwrap();
    let runs = [Run::Output(Stream::Stdout, 2), Run::Gap(GapReason::Reattached), Run::Output(Stream::Stdout, 1)];
    assert_eq!((&segment.runs[..], &segment.data[..], segment.end()), (&runs[..], &b"abc"[..], 5));
}

#[tokio::test]
async fn those_who_look_on_and_the_reader_are_sent_away_when_it_is_followed_elsewhere() {
    let log = log();
    let mut viewer = log.attach(None);
    log.append(Stream::Stdout, bytes(&[b'x'; WINDOW]));
    let mut full = tokio_test_task(log.room(1));
    assert!(full.poll_once().await);
    log.cut();
    assert!(!full.poll_once().await);
    assert_eq!(viewer.next(10, &mut Batch::default()).await, Look::Cut);
}

proptest! {
    /// However output arrives and wherever a viewer drops off and resumes, it sees every byte once, in order, or a gap
    /// of the right size.
    #[test]
    fn resumed_reading_is_complete_or_says_what_is_missing(
        sizes in prop::collection::vec((1_usize..6000, any::<bool>()), 1..40),
        takes in prop::collection::vec((0_usize..4, 1_usize..5000), 1..40),
    ) {
        let log = log();
        let (mut place, mut got, mut missing) = (cursor(1), 0_u64, 0_u64);
        let mut takes = takes.into_iter().cycle();
        let mut written = 0_u64;
        for (size, err) in sizes {
            let stream = if err { Stream::Stderr } else { Stream::Stdout };
            let data: Vec<u8> = (0..size).map(|offset| ((written + offset as u64) % 251) as u8).collect();
            log.append(stream, data.into());
            written += size as u64;
            let (times, max) = takes.next().unwrap();
            let mut viewer = log.attach(Some(&place));
            let mut batch = Batch::default();
            for _ in 0..times {
                viewer.take(max, &mut batch);
                if let Some(gap) = &batch.gap {
                    missing += gap.bytes.unwrap();
                    place.position = gap.end;
                }
                for chunk in &batch.chunks {
                    for byte in &chunk.data {
                        prop_assert_eq!(u64::from(*byte), (place.position - 1) % 251);
                        place.position += 1;
                    }
                    got += chunk.data.len() as u64;
                    prop_assert_eq!(chunk.end, place.position);
                }
            }
        }
        let rest = seen(&mut log.attach(Some(&place)));
        let rest_missing: u64 = rest.gaps.iter().flatten().sum();
        prop_assert_eq!(got + missing + rest_missing + (rest.out.len() + rest.err.len()) as u64, written);
        prop_assert!(log.held() <= WINDOW);
    }

    /// With a viewer that takes, and a reader that asks for room, nothing is ever missing.
    #[test]
    fn the_foremost_viewer_never_has_a_gap(
        sizes in prop::collection::vec((1_usize..5000, any::<bool>()), 1..60),
        max in 1_usize..9000,
    ) {
        let log = log();
        let mut viewer = log.attach(None);
        let mut all = Seen::default();
        let mut written = 0;
        for (size, err) in sizes {
            while !log.state().has_room(size, log.window, log.max_entries) {
                let mut batch = Batch::default();
                viewer.take(max, &mut batch);
                all.gaps.extend(batch.gap.map(|gap| gap.bytes));
                all.out.extend(batch.chunks.iter().flat_map(|chunk| chunk.data.iter().copied()));
            }
            log.append(if err { Stream::Stderr } else { Stream::Stdout }, vec![1; size].into());
            written += size;
        }
        drain(&mut viewer, max, &mut all);
        prop_assert!(all.gaps.is_empty());
        prop_assert_eq!(all.out.len() + all.err.len(), written);
    }
}
