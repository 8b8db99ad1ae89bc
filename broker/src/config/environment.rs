//! Settings from the environment, by the rules of Kafka's own container image: `KAFKA_LOG_DIRS` is `log.dirs`;
//! `_` is a dot, `__` an underscore, `___` a dash (`kafka.docker.KafkaDockerWrapper`).

const PREFIX: &str = "KAFKA_";

/// Variables that steer Kafka's image or the JVM and are no settings of the broker.
const IMAGE_ONLY: &[&str] = &[
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_OPTS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_VERSION",
];

/// The configuration that an environment variable sets; `None` if it is none of ours.
pub(super) fn config_name(variable: &str) -> Option<String> {
    let name = variable.strip_prefix(PREFIX).filter(|name| !name.is_empty())?;
    if IMAGE_ONLY.contains(&variable) {
        return None;
    }
    // In Kafka's order: first each underscore becomes a dot, then runs of three and of two are put back.
    let dotted = name.to_ascii_lowercase().replace('_', ".");
    Some(dotted.replace("...", "-").replace("..", "_"))
}

#[cfg(test)]
mod tests {
    use super::config_name;

    #[test]
    fn one_underscore_is_a_dot_two_are_one_and_three_are_a_dash() {
        assert_eq!(config_name("KAFKA_LOG_DIRS").as_deref(), Some("log.dirs"));
        assert_eq!(config_name("KAFKA_A__B").as_deref(), Some("a_b"));
        assert_eq!(config_name("KAFKA_A___B_C").as_deref(), Some("a-b.c"));
    }

    #[test]
    fn what_steers_the_image_or_the_jvm_is_no_setting() {
        for variable in ["KAFKA_HEAP_OPTS", "KAFKA_OPTS", "CLUSTER_ID", "KAFKA_", "PATH"] {
            assert_eq!(config_name(variable), None, "{variable}");
        }
    }
}
