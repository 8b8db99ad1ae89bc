//! From flags, environment and file to a [`BrokerConfig`], with what there is to say about it.

use std::collections::BTreeMap;
use std::fmt;

use super::absent::{self, ABSENT, Absent, REFUSED};
use super::broker_config::BrokerConfig;
use super::environment;
use super::error::{ConfigError, Origin};
use super::flags::{self, ServeFlags};
use super::properties;
use super::table::ConfigTable;
use super::topic_config::absent_feature;
use super::value::split_list;

/// A configuration and what to say about it once logging is up.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: BrokerConfig,
    /// To be logged, each as a warning.
    pub warnings: Vec<ConfigWarning>,
}

/// What was given and does not do what its giver may think.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigWarning {
    /// Nobody knows this name.
    UnknownName {
        /// The name.
        name: String,
        /// Where it was given.
        origin: Origin,
        /// A known name that looks like it.
        nearest: Option<&'static str>,
    },
    /// Kafka follows these and we do not (yet).
    NoEffect {
        /// Each name, with the feature it belongs to.
        names: Vec<(String, &'static str)>,
    },
    /// Addresses given for a listener that `--listen` replaced.
    ReplacedByListen {
        /// The names of the settings that are left out of account.
        names: Vec<String>,
    },
    /// The metadata quorum is this node alone, so nobody else needs to reach its controller.
    ControllerListenerNotOpened {
        /// The listener as given, `NAME://host:port`.
        listener: String,
    },
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigWarning::UnknownName { name, origin, nearest } => {
                write!(f, "unknown setting {name} ({origin}) is ignored")?;
                nearest.map_or(Ok(()), |nearest| write!(f, "; did you mean {nearest}?"))
            }
            ConfigWarning::NoEffect { names } => {
                let names: Vec<String> =
                    names.iter().map(|(name, feature)| format!("{name} ({feature})")).collect();
                write!(f, "settings of Kafka that have no effect here: {}", names.join(", "))
            }
            ConfigWarning::ReplacedByListen { names } => {
                write!(f, "--listen says where to listen, so {} is ignored", names.join(" and "))
            }
            ConfigWarning::ControllerListenerNotOpened { listener } => {
                write!(f, "the metadata quorum is this node alone: {listener} is not opened")
            }
        }
    }
}

/// Settings by name, each with where it was given; a later layer replaces an earlier one.
pub(super) type Settings = BTreeMap<String, (String, Origin)>;

/// Reads the flags, then the environment and the configuration file, and checks all of it.
///
/// # Errors
/// A file that cannot be read, or a setting that makes no sense or asks for what is not there.
pub fn load(
    flags: &ServeFlags,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<LoadedConfig, ConfigError> {
    let mut settings = Settings::new();
    if let Some(path) = &flags.config {
        for (name, value) in properties::read(path)? {
            settings.insert(name, (value, Origin::File(path.clone())));
        }
    }
    for (variable, value) in environment {
        if let Some(name) = environment::config_name(&variable) {
            settings.insert(name, (value, Origin::Environment(variable)));
        }
    }
    let mut warnings = Vec::new();
    apply_flags(flags, &mut settings, &mut warnings)?;
    check_each(&settings, &mut warnings)?;
    let config = BrokerConfig::build(&settings, flags, &mut warnings)?;
    Ok(LoadedConfig { config, warnings })
}

fn apply_flags(
    flags: &ServeFlags,
    settings: &mut Settings,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<(), ConfigError> {
    if !flags.listen.is_empty() {
        // Addresses from below name the listeners that are replaced here; the controller's own stay.
        let mut replaced = Vec::new();
        let controllers = controller_entries(settings, "advertised.listeners");
        for name in ["advertised.listeners", "inter.broker.listener.name"] {
            if let Some((_, origin)) = settings.remove(name) {
                replaced.push(name.to_owned());
                if name == "advertised.listeners" && !controllers.is_empty() {
                    settings.insert(name.to_owned(), (controllers.join(","), origin));
                }
            }
        }
        if !replaced.is_empty() {
            warnings.push(ConfigWarning::ReplacedByListen { names: replaced });
        }
    }
    for text in &flags.set {
        let (name, value) = flags::parse_set(text)?;
        settings.insert(name, (value, Origin::Flag("--set")));
    }
    let mut set = |name: &str, value: String, flag| {
        settings.insert(name.to_owned(), (value, Origin::Flag(flag)));
    };
    if let Some(directory) = &flags.data_dir {
        set("log.dirs", directory.display().to_string(), "--data-dir");
    }
    if let Some(node_id) = flags.node_id {
        set("node.id", node_id.to_string(), "--node-id");
        settings.remove("broker.id");
    }
    if !flags.listen.is_empty() {
        apply_listen(&flags.listen, settings);
    }
    Ok(())
}

/// `--listen` is `listeners`; addresses without a name are PLAINTEXT, PLAINTEXT_2, …
fn apply_listen(listen: &[String], settings: &mut Settings) {
    const MAP: &str = "listener.security.protocol.map";
    let mut listeners = Vec::new();
    let mut added = String::new();
    for (index, text) in listen.iter().enumerate() {
        if text.contains("://") {
            listeners.push(text.clone());
            continue;
        }
        let name = match index {
            0 => "PLAINTEXT".to_owned(),
            _ => format!("PLAINTEXT_{}", index + 1),
        };
        if index > 0 {
            added.push_str(&format!(",{name}:PLAINTEXT"));
        }
        listeners.push(format!("{name}://{text}"));
    }
    // --listen says where clients connect; the controller's own listeners stay what they are.
    listeners.extend(controller_entries(settings, "listeners"));
    let flag = Origin::Flag("--listen");
    settings.insert("listeners".to_owned(), (listeners.join(","), flag.clone()));
    if !added.is_empty() {
        let map = match settings.get(MAP) {
            Some((map, _)) => map.clone(),
            None => ConfigTable::BROKER.known(MAP).default.unwrap_or_default().to_owned(),
        };
        settings.insert(MAP.to_owned(), (map + &added, flag));
    }
}

/// The entries of a list of named addresses that `controller.listener.names` names.
fn controller_entries(settings: &Settings, key: &str) -> Vec<String> {
    let given =
        |name: &str| settings.get(name).map_or_else(Vec::new, |(value, _)| split_list(value));
    let names = given("controller.listener.names");
    let is_controller = |listener: &String| {
        let name = listener.split("://").next().unwrap_or_default();
        names.iter().any(|controller| controller.eq_ignore_ascii_case(name))
    };
    given(key).into_iter().filter(is_controller).collect()
}

/// Checks every setting by itself, and sorts out the names that are not followed.
fn check_each(settings: &Settings, warnings: &mut Vec<ConfigWarning>) -> Result<(), ConfigError> {
    let mut no_effect = Vec::new();
    for (name, (value, origin)) in settings {
        if let Some(definition) = ConfigTable::BROKER.get(name) {
            let parsed = definition
                .parse(value)
                .map_err(|invalid| ConfigError::InvalidValue { invalid, origin: origin.clone() })?;
            if let Some((feature, default)) = absent_feature(definition, &parsed) {
                return Err(unsupported(name, value, feature, default));
            }
            continue;
        }
        match absent::absent(name) {
            Some(Absent::Refused(refused)) if value.trim() != refused.accepted => {
                return Err(unsupported(name, value, refused.feature, refused.accepted));
            }
            Some(Absent::Refused(_)) => {}
            Some(Absent::NoEffect(feature)) => no_effect.push((name.clone(), feature)),
            None => warnings.push(ConfigWarning::UnknownName {
                name: name.clone(),
                origin: origin.clone(),
                nearest: nearest(name),
            }),
        }
    }
    if !no_effect.is_empty() {
        warnings.push(ConfigWarning::NoEffect { names: no_effect });
    }
    Ok(())
}

fn unsupported(name: &str, value: &str, feature: &str, accepted: &str) -> ConfigError {
    let remedy = match accepted {
        "" => "leave it out".to_owned(),
        accepted => format!("only {accepted} is accepted"),
    };
    ConfigError::Unsupported {
        key: name.to_owned(),
        value: value.to_owned(),
        feature: feature.to_owned(),
        remedy,
    }
}

/// A known name that differs from this one by little; what is followed before what is not.
fn nearest(name: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.8;
    let followed = ConfigTable::BROKER.iter().map(|definition| definition.name);
    // A topic's name for it is a common slip: retention.ms for log.retention.ms.
    if let Some(definition) = ConfigTable::TOPIC.get(name) {
        return definition.synonym;
    }
    let refused = REFUSED.iter().map(|refused| refused.name);
    let absent = ABSENT.iter().flat_map(|feature| feature.configs.iter().copied());
    followed
        .chain(refused)
        .chain(absent)
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::PathBuf;

    use super::*;

    /// What Kafka 4.1 ships as config/server.properties, comments left out.
    const STOCK: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

    fn flags_of(set: &[&str]) -> ServeFlags {
        ServeFlags {
            set: set.iter().map(|text| (*text).to_owned()).collect(),
            ..ServeFlags::default()
        }
    }

    fn with_file(text: &str, mut flags: ServeFlags) -> Result<LoadedConfig, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        flags.config = Some(file.path().to_owned());
        load(&flags, [])
    }

    fn with_set(set: &[&str]) -> Result<LoadedConfig, ConfigError> {
        load(&flags_of(set), [])
    }

    fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refusal(set: &[&str]) -> String {
        with_set(set).expect_err("this must not start").to_string()
    }

    #[test]
    fn without_a_word_it_is_one_broker_on_loopback() {
        let LoadedConfig { config, warnings } = load(&ServeFlags::default(), []).unwrap();
        assert_eq!(config.node_id.value(), 1);
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].name, "PLAINTEXT");
        assert_eq!(config.listeners[0].bind.to_string(), "127.0.0.1:9092");
        assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("highwater-data"));
        assert!(config.auto_create_topics_enable && !config.ephemeral);
        assert!(config.statics.is_empty() && warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn the_file_that_kafka_ships_starts_unchanged() {
        let LoadedConfig { config, warnings } = with_file(STOCK, ServeFlags::default()).unwrap();
        assert_eq!(config.node_id.value(), 1);
        assert_eq!(config.data_dir, PathBuf::from("/tmp/kraft-combined-logs"));
        assert_eq!(config.listeners.len(), 1);
        assert!(config.listeners[0].bind.is_wildcard());
        let told = config.listeners[0].advertise(9092, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(told.to_string(), "localhost:9092");
        let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("num.io.threads") && said[0].contains("offsets.topic"),
            "{said:?}"
        );
        assert!(said[1].contains("CONTROLLER://:9093 is not opened"), "{said:?}");
    }

    #[test]
    fn flags_win_over_the_environment_which_wins_over_the_file() {
        let file = "num.partitions=2\nlog.dirs=/file\nnode.id=7\nmessage.max.bytes=1000\n";
        let mut path = tempfile::NamedTempFile::new().unwrap();
        path.write_all(file.as_bytes()).unwrap();
        let flags = ServeFlags {
            config: Some(path.path().to_owned()),
            set: vec!["log.dirs=/set".to_owned(), "num.partitions=4".to_owned()],
            data_dir: Some("/flag".into()),
            ..ServeFlags::default()
        };
        let variables =
            [("KAFKA_NUM_PARTITIONS", "3"), ("KAFKA_NODE_ID", "8"), ("KAFKA_OPTS", "-x")];
        let LoadedConfig { config, warnings } = load(&flags, environment(&variables)).unwrap();
        assert_eq!((config.num_partitions, config.node_id.value()), (4, 8));
        assert_eq!(config.data_dir, PathBuf::from("/flag"));
        assert_eq!(config.statics["message.max.bytes"], "1000");
        assert_eq!(warnings, []);
    }

    #[test]
    fn listen_flags_name_their_listeners_and_drop_what_the_file_advertises() {
        let listen = vec!["127.0.0.1:0".to_owned(), "0.0.0.0:9095".to_owned()];
        let flags = ServeFlags { listen, ..ServeFlags::default() };
        let LoadedConfig { config, .. } = with_file(STOCK, flags).unwrap();
        let shown: Vec<String> =
            config.listeners.iter().map(|l| format!("{}://{}", l.name, l.bind)).collect();
        assert_eq!(shown, ["PLAINTEXT://127.0.0.1:0", "PLAINTEXT_2://0.0.0.0:9095"]);
        assert!(config.listeners.iter().all(|listener| listener.advertised.is_none()));
    }

    #[test]
    fn a_listen_flag_leaves_the_controllers_listener_as_it_is() {
        let file = STOCK.replace("localhost", "broker.example");
        let flags = ServeFlags { listen: vec!["0.0.0.0:9093".to_owned()], ..ServeFlags::default() };
        let warnings = with_file(&file, flags).unwrap().warnings;
        let said = warnings.iter().map(ToString::to_string).collect::<String>();
        assert!(said.contains("CONTROLLER://:9093 is not opened"), "{said}");
    }

    #[test]
    fn a_listen_flag_with_a_name_keeps_what_a_set_flag_advertises_for_it() {
        let flags = ServeFlags {
            listen: vec!["HOST://0.0.0.0:9092".to_owned(), "0.0.0.0:9095".to_owned()],
            ..flags_of(&[
                "advertised.listeners=HOST://kafka.example:1",
                "listener.security.protocol.map=HOST:PLAINTEXT",
            ])
        };
        let LoadedConfig { config, .. } = load(&flags, []).unwrap();
        let told = config.listeners[0].advertised.as_ref().map(ToString::to_string);
        assert_eq!(told.as_deref(), Some("kafka.example:1"));
        assert_eq!(config.listeners[1].name, "PLAINTEXT_2");
    }

    #[test]
    fn a_bad_value_names_the_key_the_value_and_what_is_allowed() {
        assert_eq!(
            refusal(&["log.segment.bytes=lots"]),
            "--set: Invalid value lots for configuration log.segment.bytes: Not a number of type INT"
        );
        let said = load(&ServeFlags::default(), environment(&[("KAFKA_NUM_PARTITIONS", "0")]));
        assert_eq!(
            said.unwrap_err().to_string(),
            "environment variable KAFKA_NUM_PARTITIONS: Invalid value 0 for configuration \
             num.partitions: Value must be at least 1"
        );
        assert!(refusal(&["segments"]).contains("KEY=VALUE"));
    }

    #[test]
    fn a_typing_error_is_warned_about_with_the_name_that_was_meant() {
        for (name, meant) in [
            ("log.segment.byte", Some("log.segment.bytes")),
            ("auto.create.topic.enable", Some("auto.create.topics.enable")),
            ("retention.ms", Some("log.retention.ms")),
            ("num.io.thread", Some("num.io.threads")),
            ("zookeeper.connect", None),
        ] {
            let warnings = with_set(&[&format!("{name}=1")]).unwrap().warnings;
            let [ConfigWarning::UnknownName { name: warned, nearest, .. }] = warnings.as_slice()
            else {
                panic!("{name}: {warnings:?}");
            };
            assert_eq!((warned.as_str(), *nearest), (name, meant));
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (set, named) in [
            (&["listeners=SASL_SSL://:9092"][..], "SASL_SSL"),
            (&["listeners=A://:1", "listener.security.protocol.map=A:SSL"], "SSL"),
            (&["controller.quorum.voters=1@a:9093,2@b:9093"], "2@b:9093"),
            (&["controller.quorum.bootstrap.servers=other:9093"], "other:9093"),
            (&["process.roles=broker"], "process.roles"),
            (&["process.roles=controller"], "process.roles"),
            (&["log.cleanup.policy=compact"], "compaction"),
            (&["authorizer.class.name=x.Authorizer"], "authorization"),
            (&["security.inter.broker.protocol=SSL"], "security.inter.broker.protocol"),
            (&["remote.log.storage.system.enable=true"], "tiered storage"),
            (&["log.dirs=/a,/b"], "one directory"),
        ] {
            let said = refusal(set);
            assert!(said.contains(named), "{set:?}: {said}");
        }
    }

    #[test]
    fn a_quorum_of_this_node_alone_counts_as_none() {
        let listeners = "listeners=PLAINTEXT://:9092,CONTROLLER://:9093";
        let names = "controller.listener.names=CONTROLLER";
        let map = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_SSL";
        for quorum in [
            "controller.quorum.voters=1@localhost:9093",
            "controller.quorum.voters=1@broker:29093",
            "controller.quorum.bootstrap.servers=127.0.0.1:9093",
            "controller.quorum.voters=",
        ] {
            let LoadedConfig { config, warnings } =
                with_set(&[listeners, names, map, quorum]).unwrap();
            assert_eq!(config.listeners.len(), 1, "{quorum}");
            assert!(matches!(
                warnings.as_slice(),
                [ConfigWarning::ControllerListenerNotOpened { .. }]
            ));
        }
    }

    #[test]
    fn addresses_that_do_not_fit_together_are_refused() {
        for (set, named) in [
            (&["listeners=A://:1,A://:2"][..], "twice"),
            (&["listeners=PLAINTEXT://:1,SSL://:1"], "share a port"),
            (&["listeners=EXTERNAL://:1"], "no entry for the listener EXTERNAL"),
            (&["advertised.listeners=PLAINTEXT://0.0.0.0:9092"], "0.0.0.0"),
            (&["advertised.listeners=EXTERNAL://h:1"], "not among the listeners"),
            (&["inter.broker.listener.name=EXTERNAL"], "not among the listeners"),
            (&["listeners=C://:1", "controller.listener.names=C"], "none of them is for clients"),
            (&["listeners=localhost:9092"], "NAME://HOST:PORT"),
            (&["listeners="], "none of them"),
            (&["node.id=1", "broker.id=2"], "node.id"),
            (&["controller.quorum.voters=localhost:9093"], "ID@HOST:PORT"),
        ] {
            let said = refusal(set);
            assert!(said.contains(named), "{set:?}: {said}");
        }
    }

    #[test]
    fn topics_are_named_with_or_without_a_number_of_partitions() {
        let topic = |text: &str| {
            load(&ServeFlags { topic: vec![text.to_owned()], ..ServeFlags::default() }, [])
                .map(|loaded| loaded.config.topics[0].partitions)
        };
        assert_eq!(topic("orders:3").unwrap(), Some(3));
        assert_eq!(topic("orders").unwrap(), None);
        for text in ["orders:0", "orders:x", ":3", ""] {
            assert!(topic(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_old_name_of_the_node_id_is_followed_and_both_are_shown() {
        let config = with_set(&["broker.id=5"]).unwrap().config;
        assert_eq!(config.node_id.value(), 5);
        assert_eq!(config.statics["node.id"], "5");
    }
}
