//! Log lines as JSON objects: `timestamp`, `level`, the event's fields, `target`, and as `span` what tells of the request that is
//! being handled and of the current span.
//!
//! tracing-subscriber's own writer keeps a span's fields as the text of an object, which it parses and writes anew for each
//! line (docs/PERFORMANCE.md). Here they are kept as they go into the line.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::request::{self, RequestLog};
use crate::domain::json::escape;

/// The name of a span that is a request alone.
const REQUEST: &str = "request";

/// Fields as `"name":value,"name":value`.
pub(super) struct Fields;

/// Events as lines.
pub(super) struct Lines;

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut object = Object { out: &mut writer, first: true, result: Ok(()) };
        fields.record(&mut object);
        object.result
    }

    fn add_fields(&self, current: &'a mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let first = current.fields.is_empty();
        let mut object = Object { out: &mut current.fields, first, result: Ok(()) };
        fields.record(&mut object);
        object.result
    }
}

impl<S> FormatEvent<S, Fields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Fields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        for part in ["\",\"level\":\"", metadata.level().as_str(), "\""] {
            writer.write_str(part)?;
        }
        let mut object = Object { out: &mut writer, first: false, result: Ok(()) };
        event.record(&mut object);
        object.text("target", metadata.target());
        object.result?;
        let span = event.parent().and_then(|id| context.span(id)).or_else(|| context.lookup_current());
        let request = request::present();
        if request.is_some() || span.is_some() {
            writer.write_str(",\"span\":{")?;
            let mut object = Object { out: &mut writer, first: true, result: Ok(()) };
            request.iter().flat_map(RequestLog::fields).for_each(|(name, value)| object.text(name, value));
            if let Some(span) = &span {
                let extensions = span.extensions();
                object.written(extensions.get::<FormattedFields<Fields>>().map_or("", |fields| fields.fields.as_str()));
            }
            object.text("name", span.map_or(REQUEST, |span| span.name()));
            object.result?;
            writer.write_char('}')?;
        }
        writer.write_str("}\n")
    }
}

/// The inside of an object.
struct Object<'a> {
    out: &'a mut dyn Write,
    first: bool,
    result: fmt::Result,
}

impl Object<'_> {
    /// Adds fields that were written as such before.
    fn written(&mut self, fields: &str) {
        if self.result.is_ok() && !fields.is_empty() {
            let comma = if std::mem::take(&mut self.first) { "" } else { "," };
            self.result = self.out.write_str(comma).and_then(|()| self.out.write_str(fields));
        }
    }

    fn put(&mut self, name: &str, value: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        if self.result.is_err() {
            return;
        }
        let open = if std::mem::take(&mut self.first) { "\"" } else { ",\"" };
        // A field's name is an identifier, or was chosen like one (`r#type`).
        let name = name.strip_prefix("r#").unwrap_or(name);
        // Piece by piece: formatting them takes several times as long (docs/PERFORMANCE.md).
        let named = [open, name, "\":"].into_iter().try_for_each(|part| self.out.write_str(part));
        self.result = named.and_then(|()| value(self.out));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.put(name, |out| {
            out.write_char('"')?;
            Inside(out).write_str(text)?;
            out.write_char('"')
        });
    }

    fn shown(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.put(name, |out| {
            out.write_char('"')?;
            Inside(out).write_fmt(value)?;
            out.write_char('"')
        });
    }
}

/// The inside of a string.
struct Inside<'a>(&'a mut dyn Write);

impl Write for Inside<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, |piece| self.0.write_str(piece))
    }
}

impl Visit for Object<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), |out| write!(out, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), |out| write!(out, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for the others.
        let value = value.is_finite().then_some(value);
        self.put(field.name(), |out| match value {
            Some(value) => write!(out, "{value}"),
            None => out.write_str("null"),
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.shown(field.name(), format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.shown(field.name(), format_args!("{value:?}"));
    }
}
