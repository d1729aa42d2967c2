//! What a viewer saw of a command that prints numbers, checked byte for byte.

use serde_json::Value;

/// Bytes of a line: nine digits and its end.
const LINE: u64 = 10;

/// A command that prints lines of nine digits, counting from 1, some thousands a second, until its input says something;
/// then it writes how many into the file that it is given, and ends with 3.
pub const COUNTER: &str = "\
import os, select, sys
n = 0
while not select.select([0], [], [], 0.002)[0]:
    lines = b''.join(b'%09d\\n' % i for i in range(n + 1, n + 51))
    while lines:
        lines = lines[os.write(1, lines):]
    n += 50
open(sys.argv[1], 'w').write(str(n))
sys.exit(3)
";

/// What a viewer has seen so far: complete and in order, but for stated gaps.
#[derive(Default)]
pub struct Tape {
    pub cursor: Option<String>,
    pub gaps: Vec<Value>,
    pub exit: Option<Value>,
    starts: u32,
    /// The place of the next byte. After a gap of unknown size it is found by what comes next.
    at: Place,
}

enum Place {
    Known(u64),
    /// Not before this place. Holds what was read since.
    Adrift(u64, Vec<u8>),
}

impl Default for Place {
    fn default() -> Self {
        Self::Known(0)
    }
}

impl Tape {
    /// An event that is no output in a binary frame.
    pub fn see(&mut self, event: Value) {
        assert!(self.exit.is_none(), "after the exit: {event}");
        match event["type"].as_str().expect("a type") {
            "stdout" => self.read(event["data"].as_str().expect("text").as_bytes()),
            "gap" => self.skip(&event),
            "started" => self.starts += 1,
            "exit" => self.exit = Some(event.clone()),
            "keepalive" => return,
            other => panic!("{other}: {event}"),
        }
        self.cursor = Some(event["cursor"].as_str().expect("a cursor").to_owned());
        assert!(self.starts <= 1, "it started twice");
    }

    /// A binary frame.
    pub fn see_frame(&mut self, frame: &[u8]) {
        assert_eq!(frame[0], 1, "stdout");
        let (cursor, data) = frame[2..].split_at(usize::from(frame[1]));
        self.read(data);
        self.cursor = Some(String::from_utf8(cursor.to_vec()).expect("a cursor"));
    }

    fn read(&mut self, data: &[u8]) {
        match &mut self.at {
            Place::Known(at) => {
                check(*at, data);
                *at += data.len() as u64;
            }
            Place::Adrift(floor, held) => {
                held.extend_from_slice(data);
                if let Some(start) = find(held) {
                    assert!(start >= *floor, "{start} was told before, up to {floor}");
                    check(start, held);
                    self.at = Place::Known(start + held.len() as u64);
                }
            }
        }
    }

    fn skip(&mut self, gap: &Value) {
        self.at = match (&self.at, gap["bytes"].as_u64()) {
            (Place::Known(at), Some(bytes)) => Place::Known(at + bytes),
            (Place::Known(at), None) => Place::Adrift(*at, Vec::new()),
            (Place::Adrift(floor, held), _) => Place::Adrift(floor + held.len() as u64, Vec::new()),
        };
        self.gaps.push(gap.clone());
    }

    /// The reasons of the gaps, each once.
    pub fn reasons(&self) -> Vec<&str> {
        let mut reasons: Vec<&str> = self.gaps.iter().map(|gap| gap["reason"].as_str().expect("a reason")).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }

    /// Checks the end of a counter that printed so many lines.
    #[track_caller]
    pub fn check_end(&self, lines: u64) {
        assert_eq!(self.exit.as_ref().expect("an end")["exit_code"], 3);
        assert_eq!(self.starts, 1);
        match &self.at {
            Place::Known(at) => assert_eq!(*at, lines * LINE),
            Place::Adrift(floor, held) => assert!(floor + held.len() as u64 <= lines * LINE && held.len() < 20),
        }
    }
}

/// The place of the first of these bytes, once there is a whole line among them.
fn find(held: &[u8]) -> Option<u64> {
    let length = LINE as usize;
    let begin = held.iter().position(|byte| *byte == b'\n').map(|end| end + 1)?;
    let line = held.get(begin..begin + length)?;
    let number: u64 = std::str::from_utf8(&line[..length - 1]).ok()?.parse().expect("a number");
    Some((number - 1) * LINE - begin as u64)
}

#[track_caller]
fn check(start: u64, data: &[u8]) {
    let first = start / LINE;
    let mut expected = Vec::with_capacity(data.len() + 2 * LINE as usize);
    for number in first.. {
        expected.extend_from_slice(format!("{:09}\n", number + 1).as_bytes());
        if expected.len() as u64 >= start % LINE + data.len() as u64 {
            break;
        }
    }
    let skipped = usize::try_from(start % LINE).expect("below ten");
    let expected = &expected[skipped..skipped + data.len()];
    let differs = data.iter().zip(expected).position(|(seen, expected)| seen != expected);
    if let Some(index) = differs {
        let around = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[index.saturating_sub(20)..bytes.len().min(index + 40)]).into_owned()
        };
        panic!("at {}: {:?} and not {:?}", start + index as u64, around(data), around(expected));
    }
}

#[test]
fn a_tape_notices_what_is_missing_twice_or_not_as_large_as_told() {
    use serde_json::json;
    let seen = |events: &[Value]| {
        let events = events.to_vec();
        std::panic::catch_unwind(move || {
            let mut tape = Tape::default();
            events.into_iter().for_each(|event| tape.see(event));
            tape.check_end(4);
        })
    };
    let started = json!({"type": "started", "cursor": "1.1"});
    let out = |text: &str| json!({"type": "stdout", "data": text, "cursor": "c"});
    let gap = |bytes: Value| json!({"type": "gap", "bytes": bytes, "reason": "window", "cursor": "c"});
    let exit = json!({"type": "exit", "exit_code": 3, "cursor": "c"});
    let one = out("000000001\n0000");
    let good = [started.clone(), one.clone(), out("00002\n000000003\n000000004\n"), exit.clone()];
    assert!(seen(&good).is_ok());
    let known = |bytes: u64| [started.clone(), one.clone(), gap(json!(bytes)), out("03\n000000004\n"), exit.clone()];
    assert!(seen(&known(13)).is_ok());
    assert!(seen(&known(12)).is_err());
    let unknown = |rest: &str| [started.clone(), one.clone(), gap(Value::Null), out(rest), exit.clone()];
    assert!(seen(&unknown("03\n000000004\n")).is_ok());
    assert!(seen(&unknown("01\n000000002\n000000003\n000000004\n")).is_err(), "told twice");
    assert!(seen(&unknown("03\n000000005\n")).is_err());
    assert!(seen(&[started.clone(), one, out("000000003\n"), exit.clone()]).is_err());
    assert!(seen(&[started.clone(), started, exit]).is_err());
}
