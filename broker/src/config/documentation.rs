//! `docs/configuration.md`, written from the tables.

use std::fmt::Write;

use super::absent::{ABSENT, REFUSED};
use super::definition::{Allowed, Change, ConfigDefinition, ConfigType, Support};
use super::table::ConfigTable;

const HEAD: &str = "\
# Configuration

Written from the tables in `broker/src/config`; `UPDATE_DOCS=1 cargo test -p highwater documentation` writes it again.

Names, types, defaults and ranges are those of Kafka 4.1. A setting is looked for in this order:

1. flags: `--data-dir` (`log.dirs`), `--listen` (`listeners`), `--node-id` (`node.id`), then `--set KEY=VALUE`;
2. environment variables by the rules of Kafka's container image: `KAFKA_LOG_DIRS` is `log.dirs`, `_` a dot, `__` an
   underscore, `___` a dash;
3. the file named by `--config`, in the format of Java's properties: Kafka's own `server.properties` starts unchanged;
4. the defaults below.

A bad value stops the start (exit code 2) with the key, the value and what is allowed. An unknown name is warned about
with the nearest known one. What changes at run time (`kafka-configs.sh --alter`, AlterConfigs) wins over all of it: this
broker's own value, then that for all brokers.

`--listen` also puts `advertised.listeners` and `inter.broker.listener.name` of the environment and the file out of
account; `--set advertised.listeners=…` goes with it. A metadata quorum of this node alone counts as none: the listeners
named by `controller.listener.names` are not opened.
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(
        "\n## Broker\n\n| name | type | unit | default | allowed | changes | what it is |\n|---|---|---|---|---|---|---|\n",
    );
    for definition in ConfigTable::BROKER.iter().filter(|definition| !definition.is_internal) {
        let changes = match definition.change {
            Change::ReadOnly => "at start",
            Change::ClusterWide => "at run time",
        };
        row(&mut page, definition, changes);
    }
    page.push_str(
        "\n## Topic\n\nAll of them change at run time. What a topic does not set it takes from the broker's setting.\n\n\
         | name | type | unit | default | allowed | broker's setting | what it is |\n|---|---|---|---|---|---|---|\n",
    );
    for definition in ConfigTable::TOPIC.iter() {
        let synonym = definition.synonym.map_or_else(String::new, |name| format!("`{name}`"));
        row(&mut page, definition, &synonym);
    }
    page.push_str(
        "\n## Not there\n\nWith another value than the one accepted these stop the start:\n\n",
    );
    for refused in REFUSED {
        let accepted = match refused.accepted {
            "" => String::new(),
            accepted => format!("; `{accepted}` is accepted"),
        };
        writes(&mut page, format_args!("- `{}` ({}{accepted})\n", refused.name, refused.feature));
    }
    page.push_str(
        "\nThese have no effect. At the start they are named in one warning; at run time they are refused.\n\n",
    );
    for feature in ABSENT {
        let names: Vec<String> = feature.configs.iter().map(|name| format!("`{name}`")).collect();
        writes(&mut page, format_args!("- {}: {}\n", feature.name, names.join(", ")));
    }
    page
}

fn writes(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a String takes any text");
}

fn row(page: &mut String, definition: &ConfigDefinition, column: &str) {
    let default = match definition.default {
        None => "not set".to_owned(),
        Some("") => "empty".to_owned(),
        Some(default) => format!("`{default}`"),
    };
    let allowed = match definition.support {
        Support::Honoured => allowed(definition),
        Support::DefaultOnly(feature) => format!("only the default: no {feature}"),
    };
    writes(
        page,
        format_args!(
            "| `{}` | {} | {} | {default} | {allowed} | {column} | {} |\n",
            definition.name,
            definition.config_type.name().to_ascii_lowercase(),
            definition.unit.name(),
            definition.documentation
        ),
    );
}

fn allowed(definition: &ConfigDefinition) -> String {
    let words = |words: &[&str]| {
        words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    };
    match definition.allowed {
        Allowed::Any if definition.config_type == ConfigType::Boolean => {
            "`true`, `false`".to_owned()
        }
        Allowed::Any => String::new(),
        Allowed::AtLeast(min) => format!("{min} or more"),
        Allowed::Between(min, max) => format!("{min} to {max}"),
        Allowed::BetweenOr(min, i64::MAX, other) => format!("{other}, or {min} or more"),
        Allowed::BetweenOr(min, max, other) => format!("{other}, or {min} to {max}"),
        Allowed::Fraction => "0 to 1".to_owned(),
        Allowed::OneOf(allowed) => words(allowed),
        Allowed::ListOf(allowed) => format!("any of {}", words(allowed)),
        Allowed::ThrottledReplicas => "`*` or `partition:broker,…`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_documentation_is_what_the_tables_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == markdown(),
            "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test -p highwater documentation"
        );
    }
}
