//! What the three requests about configurations share: the types of resources, and the checks that Kafka's broker
//! makes on a change before the controller sees it (`ConfigAdminManager.preprocess`).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use replication::controller::{AlteredResource, ConfigTarget, check_topic_name};
use replication::identity::BrokerId;

use crate::api::error_code::ToErrorCode;
use crate::quorum::SubmitError;

/// `ConfigResource.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl ConfigResourceType {
    pub(crate) fn from_id(id: i8) -> Option<ConfigResourceType> {
        match id {
            2 => Some(ConfigResourceType::Topic),
            4 => Some(ConfigResourceType::Broker),
            8 => Some(ConfigResourceType::BrokerLogger),
            16 => Some(ConfigResourceType::ClientMetrics),
            32 => Some(ConfigResourceType::Group),
            _ => None,
        }
    }
}

/// An error for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ResponseError,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn invalid_request(message: impl Into<String>) -> Refusal {
        Refusal { code: ResponseError::InvalidRequest, message: message.into() }
    }

    fn invalid_config(message: impl Into<String>) -> Refusal {
        Refusal { code: ResponseError::InvalidConfig, message: message.into() }
    }
}

/// One change in a request: the same questions to both kinds.
pub(crate) trait AskedChange {
    fn name(&self) -> &str;
    /// Whether it goes without a value where it needs one.
    fn lacks_value(&self) -> bool;
}

/// Which of the two requests is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alter {
    Replace,
    Incremental,
}

/// Resources that the request names more than once: by type and name.
pub(crate) fn named_twice<'a>(
    resources: impl Iterator<Item = (i8, &'a StrBytes)>,
) -> BTreeSet<(i8, StrBytes)> {
    let mut once = BTreeSet::new();
    resources
        .map(|(kind, name)| (kind, name.clone()))
        .filter(|resource| !once.insert(resource.clone()))
        .collect()
}

/// Whose configuration a resource's changes mean, if they may go to the controller. `None`: nothing to do.
///
/// # Errors
/// What the controller need not be asked about.
pub(crate) fn target<C: AskedChange>(
    alter: Alter,
    (kind, name): (i8, &StrBytes),
    changes: &[C],
    twice: &BTreeSet<(i8, StrBytes)>,
    own_id: BrokerId,
) -> Result<Option<ConfigTarget>, Refusal> {
    if twice.contains(&(kind, name.clone())) {
        return Err(Refusal::invalid_request("Each resource must appear at most once."));
    }
    let mut names = BTreeSet::new();
    if !changes.iter().all(|change| names.insert(change.name())) {
        return Err(Refusal::invalid_request("Error due to duplicate config keys"));
    }
    if let Some(change) = changes.iter().find(|change| change.lacks_value()) {
        let text = format!("Null value not supported for : {}", change.name());
        return Err(Refusal::invalid_request(text));
    }
    let is_default = name.is_empty();
    let first = changes.first().map(AskedChange::name);
    match ConfigResourceType::from_id(kind) {
        Some(ConfigResourceType::Topic) if is_default => {
            Err(Refusal::invalid_request("Default topic resources are not allowed."))
        }
        Some(ConfigResourceType::Topic) => match check_topic_name(name) {
            Ok(()) => Ok(Some(ConfigTarget::Topic(Arc::from(&**name)))),
            Err(error) => Err(Refusal {
                code: ResponseError::InvalidTopicException,
                message: error.to_string(),
            }),
        },
        Some(ConfigResourceType::Broker) if is_default => Ok(Some(ConfigTarget::Cluster)),
        Some(ConfigResourceType::Broker) => match name.parse::<i32>() {
            Ok(id) if id == own_id.value() => Ok(Some(ConfigTarget::Broker(own_id))),
            Ok(id) => Err(Refusal::invalid_request(format!(
                "Unexpected broker id, expected {own_id}, but received {id}"
            ))),
            Err(_) => Err(Refusal::invalid_request(format!(
                "Node id must be an integer, but it is: {name}"
            ))),
        },
        // There are no loggers by Kafka's names, and no groups or client metrics yet: no name of theirs is known.
        Some(ConfigResourceType::BrokerLogger) if alter == Alter::Incremental => match first {
            None => Ok(None),
            Some(logger) => {
                Err(Refusal::invalid_config(format!("Logger {logger} does not exist!")))
            }
        },
        Some(ConfigResourceType::Group) if is_default => {
            Err(Refusal::invalid_request("Default group resources are not allowed."))
        }
        Some(ConfigResourceType::Group) => match first {
            None => Ok(None),
            Some(key) => Err(Refusal::invalid_config(format!("Unknown group config name: {key}"))),
        },
        Some(ConfigResourceType::ClientMetrics) => match first {
            None => Ok(None),
            Some(key) => Err(Refusal::invalid_request(format!(
                "Unknown client metrics configuration: {key}"
            ))),
        },
        Some(ConfigResourceType::BrokerLogger) | None => {
            Err(Refusal::invalid_request(format!("Unknown resource type {kind}")))
        }
    }
}

/// One resource after its checks: what to ask the controller, or nothing.
pub(crate) type Checked<C> = Result<Option<(ConfigTarget, Vec<C>)>, Refusal>;

/// Asks the controller about all that passed the checks, in one request, and gives every resource its result.
pub(crate) async fn alter<C, F>(
    checked: Vec<Checked<C>>,
    submit: impl FnOnce(Vec<(ConfigTarget, Vec<C>)>) -> F,
) -> Vec<Result<(), Refusal>>
where
    F: Future<Output = Result<Vec<AlteredResource>, SubmitError<Infallible>>>,
{
    let mut wanted = Vec::new();
    let outcomes: Vec<Result<Option<ConfigTarget>, Refusal>> = checked
        .into_iter()
        .map(|checked| {
            let target = checked?.map(|(target, changes)| {
                wanted.push((target.clone(), changes));
                target
            });
            Ok(target)
        })
        .collect();
    let altered = match wanted.is_empty() {
        true => Ok(BTreeMap::new()),
        false => {
            submit(wanted).await.map(|altered| altered.into_iter().collect::<BTreeMap<_, _>>())
        }
    };
    let result = |target: &ConfigTarget| match &altered {
        Ok(altered) => match altered.get(target) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                Err(Refusal { code: error.to_error_code(), message: error.to_string() })
            }
            None => unreachable!("the controller answers for every resource: {target:?}"),
        },
        Err(SubmitError::Unavailable(error)) => {
            Err(Refusal { code: error.to_error_code(), message: error.to_string() })
        }
        Err(SubmitError::Refused(never)) => match *never {},
    };
    outcomes.into_iter().map(|outcome| outcome?.as_ref().map_or(Ok(()), result)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Change(&'static str, bool);

    impl AskedChange for Change {
        fn name(&self) -> &str {
            self.0
        }

        fn lacks_value(&self) -> bool {
            !self.1
        }
    }

    fn of(
        alter: Alter,
        kind: i8,
        name: &'static str,
        changes: &[Change],
    ) -> Result<Option<ConfigTarget>, i16> {
        let own_id = BrokerId::new(1).unwrap();
        let name = StrBytes::from_static_str(name);
        target(alter, (kind, &name), changes, &BTreeSet::new(), own_id)
            .map_err(|refusal| refusal.code.code())
    }

    #[test]
    fn topics_this_broker_and_all_brokers_go_to_the_controller() {
        let change = [Change("x", true)];
        let of = |kind, name| of(Alter::Replace, kind, name, &change);
        assert_eq!(of(2, "t"), Ok(Some(ConfigTarget::Topic("t".into()))));
        assert_eq!(of(4, "1"), Ok(Some(ConfigTarget::Broker(BrokerId::new(1).unwrap()))));
        assert_eq!(of(4, ""), Ok(Some(ConfigTarget::Cluster)));
    }

    /// As Kafka 4.1 answered.
    #[test]
    fn what_the_controller_need_not_see_is_refused_with_kafkas_codes() {
        let change = || [Change("x", true)];
        for (kind, name, incremental, replace) in [
            (2, "", 42, 42),
            (2, "bad/x", 17, 17),
            (4, "2", 42, 42),
            (4, "x", 42, 42),
            (8, "1", 40, 42),
            (16, "g", 42, 42),
            (32, "g", 40, 40),
            (32, "", 42, 42),
            (0, "t", 42, 42),
            (99, "t", 42, 42),
        ] {
            assert_eq!(
                of(Alter::Incremental, kind, name, &change()),
                Err(incremental),
                "{kind} {name}"
            );
            assert_eq!(of(Alter::Replace, kind, name, &change()), Err(replace), "{kind} {name}");
        }
    }

    #[test]
    fn doubled_keys_and_missing_values_are_said_before_the_resource_is_looked_at() {
        for changes in [&[Change("a", true), Change("a", true)][..], &[Change("a", false)]] {
            assert_eq!(of(Alter::Incremental, 2, "nosuch", changes), Err(42));
        }
    }

    #[test]
    fn a_resource_named_twice_is_refused_both_times() {
        let (t, u) = (StrBytes::from_static_str("t"), StrBytes::from_static_str("u"));
        let twice = named_twice([(2, &t), (2, &u), (4, &t), (2, &t), (2, &t)].into_iter());
        assert_eq!(twice, BTreeSet::from([(2, t)]));
    }
}
