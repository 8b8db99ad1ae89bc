//! Who is in the metadata quorum. Only a quorum of this node alone is there yet, and it counts as none: its
//! controller listener is not opened. Everything else is refused by name.

use replication::identity::BrokerId;

use super::error::ConfigError;
use super::listener::{Endpoint, NamedEndpoint};
use super::value::split_list;

/// What the settings say about the quorum.
pub(super) struct QuorumSettings<'a> {
    pub(super) node_id: BrokerId,
    /// `process.roles`, split.
    pub(super) process_roles: Vec<String>,
    /// `controller.quorum.voters`, `id@host:port,…`.
    pub(super) voters: &'a str,
    /// `controller.quorum.bootstrap.servers`, `host:port,…`.
    pub(super) bootstrap_servers: &'a str,
    /// The listeners named by `controller.listener.names`, and what is advertised for them.
    pub(super) controller_endpoints: Vec<NamedEndpoint>,
    /// Other names of this machine: its host name, what the client listeners advertise.
    pub(super) own_hosts: Vec<String>,
}

const ONE_NODE: &str = "a cluster of several nodes";

impl QuorumSettings<'_> {
    /// Checks that the quorum is this node alone.
    ///
    /// # Errors
    /// Another role than both, another node in the quorum, or what is no list of nodes.
    pub(super) fn check_alone(&self) -> Result<(), ConfigError> {
        for role in ["broker", "controller"] {
            if !self.process_roles.iter().any(|given| given == role) {
                return Err(unsupported(
                    "process.roles",
                    &self.process_roles.join(","),
                    "only broker,controller is accepted",
                ));
            }
        }
        for voter in split_list(self.voters) {
            let (id, _) = parse_voter(&voter).map_err(|reason| ConfigError::Conflict {
                key: "controller.quorum.voters",
                value: self.voters.to_owned(),
                reason,
            })?;
            if id != self.node_id.value() {
                return Err(unsupported(
                    "controller.quorum.voters",
                    self.voters,
                    &format!("{voter} is another node than this one ({})", self.node_id),
                ));
            }
        }
        for server in split_list(self.bootstrap_servers) {
            let endpoint = Endpoint::parse(&server).map_err(|reason| ConfigError::Conflict {
                key: "controller.quorum.bootstrap.servers",
                value: self.bootstrap_servers.to_owned(),
                reason,
            })?;
            if !self.is_own(&endpoint) {
                return Err(unsupported(
                    "controller.quorum.bootstrap.servers",
                    self.bootstrap_servers,
                    &format!("{server} is not this node's controller listener"),
                ));
            }
        }
        Ok(())
    }

    /// Whether an address is one of our controller listeners. Without any, only a loopback address is.
    fn is_own(&self, endpoint: &Endpoint) -> bool {
        if self.controller_endpoints.is_empty() {
            return endpoint.is_loopback();
        }
        let is_own_host =
            |host: &str| self.own_hosts.iter().any(|own| own.eq_ignore_ascii_case(host));
        self.controller_endpoints.iter().map(|own| &own.endpoint).any(|own| {
            own.port == endpoint.port
                && (own.host.eq_ignore_ascii_case(&endpoint.host)
                    || ((own.is_wildcard() || own.is_loopback()) && endpoint.is_loopback())
                    || (own.is_wildcard() && is_own_host(&endpoint.host)))
        })
    }
}

fn unsupported(key: &str, value: &str, remedy: &str) -> ConfigError {
    ConfigError::Unsupported {
        key: key.to_owned(),
        value: value.to_owned(),
        feature: ONE_NODE.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn parse_voter(text: &str) -> Result<(i32, Endpoint), String> {
    let form = || format!("{text:?} is not ID@HOST:PORT");
    let (id, address) = text.split_once('@').ok_or_else(form)?;
    let id = id.parse::<i32>().ok().filter(|id| *id >= 0).ok_or_else(form)?;
    Ok((id, Endpoint::parse(address)?))
}
