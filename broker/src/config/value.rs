//! Parsing and checking one value against its definition, as Kafka's `ConfigDef` does: values are trimmed,
//! numbers are decimal, booleans are of any case, lists are split at commas.

use super::definition::{Allowed, ConfigDefinition, ConfigType};

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// From `BOOLEAN`.
    Boolean(bool),
    /// From `STRING`.
    String(String),
    /// From `SHORT`, `INT` and `LONG`, within the type's range.
    Integer(i64),
    /// From `DOUBLE`.
    Double(f64),
    /// From `LIST`; empty text is the empty list.
    List(Vec<String>),
}

/// As Kafka shows a value: numbers in decimal, booleans in small letters, lists joined by commas.
impl std::fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigValue::Boolean(value) => write!(f, "{value}"),
            ConfigValue::String(value) => write!(f, "{value}"),
            ConfigValue::Integer(value) => write!(f, "{value}"),
            ConfigValue::Double(value) => write!(f, "{value:?}"),
            ConfigValue::List(items) => write!(f, "{}", items.join(",")),
        }
    }
}

/// Why a value does not fit its definition. Its text says what is allowed, in Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value {value} for configuration {name}: {reason}")]
pub struct InvalidValue {
    /// The configuration's name.
    pub name: &'static str,
    /// The value as given.
    pub value: String,
    /// What is wrong, or what is allowed.
    pub reason: String,
}

impl ConfigDefinition {
    /// Parses and checks a value by type and range alone; whether we support it is [`Self::check`]'s.
    ///
    /// # Errors
    /// The value is not of the type, or not among the allowed ones.
    pub fn parse(&self, value: &str) -> Result<ConfigValue, InvalidValue> {
        let trimmed = value.trim();
        let invalid =
            |reason: String| InvalidValue { name: self.name, value: value.to_owned(), reason };
        let integer = |min: i64, max: i64| {
            trimmed
                .parse::<i64>()
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map(ConfigValue::Integer)
                .ok_or_else(|| invalid(format!("Not a number of type {}", self.config_type.name())))
        };
        let parsed = match self.config_type {
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("true") => {
                ConfigValue::Boolean(true)
            }
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("false") => {
                ConfigValue::Boolean(false)
            }
            ConfigType::Boolean => {
                return Err(invalid("Expected value to be either true or false".to_owned()));
            }
            ConfigType::String => ConfigValue::String(trimmed.to_owned()),
            ConfigType::Short => integer(i16::MIN.into(), i16::MAX.into())?,
            ConfigType::Int => integer(i32::MIN.into(), i32::MAX.into())?,
            ConfigType::Long => integer(i64::MIN, i64::MAX)?,
            ConfigType::Double => trimmed
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .map(ConfigValue::Double)
                .ok_or_else(|| invalid("Not a number of type DOUBLE".to_owned()))?,
            ConfigType::List => ConfigValue::List(split_list(trimmed)),
        };
        self.allowed.check(&parsed).map_err(invalid)?;
        Ok(parsed)
    }
}

/// The items of a list value: split at commas, each trimmed; empty text has none.
pub fn split_list(value: &str) -> Vec<String> {
    let value = value.trim();
    if value.is_empty() {
        return Vec::new();
    }
    value.split(',').map(|item| item.trim().to_owned()).collect()
}

impl Allowed {
    fn check(self, value: &ConfigValue) -> Result<(), String> {
        match (self, value) {
            (Allowed::AtLeast(min), ConfigValue::Integer(number)) => at_least(*number, min),
            (Allowed::Between(min, max), ConfigValue::Integer(number)) => {
                at_least(*number, min).and_then(|()| at_most(*number, max))
            }
            (Allowed::BetweenOr(min, i64::MAX, other), ConfigValue::Integer(number)) => {
                if *number == other { Ok(()) } else { at_least(*number, min) }
                    .map_err(|reason| format!("{reason}, or equal to {other}"))
            }
            (Allowed::BetweenOr(min, max, other), ConfigValue::Integer(number)) => {
                if *number == other || (min..=max).contains(number) {
                    Ok(())
                } else {
                    Err(format!("Value must be between {min} and {max} or equal to {other}"))
                }
            }
            (Allowed::Fraction, ConfigValue::Double(number)) => {
                if *number < 0.0 {
                    Err("Value must be at least 0".to_owned())
                } else if *number > 1.0 {
                    Err("Value must be no more than 1".to_owned())
                } else {
                    Ok(())
                }
            }
            (Allowed::OneOf(words), ConfigValue::String(word)) => one_of(word, words),
            (Allowed::ListOf(words), ConfigValue::List(items)) => {
                items.iter().try_for_each(|item| one_of(item, words))
            }
            (Allowed::ThrottledReplicas, ConfigValue::List(items)) => {
                let is_all = matches!(items.as_slice(), [only] if only == "*");
                if is_all || items.iter().all(|item| is_partition_and_broker(item)) {
                    Ok(())
                } else {
                    Err("must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                        .to_owned())
                }
            }
            // A table line that pairs a check with another type; a test goes through the tables.
            (Allowed::Any, _) | (_, _) => Ok(()),
        }
    }
}

fn at_least(number: i64, min: i64) -> Result<(), String> {
    if number >= min { Ok(()) } else { Err(format!("Value must be at least {min}")) }
}

fn at_most(number: i64, max: i64) -> Result<(), String> {
    if number <= max { Ok(()) } else { Err(format!("Value must be no more than {max}")) }
}

fn one_of(word: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&word) {
        Ok(())
    } else {
        Err(format!("String must be one of: {}", words.join(", ")))
    }
}

fn is_partition_and_broker(item: &str) -> bool {
    item.split_once(':').is_some_and(|(partition, broker)| {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        is_digits(partition) && is_digits(broker)
    })
}

#[cfg(test)]
mod tests {
    use super::super::table::ConfigTable;

    /// What Kafka 4.1 answers to IncrementalAlterConfigs with these values.
    #[test]
    fn bad_values_are_refused_in_kafkas_words() {
        for (name, value, reason) in [
            ("retention.ms", "abc", "Not a number of type LONG"),
            ("retention.ms", "-2", "Value must be at least -1"),
            ("segment.bytes", "9999999999", "Not a number of type INT"),
            ("segment.bytes", "100", "Value must be at least 1048576"),
            ("flush.ms", "9223372036854775808", "Not a number of type LONG"),
            ("preallocate", "maybe", "Expected value to be either true or false"),
            ("cleanup.policy", "bogus", "String must be one of: compact, delete"),
            (
                "compression.type",
                "brotli",
                "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            ("compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1"),
            (
                "message.timestamp.type",
                "createtime",
                "String must be one of: CreateTime, LogAppendTime",
            ),
            ("min.cleanable.dirty.ratio", "2", "Value must be no more than 1"),
        ] {
            let error = ConfigTable::TOPIC.known(name).parse(value).unwrap_err();
            assert_eq!(error.reason, reason, "{name}={value}");
            assert_eq!(
                error.to_string(),
                format!("Invalid value {value} for configuration {name}: {reason}")
            );
        }
    }

    #[test]
    fn values_are_trimmed_and_shown_in_one_form() {
        for (name, value, shown) in [
            ("preallocate", " TRUE ", "true"),
            ("compression.gzip.level", " 5 ", "5"),
            ("cleanup.policy", " compact , delete ", "compact,delete"),
            ("cleanup.policy", "", ""),
            ("min.cleanable.dirty.ratio", "0.50", "0.5"),
            ("leader.replication.throttled.replicas", "0:1,1:2", "0:1,1:2"),
            ("leader.replication.throttled.replicas", "*", "*"),
        ] {
            let parsed = ConfigTable::TOPIC.known(name).parse(value).unwrap();
            assert_eq!(parsed.to_string(), shown, "{name}={value}");
        }
    }

    #[test]
    fn throttled_replicas_are_pairs_of_numbers_or_a_star_alone() {
        for value in ["x", "0", "0:", ":1", "0:1,*", "a:b", "0:1,"] {
            let definition = ConfigTable::TOPIC.known("leader.replication.throttled.replicas");
            assert!(definition.parse(value).is_err(), "{value}");
        }
    }
}
