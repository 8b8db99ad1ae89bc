//! What one configuration is: Kafka's name, type, unit, default, range, whether it can change while the broker
//! runs, what we do with it, and one sentence. The tables (`broker_table`, `topic_table`) are lists of these, and
//! parsing, DescribeConfigs, AlterConfigs and `docs/configuration.md` all come from them.

/// The type of a configuration's value, as DescribeConfigs names it (v3 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`, in any case.
    Boolean,
    /// Text as it stands.
    String,
    /// A 32-bit integer.
    Int,
    /// A 16-bit integer.
    Short,
    /// A 64-bit integer.
    Long,
    /// A floating point number.
    Double,
    /// Comma-separated text.
    List,
}

impl ConfigType {
    /// The number on the wire (`DescribeConfigsResponse.json`, `config_type`).
    pub fn id(self) -> i8 {
        match self {
            ConfigType::Boolean => 1,
            ConfigType::String => 2,
            ConfigType::Int => 3,
            ConfigType::Short => 4,
            ConfigType::Long => 5,
            ConfigType::Double => 6,
            ConfigType::List => 7,
        }
    }

    /// The word for people and for error messages.
    pub fn name(self) -> &'static str {
        match self {
            ConfigType::Boolean => "BOOLEAN",
            ConfigType::String => "STRING",
            ConfigType::Int => "INT",
            ConfigType::Short => "SHORT",
            ConfigType::Long => "LONG",
            ConfigType::Double => "DOUBLE",
            ConfigType::List => "LIST",
        }
    }
}

/// Where a value comes from, most specific first, with the numbers of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set at run time on this broker.
    DynamicBroker,
    /// Set at run time for all brokers.
    DynamicDefaultBroker,
    /// Given at the start: a flag, the environment or the file.
    StaticBroker,
    /// Built in.
    Default,
}

impl ConfigSource {
    /// The number on the wire (`DescribeConfigsResponse.json`, `config_source`).
    pub fn id(self) -> i8 {
        match self {
            ConfigSource::Topic => 1,
            ConfigSource::DynamicBroker => 2,
            ConfigSource::DynamicDefaultBroker => 3,
            ConfigSource::StaticBroker => 4,
            ConfigSource::Default => 5,
        }
    }
}

/// Whether a configuration may change while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only by a restart; AlterConfigs refuses it.
    ReadOnly,
    /// For one broker or for all (the resource with the empty name).
    ClusterWide,
}

/// Which values are allowed, beyond the type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// All of the type.
    Any,
    /// Integers from here, inclusive.
    AtLeast(i64),
    /// Integers from the first to the second, both inclusive.
    Between(i64, i64),
    /// Integers from the first to the second, both inclusive, or the third.
    BetweenOr(i64, i64, i64),
    /// Numbers from 0 to 1, both inclusive.
    Fraction,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list whose items are of these words.
    ListOf(&'static [&'static str]),
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
}

/// What the numbers of a configuration count; said in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No unit: a word, an address, a switch.
    None,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
    /// A number of the things the name says.
    Count,
}

impl Unit {
    /// The word for the documentation; empty where there is no unit.
    pub fn name(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "ms",
            Unit::Minutes => "minutes",
            Unit::Hours => "hours",
            Unit::Count => "count",
        }
    }
}

/// What this broker does with a configuration that it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Followed.
    Honoured,
    /// Belongs to a feature which is not there, named here. Shown, because clients expect every topic
    /// configuration in DescribeConfigs; accepts its default only.
    DefaultOnly(&'static str),
}

/// One configuration. Built in the tables only, by [`ConfigDefinition::new`] and the words after it.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDefinition {
    /// Kafka's name.
    pub name: &'static str,
    /// The type of its value.
    pub config_type: ConfigType,
    /// The built-in default; `None` where nothing is set (Kafka's null).
    pub default: Option<&'static str>,
    /// What else a value must satisfy.
    pub allowed: Allowed,
    /// What its number counts.
    pub unit: Unit,
    /// Whether it may change at run time.
    pub change: Change,
    /// What we do with it.
    pub support: Support,
    /// For a topic configuration the broker's name for it, followed where the topic sets nothing.
    pub synonym: Option<&'static str>,
    /// Not in DescribeConfigs nor in the documentation (Kafka's "internal").
    pub is_internal: bool,
    /// One sentence.
    pub documentation: &'static str,
}

impl ConfigDefinition {
    /// A read-only, honoured configuration, any value of the type allowed.
    pub const fn new(
        name: &'static str,
        config_type: ConfigType,
        default: Option<&'static str>,
        documentation: &'static str,
    ) -> Self {
        ConfigDefinition {
            name,
            config_type,
            default,
            allowed: Allowed::Any,
            unit: Unit::None,
            change: Change::ReadOnly,
            support: Support::Honoured,
            synonym: None,
            is_internal: false,
            documentation,
        }
    }

    /// Restricts the values.
    pub const fn allow(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// Says what the number counts.
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// May change at run time.
    pub const fn dynamic(mut self) -> Self {
        self.change = Change::ClusterWide;
        self
    }

    /// Belongs to `feature`, which is not there.
    pub const fn absent(mut self, feature: &'static str) -> Self {
        self.support = Support::DefaultOnly(feature);
        self
    }

    /// Follows this broker configuration where the topic sets nothing.
    pub const fn synonym(mut self, name: &'static str) -> Self {
        self.synonym = Some(name);
        self
    }

    /// Hidden from DescribeConfigs and the documentation.
    pub const fn internal(mut self) -> Self {
        self.is_internal = true;
        self
    }
}
