//! `docs/api-support.md`, written from the API table and the list of differences from Apache Kafka that are meant.

use super::versions::APIS;
use serde::Deserialize;
use std::fmt::Write;

const HEAD: &str = "\
# What of Kafka's API is served

Written from `broker/src/api/versions.rs` and `tests/parity/meant.json`; `UPDATE_DOCS=1 cargo test -p highwater documentation`
writes it again.

What is not in the table is not advertised, and a request for it closes the connection, as with Apache Kafka.
";

/// An entry of `tests/parity/meant.json`: where an answer differs from Apache Kafka 4.1's, and why.
#[derive(Debug, Deserialize)]
pub struct MeantDifference {
    api: String,
    /// First and last version, both inclusive; all if absent.
    versions: Option<[i16; 2]>,
    /// What Kafka answers, and what we do.
    says: [String; 2],
    reason: String,
}

/// The whole page.
pub fn markdown(meant: &[MeantDifference]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n| key | API | versions | notes |\n|---|---|---|---|\n");
    let mut apis: Vec<_> = APIS.iter().collect();
    apis.sort_by_key(|api| api.key as i16);
    for api in apis {
        let (key, min, max, notes) = (api.key, api.min_version, api.max_version, api.notes);
        writes(&mut page, format_args!("| {} | {key:?} | {min}–{max} | {notes} |\n", key as i16));
    }
    page.push_str(
        "\n## Meant differences from Apache Kafka 4.1\n\nEvery advertised API is compared with Apache Kafka 4.1 on the wire, in every \
         version that both know, in its plain case and its errors (`tests/parity`). These differences are meant; there are no others.\n\n\
         | API | versions | Apache Kafka 4.1 | highwater | why |\n|---|---|---|---|---|\n",
    );
    for MeantDifference { api, versions, says: [kafka, ours], reason } in meant {
        let versions = versions.map_or("all".to_owned(), |[first, last]| format!("{first}–{last}"));
        writes(&mut page, format_args!("| {api} | {versions} | {kafka} | {ours} | {reason} |\n"));
    }
    page
}

fn writes(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_documentation_is_what_the_tables_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let meant = std::fs::read_to_string(root.join("tests/parity/meant.json")).unwrap();
        let page = markdown(&serde_json::from_str::<Vec<MeantDifference>>(&meant).unwrap());
        let path = root.join("docs/api-support.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "docs/api-support.md is out of date: UPDATE_DOCS=1 cargo test -p highwater documentation"
        );
    }
}
