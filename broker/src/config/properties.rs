//! Reading `server.properties`, in the format of Java's `Properties`.

use std::path::Path;

use super::error::ConfigError;

/// The settings of a file in their order; a later one of the same name wins.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ConfigError::ReadFile { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|reason| ConfigError::ParseFile { path: path.to_owned(), reason })
}

fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    java_properties::PropertiesIter::new(bytes)
        .read_into(|name, value| settings.push((name, value)))
        .map_err(|error| match error.line_number() {
            Some(line) => format!("line {line}: {error}"),
            None => error.to_string(),
        })?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_properties_file_is_read_as_java_reads_it() {
        let text = b"# a comment\n! another\nnode.id = 3\nlisteners: A://:1,\\\n   B://:2\n\nlog.dir=C:\\\\data\n";
        let expected = [("node.id", "3"), ("listeners", "A://:1,B://:2"), ("log.dir", "C:\\data")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_which_names_it() {
        let error = read(Path::new("/nowhere/server.properties")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/server.properties"), "{error}");
    }
}
