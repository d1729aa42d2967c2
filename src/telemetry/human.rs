//! Log lines for people: time, level, where it was said, what, and whose request it was.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::{LookupSpan, Scope},
};

use super::request;

/// SGR parameters (ECMA-48).
const DIM: &str = "2";

/// Events as lines.
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        styled(&mut writer, DIM, |writer| SystemTime.format_time(writer))?;
        writer.write_char(' ')?;
        styled(&mut writer, colour(*metadata.level()), |writer| write!(writer, "{:>5}", metadata.level()))?;
        writer.write_char(' ')?;
        styled(&mut writer, DIM, |writer| write!(writer, "{}: ", metadata.target()))?;
        context.format_fields(writer.by_ref(), event)?;
        styled(&mut writer, DIM, |writer| {
            for (name, value) in request::present().iter().flat_map(request::RequestLog::fields) {
                write!(writer, " {name}={value}")?;
            }
            for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
                let extensions = span.extensions();
                let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.fields.as_str());
                write!(writer, " {}{{{fields}}}", span.name())?;
            }
            Ok(())
        })?;
        writeln!(writer)
    }
}

fn styled(writer: &mut Writer<'_>, style: &str, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) -> fmt::Result {
    if !writer.has_ansi_escapes() {
        return write(writer);
    }
    write!(writer, "\x1b[{style}m")?;
    write(writer)?;
    writer.write_str("\x1b[0m")
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}
