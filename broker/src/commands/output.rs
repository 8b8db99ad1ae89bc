//! Tables for people, JSON for programs, and a stdout that may be closed under us.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::CommandError;

/// Columns parted by two spaces, no lines around them. Columns whose cells are all numbers stand to the right.
pub(super) fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    let is_number = |cell: &String| {
        cell == "-" || (!cell.is_empty() && cell.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_column_numeric = |i: usize| {
        rows.iter().any(|row| row[i] != "-") && rows.iter().all(|row| is_number(&row[i]))
    };
    let numeric: Vec<bool> = (0..N).map(is_column_numeric).collect();
    table.add_rows(rows);
    for (column, is_numeric) in table.column_iter_mut().zip(numeric) {
        column.set_padding((0, 2));
        if is_numeric {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Prints text as it is.
///
/// # Errors
/// [`CommandError::OutputClosed`] if nobody reads any more.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CommandError::stdout)
}

/// Prints one JSON value on one line.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    let mut line =
        serde_json::to_string(value).expect("our own structs with text keys always serialise");
    line.push('\n');
    print(&line)
}

/// A number, or `-` for none.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `1,2,3`, or `-` for none.
pub(super) fn ids(ids: &[i32]) -> String {
    if ids.is_empty() {
        return "-".to_owned();
    }
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Reads `KEY=VALUE`; the value may hold more `=`.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_no_line_ends_in_blanks() {
        let rows = vec![["a".to_owned(), "5".to_owned()], ["longer".to_owned(), "1000".to_owned()]];
        assert_eq!(table(["NAME", "COUNT"], rows), "NAME    COUNT\na           5\nlonger   1000\n");
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(table(["NAME", "COUNT"], vec![]), "NAME  COUNT\n");
    }
}
