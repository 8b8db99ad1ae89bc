//! From the settings about listeners to the listeners: which belong to clients, which to the controller, what is
//! advertised, and that none asks for security that is not there.

use super::broker_config::Given;
use super::error::ConfigError;
use super::listener::{Listener, NamedEndpoint};
use super::value::split_list;

/// All listeners of this node.
#[derive(Debug)]
pub(super) struct Listeners {
    /// For clients: at least one.
    pub(super) client: Vec<Listener>,
    /// Named by `controller.listener.names`.
    pub(super) controller: Vec<NamedEndpoint>,
    /// What `advertised.listeners` says for those.
    advertised_controller: Vec<NamedEndpoint>,
    /// One of the client listeners.
    pub(super) inter_broker_listener_name: String,
}

const LISTENERS: &str = "listeners";
const ADVERTISED: &str = "advertised.listeners";
const CONTROLLER_NAMES: &str = "controller.listener.names";
const INTER_BROKER: &str = "inter.broker.listener.name";
const INTER_BROKER_PROTOCOL: &str = "security.inter.broker.protocol";
const PROTOCOL_MAP: &str = "listener.security.protocol.map";
const PLAINTEXT: &str = "PLAINTEXT";

impl Listeners {
    /// # Errors
    /// What is no address, doubled names or ports, names that do not fit together, or another protocol than
    /// PLAINTEXT on a client listener.
    pub(super) fn from_settings(given: &Given<'_>) -> Result<Listeners, ConfigError> {
        let all = endpoints(given, LISTENERS)?;
        check_names(given, &all)?;
        let controller_names: Vec<String> = list(given, CONTROLLER_NAMES)
            .into_iter()
            .map(|name| name.to_ascii_uppercase())
            .collect();
        let is_controller = |endpoint: &NamedEndpoint| controller_names.contains(&endpoint.name);
        let advertised = endpoints(given, ADVERTISED)?;
        check_advertised(given, &advertised, &all, &controller_names)?;

        let (controller, client): (Vec<_>, Vec<_>) = all.into_iter().partition(is_controller);
        if client.is_empty() {
            return Err(conflict(given, LISTENERS, "none of them is for clients".to_owned()));
        }
        check_ports(given, &client)?;
        check_protocols(given, &client)?;
        if given.text(INTER_BROKER_PROTOCOL).as_deref() != Some(PLAINTEXT) {
            return Err(ConfigError::Unsupported {
                key: INTER_BROKER_PROTOCOL.to_owned(),
                value: given.text(INTER_BROKER_PROTOCOL).unwrap_or_default(),
                feature: "TLS or SASL between brokers".to_owned(),
                remedy: "only PLAINTEXT is accepted".to_owned(),
            });
        }
        let client: Vec<Listener> = client
            .into_iter()
            .map(|NamedEndpoint { name, endpoint }| Listener {
                advertised: advertised
                    .iter()
                    .find(|told| told.name == name)
                    .map(|told| told.endpoint.clone()),
                name,
                bind: endpoint,
            })
            .collect();
        Ok(Listeners {
            inter_broker_listener_name: inter_broker_listener_name(given, &client)?,
            client,
            controller,
            advertised_controller: advertised.into_iter().filter(is_controller).collect(),
        })
    }

    /// Every address under which our controller may be named.
    pub(super) fn controller_endpoints(&self) -> Vec<NamedEndpoint> {
        self.controller.iter().chain(&self.advertised_controller).cloned().collect()
    }

    /// Names of this machine: its host name and what is advertised to clients.
    pub(super) fn own_hosts(&self) -> Vec<String> {
        let advertised = self
            .client
            .iter()
            .filter_map(|listener| Some(listener.advertised.as_ref()?.host.clone()));
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        advertised.chain([host_name]).filter(|host| !host.is_empty()).collect()
    }
}

fn conflict(given: &Given<'_>, key: &'static str, reason: String) -> ConfigError {
    ConfigError::Conflict { key, value: given.text(key).unwrap_or_default(), reason }
}

fn list(given: &Given<'_>, key: &str) -> Vec<String> {
    split_list(&given.text(key).unwrap_or_default())
}

fn endpoints(given: &Given<'_>, key: &'static str) -> Result<Vec<NamedEndpoint>, ConfigError> {
    list(given, key)
        .iter()
        .map(|text| NamedEndpoint::parse(text).map_err(|reason| conflict(given, key, reason)))
        .collect()
}

fn check_names(given: &Given<'_>, all: &[NamedEndpoint]) -> Result<(), ConfigError> {
    for (index, one) in all.iter().enumerate() {
        if all[..index].iter().any(|other| other.name == one.name) {
            let reason = format!("{} stands there twice; names must differ", one.name);
            return Err(conflict(given, LISTENERS, reason));
        }
    }
    Ok(())
}

/// Of those that are opened.
fn check_ports(given: &Given<'_>, client: &[NamedEndpoint]) -> Result<(), ConfigError> {
    for (index, one) in client.iter().enumerate() {
        for other in &client[..index] {
            let (one_address, other_address) = (&one.endpoint, &other.endpoint);
            let is_same_host = one_address.host.eq_ignore_ascii_case(&other_address.host)
                || one_address.is_wildcard()
                || other_address.is_wildcard();
            if one_address.port == other_address.port && one_address.port != 0 && is_same_host {
                let reason = format!("{} and {} share a port", other.name, one.name);
                return Err(conflict(given, LISTENERS, reason));
            }
        }
    }
    Ok(())
}

fn check_advertised(
    given: &Given<'_>,
    advertised: &[NamedEndpoint],
    all: &[NamedEndpoint],
    controller_names: &[String],
) -> Result<(), ConfigError> {
    for (index, told) in advertised.iter().enumerate() {
        if !told.endpoint.host.is_empty() && told.endpoint.is_wildcard() {
            let reason = format!(
                "no client can connect to {}; give the address by which clients reach this broker",
                told.endpoint
            );
            return Err(conflict(given, ADVERTISED, reason));
        }
        let is_listened_on = all.iter().any(|listener| listener.name == told.name)
            || controller_names.contains(&told.name);
        if !is_listened_on {
            let names: Vec<&str> = all.iter().map(|listener| listener.name.as_str()).collect();
            let reason = format!("{} is not among the listeners ({})", told.name, names.join(", "));
            return Err(conflict(given, ADVERTISED, reason));
        }
        if advertised[..index].iter().any(|other| other.name == told.name) {
            let reason = format!("{} stands there twice; names must differ", told.name);
            return Err(conflict(given, ADVERTISED, reason));
        }
    }
    Ok(())
}

/// Clients get PLAINTEXT only. A controller listener is not opened, so its protocol does not matter.
fn check_protocols(given: &Given<'_>, client: &[NamedEndpoint]) -> Result<(), ConfigError> {
    const PROTOCOLS: &[&str] = &[PLAINTEXT, "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
    let mut map = Vec::new();
    for entry in list(given, PROTOCOL_MAP) {
        let (name, protocol) = entry.split_once(':').ok_or_else(|| {
            conflict(given, PROTOCOL_MAP, format!("{entry:?} is not NAME:PROTOCOL"))
        })?;
        let (name, protocol) = (name.trim().to_ascii_uppercase(), protocol.trim());
        if !PROTOCOLS.contains(&protocol) {
            let reason = format!("{protocol:?} is none of {}", PROTOCOLS.join(", "));
            return Err(conflict(given, PROTOCOL_MAP, reason));
        }
        map.push((name, protocol.to_owned()));
    }
    for listener in client {
        let Some((_, protocol)) = map.iter().find(|(name, _)| *name == listener.name) else {
            let reason = format!("it has no entry for the listener {}", listener.name);
            return Err(conflict(given, PROTOCOL_MAP, reason));
        };
        if protocol != PLAINTEXT {
            return Err(ConfigError::Unsupported {
                key: LISTENERS.to_owned(),
                value: given.text(LISTENERS).unwrap_or_default(),
                feature: format!("{protocol} (of the listener {})", listener.name),
                remedy: "only PLAINTEXT is accepted".to_owned(),
            });
        }
    }
    Ok(())
}

fn inter_broker_listener_name(
    given: &Given<'_>,
    client: &[Listener],
) -> Result<String, ConfigError> {
    match given.text(INTER_BROKER) {
        Some(name) => {
            let name = name.to_ascii_uppercase();
            if client.iter().any(|listener| listener.name == name) {
                Ok(name)
            } else {
                Err(conflict(given, INTER_BROKER, "it is not among the listeners".to_owned()))
            }
        }
        // By security.inter.broker.protocol, which is PLAINTEXT as all listeners are.
        None => Ok(client[0].name.clone()),
    }
}
