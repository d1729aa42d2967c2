//! `[log]`: how much is logged, and in which form.

use super::section::Section;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One object per line.
    Json,
    Human,
    /// Human on a terminal, otherwise JSON.
    Auto,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    /// A filter in the syntax of tracing's `EnvFilter`.
    pub level: String,
}

impl Log {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let format = match section.one_of("format", &["json", "human", "auto"]).as_str() {
            "json" => LogFormat::Json,
            "human" => LogFormat::Human,
            _ => LogFormat::Auto,
        };
        let filter = |text: &str| tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned());
        let expected = "a log filter such as \"info\" or \"info,ags_gateway=debug\"";
        let level = section.require("level", expected, String::new(), filter);
        section.finish();
        Self { format, level }
    }
}
