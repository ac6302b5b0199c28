//! Logs on standard error: one line for each event, in logfmt or JSON, with the keys of Prometheus's own servers
//! (`time`, `level`, `msg`, then the event's fields).

use std::fmt::{self, Debug};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Writes events of at least `level` to standard error, for the lifetime of the process.
pub fn start(level: LevelFilter, format: LogFormat) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .event_format(Line(format))
        .finish();
    // Libraries may log problems at info and above, but not details: HTTP/2 would log every frame.
    let targets = Targets::new().with_target("pushrelay", level).with_default(level.min(LevelFilter::INFO));
    let subscriber = subscriber.with(targets);
    // Tests call this more than once; later calls change nothing.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Line(LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let level = event.metadata().level().as_str();
        match self.0 {
            LogFormat::Logfmt => {
                write!(out, "time={time} level={level}")?;
                for (key, value) in fields.in_order() {
                    write!(out, " {key}=")?;
                    write_value(&mut out, &value)?;
                }
                writeln!(out)
            }
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert("time".into(), time.into());
                line.insert("level".into(), level.into());
                line.extend(fields.in_order().map(|(key, value)| (key.to_string(), value)));
                writeln!(out, "{}", Value::Object(line))
            }
        }
    }
}

/// Quotes values that logfmt readers would split or miss.
fn write_value(out: &mut Writer<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) => {
            let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
            if !text.is_empty() && text.chars().all(plain) { out.write_str(text) } else { write!(out, "{text:?}") }
        }
        other => write!(out, "{other}"),
    }
}

#[derive(Default)]
struct EventFields {
    message: Option<Value>,
    others: Vec<(&'static str, Value)>,
}

impl EventFields {
    fn add(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = Some(value),
            name => self.others.push((name, value)),
        }
    }

    /// All fields, the message first.
    fn in_order(self) -> impl Iterator<Item = (&'static str, Value)> {
        self.message.map(|message| ("msg", message)).into_iter().chain(self.others)
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn line(format: LogFormat) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(Line(format)).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(edge = "syq-1", address = %"127.0.0.1:1", odd = "a \"b\"\n=", revision = 7u64, "connected");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn logfmt_quotes_what_must_be_quoted() {
        let line = line(LogFormat::Logfmt);
        let expected = " level=INFO msg=connected edge=syq-1 address=127.0.0.1:1 odd=\"a \\\"b\\\"\\n=\" revision=7\n";
        assert!(line.starts_with("time=") && line.ends_with(expected), "{line}");
    }

    #[test]
    fn json_is_json() {
        let line: Value = serde_json::from_str(&line(LogFormat::Json)).unwrap();
        assert_eq!(line["msg"], "connected");
        assert_eq!(line["odd"], "a \"b\"\n=");
        assert_eq!(line["revision"], 7);
    }
}
