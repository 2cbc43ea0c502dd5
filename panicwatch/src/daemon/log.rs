//! The daemon's own log: sentences on standard error, from every crate that uses the `log` facade.
//!
//! Under journald each line starts with its priority as `<N>` (sd-daemon(3)), elsewhere with time and level.

use std::io::{self, Write};

use jiff::Timestamp;
use log::{LevelFilter, Log, Metadata, Record};

use crate::{
    config::{self, LogFormat, LogLevel},
    escape,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Lines that start with the time.
    Plain,
    /// Lines that start with the priority; the journal adds the time.
    Journal,
    Json,
}

struct Logger {
    form: Form,
}

/// Installs the logger; a second call changes only the level.
pub fn install(config: &config::Log) {
    let form = match config.format {
        LogFormat::Json => Form::Json,
        // Set by systemd when standard error is connected to the journal.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => Form::Journal,
        LogFormat::Text => Form::Plain,
    };
    // Fails if a logger is already installed, which stays.
    let _ = log::set_boxed_logger(Box::new(Logger { form }));
    log::set_max_level(match config.level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    });
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries log a lot: only their warnings and errors are wanted.
        metadata.target().starts_with("panicwatch") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(self.form, record.level(), &record.args().to_string(), Timestamp::now());
            // A failure to write to standard error has nowhere to be reported.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(form: Form, level: log::Level, sentence: &str, now: Timestamp) -> String {
    // Text of a watched program must not imitate a log line.
    let sentence = escape::one_line(sentence);
    match form {
        Form::Plain => format!("{now:.3} {level:5} {sentence}\n"),
        Form::Journal => format!("<{}>{sentence}\n", priority(level)),
        Form::Json => {
            let line = serde_json::json!({
                "time": format!("{now:.6}"),
                "level": level.as_str().to_ascii_lowercase(),
                "message": sentence,
            });
            format!("{line}\n")
        }
    }
}

/// Returns the priority. <https://man7.org/linux/man-pages/man3/sd-daemon.3.html>
fn priority(level: log::Level) -> u8 {
    match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let told = |form| line(form, log::Level::Warn, "a \"b\"\n<3>forged", Timestamp::UNIX_EPOCH);
        assert_eq!(told(Form::Journal), "<4>a \"b\"\\n<3>forged\n");
        assert_eq!(told(Form::Plain), "1970-01-01T00:00:00.000Z WARN  a \"b\"\\n<3>forged\n");
        let json: serde_json::Value = serde_json::from_str(&told(Form::Json)).expect("an object");
        assert_eq!(json["level"], "warn");
        assert_eq!(json["message"], "a \"b\"\\n<3>forged");
    }
}
