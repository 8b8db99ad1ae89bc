//! `highwater log dump FILE…`: what a partition's files hold, and whether it is sound. Needs no broker and changes nothing.

mod index;
mod scan;
mod segment;
mod snapshot;
mod verify;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage::offset::Offset;

use super::CommandError;

/// `highwater log …`
#[derive(Clone, Debug, Subcommand)]
pub enum LogCommand {
    /// Print the batches and records, or entries, of a partition's files
    Dump(DumpArgs),
}

/// `highwater log dump`
#[derive(Clone, Debug, Args)]
pub struct DumpArgs {
    /// .log, .index, .timeindex, .txnindex or .snapshot files of a partition directory
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print no contents: check CRCs, records and order, and index entries against the .log beside them
    #[arg(long)]
    verify: bool,
    /// Print batches without their records
    #[arg(long)]
    no_records: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Which of Kafka's files, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    /// Record batches; the metadata log and its snapshots too.
    Batches,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
}

/// A file by its name.
#[derive(Clone, Copy, Debug)]
struct LogFile<'a> {
    path: &'a Path,
    kind: FileKind,
    /// The number in its name; 0 for the metadata log's snapshots.
    base_offset: Offset,
}

/// One line of output: a word for what it is, then its fields.
struct Line {
    kind: &'static str,
    fields: Vec<(&'static str, Field)>,
}

enum Field {
    Plain(Value),
    /// Of a record: text if it is UTF-8, else hexadecimal digits.
    Bytes(Option<Vec<u8>>),
}

impl LogCommand {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        match self {
            LogCommand::Dump(args) => args.run(),
        }
    }
}

impl DumpArgs {
    fn run(&self) -> Result<ExitCode, CommandError> {
        let mut out = Output { out: io::BufWriter::new(io::stdout().lock()), is_json: self.json };
        let mut problems = 0;
        for path in &self.files {
            let file = LogFile::by_name(path)?;
            if self.verify {
                problems += verify::verify(&file, &mut out)?;
            } else {
                if self.files.len() > 1 {
                    out.line(Line::new("file").field("path", path.display().to_string()))?;
                }
                problems += match file.kind {
                    FileKind::Batches => segment::dump(&file, !self.no_records, &mut out)?,
                    FileKind::OffsetIndex | FileKind::TimeIndex | FileKind::TransactionIndex => {
                        index::dump(&file, &mut out)?
                    }
                    FileKind::ProducerSnapshot => snapshot::dump(&file, &mut out)?,
                };
            }
        }
        out.out.flush().map_err(CommandError::stdout)?;
        Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl<'a> LogFile<'a> {
    fn by_name(path: &'a Path) -> Result<LogFile<'a>, CommandError> {
        let unknown = || {
            let what = "give .log, .index, .timeindex, .txnindex or .snapshot files named by their base offset";
            CommandError::Usage(format!("{}: {what}", path.display()))
        };
        let mut name = path.file_name().and_then(|name| name.to_str()).ok_or_else(unknown)?;
        // Left over by a deletion, a compaction, a swap.
        for suffix in [".deleted", ".cleaned", ".swap"] {
            name = name.strip_suffix(suffix).unwrap_or(name);
        }
        let (base, kind) = name.split_once('.').ok_or_else(unknown)?;
        let kind = match kind {
            "log" | "checkpoint" => FileKind::Batches,
            "index" => FileKind::OffsetIndex,
            "timeindex" => FileKind::TimeIndex,
            "txnindex" => FileKind::TransactionIndex,
            "snapshot" => FileKind::ProducerSnapshot,
            _ => return Err(unknown()),
        };
        let base_offset = match name.ends_with(".checkpoint") {
            true => Offset::ZERO,
            false => base.parse().ok().and_then(Offset::new).ok_or_else(unknown)?,
        };
        Ok(LogFile { path, kind, base_offset })
    }

    fn read(&self) -> Result<Vec<u8>, CommandError> {
        std::fs::read(self.path).map_err(|e| self.error(e))
    }

    fn error(&self, source: io::Error) -> CommandError {
        CommandError::Io { what: self.path.display().to_string(), source }
    }

    /// The quorum's log, whose records are not an application's.
    fn is_metadata_log(&self) -> bool {
        self.path.parent().is_some_and(|dir| dir.ends_with("__cluster_metadata-0"))
            && self.path.extension().is_some_and(|extension| extension == "log")
    }
}

impl Line {
    fn new(kind: &'static str) -> Line {
        Line { kind, fields: Vec::new() }
    }

    fn field(mut self, name: &'static str, value: impl Into<Value>) -> Line {
        self.fields.push((name, Field::Plain(value.into())));
        self
    }

    fn bytes(mut self, name: &'static str, bytes: Option<&[u8]>) -> Line {
        self.fields.push((name, Field::Bytes(bytes.map(<[u8]>::to_vec))));
        self
    }

    /// Nothing if it is not so.
    fn flag(self, name: &'static str, is_set: bool) -> Line {
        if is_set { self.field(name, true) } else { self }
    }

    fn problem(position: u64, what: impl fmt::Display) -> Line {
        Line::new("problem").field("position", position).field("what", what.to_string())
    }
}

/// Lines to stdout.
struct Output<W> {
    out: W,
    is_json: bool,
}

impl<W: Write> Output<W> {
    fn line(&mut self, line: Line) -> Result<(), CommandError> {
        let written = if self.is_json { self.write_json(line) } else { self.write_text(line) };
        written.map_err(CommandError::stdout)
    }

    fn write_json(&mut self, line: Line) -> io::Result<()> {
        let mut object = json!({ "type": line.kind });
        for (name, field) in line.fields {
            match field {
                Field::Plain(value) => object[name] = value,
                Field::Bytes(None) => object[name] = Value::Null,
                Field::Bytes(Some(bytes)) => match String::from_utf8(bytes) {
                    Ok(text) => object[name] = text.into(),
                    Err(error) => object[format!("{name}_hex")] = hex(error.as_bytes()).into(),
                },
            }
        }
        writeln!(self.out, "{object}")
    }

    fn write_text(&mut self, line: Line) -> io::Result<()> {
        // Records belong to the batch above them.
        let indent = if line.kind == "record" { "  " } else { "" };
        write!(self.out, "{indent}{}", line.kind)?;
        for (name, field) in line.fields {
            match field {
                Field::Plain(Value::Bool(true)) => write!(self.out, " {name}")?,
                Field::Plain(Value::String(text)) => write!(self.out, " {name}={text}")?,
                Field::Plain(value) => write!(self.out, " {name}={value}")?,
                Field::Bytes(None) => write!(self.out, " {name}=null")?,
                Field::Bytes(Some(bytes)) => match std::str::from_utf8(&bytes) {
                    Ok(text) => write!(self.out, " {name}={text:?}")?,
                    Err(_) => write!(self.out, " {name}=0x{}", hex(&bytes))?,
                },
            }
        }
        writeln!(self.out)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
