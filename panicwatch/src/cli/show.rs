//! `panicwatch show`: renders a stored incident, possibly later and on another machine.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::Args as ClapArgs;

use super::{
    ask::{self, DaemonArgs},
    common::{self, Exit, say},
    values::FormatValue,
};
use crate::{
    http::client,
    render::{self, text::Style},
    stored::{Pick, Stored},
};

/// Show a stored incident
///
/// The output depends on the document only; on a terminal, text fits its width.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// File that `-o` of run or attach wrote (an incident document or JSON lines), - for standard input, or
    /// the ID of an incident that a daemon stored
    #[arg(value_name = "FILE|ID")]
    file: PathBuf,
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: FormatValue,
    /// Of several incidents, the one with this id
    #[arg(long, value_name = "ID", conflicts_with = "index")]
    id: Option<String>,
    /// Show the incident with this number, counted from 1 [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    index: Option<u64>,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints the incident.
///
/// # Errors
/// Status 1 when the incident does not exist or cannot be read, 2 when a binary file would be written to a
/// terminal.
pub fn run(args: &Args) -> Result<i32, Exit> {
    if args.format == FormatValue::Perfetto && args.output.is_none() && io::stdout().is_terminal() {
        let error =
            anyhow!("--format perfetto is binary: cannot write it to a terminal; name a file with -o FILE");
        return Err(common::usage(error));
    }
    let name = args.file.display().to_string();
    let bytes = read(args)?;
    let stored = Stored::find(&bytes).with_context(|| name.clone())?;
    let pick = match (&args.id, args.index) {
        (Some(id), _) => Pick::Id(id.clone()),
        (None, Some(number)) => Pick::Index(usize::try_from(number).unwrap_or(usize::MAX)),
        (None, None) => Pick::Last,
    };
    let (incident, document) = stored.read(&pick).with_context(|| name.clone())?;
    if pick == Pick::Last && stored.count() > 1 {
        say(&format!(
            "{name} has {} incidents, this is the last; to show another, use --index or --id",
            stored.count()
        ));
    }
    let style = if args.output.is_some() { Style::default() } else { common::stdout_style() };
    let bytes = render::render(args.format.into(), &incident, Some(&document), &style)?;
    write(args.output.as_deref(), &bytes)?;
    Ok(0)
}

fn read(args: &Args) -> Result<Vec<u8>, Exit> {
    let path = &*args.file;
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(bytes);
    }
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(anyhow!(
            "cannot read {}: it is not a regular file; to show what a pipe holds, use standard input: panicwatch show \
             -",
            path.display()
        )
        .into()),
        Ok(_) => {
            let mut bytes = Vec::new();
            let read = common::open_regular(path)?.read_to_end(&mut bytes);
            read.with_context(|| format!("cannot read {}", path.display()))?;
            Ok(bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.to_str() {
            Some(id) if ulid::Ulid::from_string(id).is_ok() => stored(&args.daemon, id),
            _ => Err(anyhow!(
                "there is no file {}, and it is not an incident ID; give a file that -o of run or attach wrote, or \
                 the ID of an incident that a daemon stored",
                path.display()
            )
            .into()),
        },
        Err(error) => Err(anyhow!(error).context(format!("cannot read {}", path.display())).into()),
    }
}

/// Fetches the document from the daemon.
fn stored(daemon: &DaemonArgs, id: &str) -> Result<Vec<u8>, Exit> {
    let client = daemon.client()?;
    let answer = ask::runtime()?.block_on(client.bytes(&format!("/api/v1/incidents/{id}")));
    answer.map_err(|error| {
        let context = match &error {
            client::Error::NotFound(_) => {
                format!("there is no file {id}, and no incident with this ID at {}", client.place())
            }
            // A mistyped file name may look like an ID.
            client::Error::Connection { .. } => format!("there is no file {id}"),
            _ => format!("cannot show incident {id}"),
        };
        anyhow!(error).context(context).into()
    })
}

fn write(output: Option<&Path>, bytes: &[u8]) -> anyhow::Result<()> {
    let Some(path) = output else {
        return match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.context("cannot write to standard output"),
        };
    };
    let cannot = || format!("cannot write to {}", path.display());
    File::create(path).and_then(|mut file| file.write_all(bytes)).with_context(cannot)
}
