//! The process's log: JSON lines for machines, or text for people. Fields and levels: docs/LOGGING.md.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use super::json;
use crate::config::{Log, LogFormat};

/// Libraries that log each connection or frame at `info` and below; a filter that names them wins.
const QUIET: [&str; 5] = ["hyper=warn", "hyper_util=warn", "h2=warn", "rustls=warn", "sqlx=warn"];

/// Installs the subscriber of this process; logs go to stderr, so that stdout stays the command's own.
///
/// # Errors
/// When a subscriber is installed already, or the filter is malformed.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    subscriber(log, json, std::io::stderr)?.try_init()?;
    Ok(())
}

fn subscriber<W>(log: &Log, json: bool, writer: W) -> anyhow::Result<Box<dyn tracing::Subscriber + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.level)?).with_writer(writer);
    Ok(if json {
        Box::new(builder.fmt_fields(json::Fields).event_format(json::Lines).finish())
    } else {
        Box::new(builder.with_ansi(std::io::stderr().is_terminal()).finish())
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

    use super::*;

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

    #[test]
    fn json_lines_carry_the_fields_of_event_and_span() {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log { format: LogFormat::Json, level: "info".into() };
        let subscriber = subscriber(&log, true, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", request_id = "r1", late = tracing::field::Empty);
            span.record("late", "\"quoted\"");
            let error = std::io::Error::other("a\nb");
            span.in_scope(
                || tracing::info!(status = 200, share = 0.5, none = f64::NAN, %error, kind = ?error.kind(), "done"),
            );
            tracing::info_span!("empty").in_scope(|| tracing::warn!("alone"));
            tracing::debug!("too fine");
            tracing::info!(target: "hyper::client", "a library's detail");
        });
        let bytes = captured.0.lock().unwrap().clone();
        let lines: Vec<serde_json::Value> =
            String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        let mut first = lines[0].clone();
        let timestamp = first["timestamp"].take();
        assert!(timestamp.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().is_ok(), "{timestamp}");
        let expected = serde_json::json!({
            "timestamp": null, "level": "INFO", "message": "done", "status": 200, "share": 0.5, "none": null,
            "error": "a\nb", "kind": "Other", "target": module_path!(),
            "span": {"name": "request", "request_id": "r1", "late": "\"quoted\""},
        });
        assert_eq!(first, expected);
        assert_eq!(lines[1]["span"], serde_json::json!({"name": "empty"}));
    }

    #[test]
    fn a_filter_may_ask_for_a_library() {
        assert!(filter("info,sqlx=debug").unwrap().to_string().contains("sqlx=debug"));
        assert!(!filter("info,sqlx=debug").unwrap().to_string().contains("sqlx=warn"));
        assert!(filter("info").unwrap().to_string().contains("sqlx=warn"));
    }
}
