//! The process's log: JSON lines for machines, or text for people. Fields and levels: docs/LOGGING.md.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use super::{
    human, json,
    sink::{Flush, Sink},
};
use crate::config::{Log, LogFormat};

/// Libraries that log each connection or frame at `info` and below; a filter that names them wins.
const QUIET: [&str; 5] = ["hyper=warn", "hyper_util=warn", "h2=warn", "rustls=warn", "sqlx=warn"];

/// Installs the subscriber of this process; logs go to stderr, so that stdout stays the command's own. To be kept for as long as
/// something is said.
///
/// # Errors
/// When a subscriber is installed already, or the filter is malformed.
pub fn init(log: &Log) -> anyhow::Result<Flush> {
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !terminal,
    };
    let (sink, flush) = Sink::start(std::io::stderr())?;
    subscriber(log, json, terminal, sink)?.try_init()?;
    Ok(flush)
}

fn subscriber<W>(
    log: &Log,
    json: bool,
    ansi: bool,
    writer: W,
) -> anyhow::Result<Box<dyn tracing::Subscriber + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.level)?).with_writer(writer).with_ansi(ansi);
    Ok(if json {
        Box::new(builder.with_ansi(false).fmt_fields(json::Fields).event_format(json::Lines).finish())
    } else {
        Box::new(builder.event_format(human::Lines).finish())
    })
}

fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let quiet = QUIET.iter().filter(|directive| {
        let library = directive.split('=').next().unwrap_or(directive);
        !level.split(',').any(|own| own.starts_with(library))
    });
    let directives: Vec<&str> = quiet.copied().chain([level]).collect();
    EnvFilter::try_new(directives.join(","))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::request::RequestLog;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What a subscriber writes of all that `say` says.
    fn written(json: bool, ansi: bool, level: &str, say: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log { format: LogFormat::Auto, level: level.into() };
        let subscriber = subscriber(&log, json, ansi, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, say);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn json_lines(level: &str, say: impl FnOnce()) -> Vec<Value> {
        let mut lines: Vec<Value> =
            written(true, true, level, say).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &mut lines {
            let timestamp = line["timestamp"].take();
            assert!(timestamp.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().is_ok(), "{timestamp}");
        }
        lines
    }

    fn request(trace_id: Option<&str>) -> RequestLog {
        RequestLog::new("r1", Method::GET, "/a/{b}".into(), trace_id)
    }

    #[test]
    fn json_lines_carry_the_fields_of_event_and_span() {
        let lines = json_lines("info", || {
            let span = tracing::info_span!("outer", number = 1, late = tracing::field::Empty);
            span.record("late", "\"quoted\"");
            let error = std::io::Error::other("a\nb");
            span.in_scope(
                || tracing::info!(status = 200, share = 0.5, none = f64::NAN, %error, kind = ?error.kind(), "done"),
            );
            tracing::info_span!("empty").in_scope(|| tracing::warn!("alone"));
            tracing::debug!("too fine");
            tracing::info!(target: "hyper::client", "a library's detail");
        });
        let target = module_path!();
        let expected = [
            json!({
                "timestamp": null, "level": "INFO", "message": "done", "status": 200, "share": 0.5, "none": null,
                "error": "a\nb", "kind": "Other", "target": target,
                "span": {"name": "outer", "number": 1, "late": "\"quoted\""},
            }),
            json!({"timestamp": null, "level": "WARN", "message": "alone", "target": target, "span": {"name": "empty"}}),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_line_of_a_request_tells_which_it_is() {
        let lines = json_lines("debug", || {
            request(None).in_scope(|| tracing::info!("plain"));
            request(Some("t1")).in_scope(|| {
                tracing::debug_span!("ags", action = "Stop").in_scope(|| tracing::debug!("called"));
                tracing::debug_span!("empty").in_scope(|| tracing::debug!("within"));
            });
            tracing::info!("outside");
        });
        let spans: Vec<&Value> = lines.iter().map(|line| &line["span"]).collect();
        let traced = |name: &str| json!({"request_id": "r1", "method": "GET", "route": "/a/{b}", "trace_id": "t1", "name": name});
        let mut called = traced("ags");
        called["action"] = "Stop".into();
        let plain = json!({"request_id": "r1", "method": "GET", "route": "/a/{b}", "name": "request"});
        assert_eq!(spans, [&plain, &called, &traced("empty"), &Value::Null]);
    }

    #[test]
    fn people_read_what_was_said_and_whose_request_it_was() {
        let say = || {
            request(None).in_scope(|| tracing::info!(status = 200, "done"));
            tracing::info_span!("ags", action = "Stop").in_scope(|| tracing::warn!("alone"));
        };
        let text = written(false, false, "info", say);
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        let target = module_path!();
        let first = format!(" INFO {target}: done status=200 request_id=r1 method=GET route=/a/{{b}}");
        assert_eq!(lines, [first, format!(" WARN {target}: alone ags{{action=\"Stop\"}}")]);
        assert!(written(false, true, "info", say).contains("\u{1b}[33m WARN\u{1b}[0m"));
    }

    #[test]
    fn a_filter_may_ask_for_a_library() {
        assert!(filter("info,sqlx=debug").unwrap().to_string().contains("sqlx=debug"));
        assert!(!filter("info,sqlx=debug").unwrap().to_string().contains("sqlx=warn"));
        assert!(filter("info").unwrap().to_string().contains("sqlx=warn"));
    }
}
