//! Addresses: what we listen on and what clients are told.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without the brackets of IPv6; empty where a listener means all interfaces.
    pub host: String,
    /// The port; 0 stands for a free one.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// Reads `host:port`, `[v6]:port` or `:port`.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence's end.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let form = || format!("{text:?} is not HOST:PORT (or [IPv6]:PORT)");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once("]:").ok_or_else(form)?;
                host.parse::<Ipv6Addr>().map_err(|_| form())?;
                (host, port)
            }
            None => text.rsplit_once(':').ok_or_else(form)?,
        };
        let is_host = |host: &str| {
            host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:%".contains(&b))
                && (text.starts_with('[') || !host.contains(':'))
        };
        if !is_host(host) {
            return Err(form());
        }
        let port = port.parse().map_err(|_| format!("{port:?} is not a port, 0 to 65535"))?;
        Ok(Endpoint { host: host.to_owned(), port })
    }

    /// Whether this stands for every interface of the machine.
    pub fn is_wildcard(&self) -> bool {
        self.host.is_empty()
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }

    /// Whether this names the machine itself by its loopback.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// A named address, `NAME://host:port`, as in `listeners` and `advertised.listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// The listener's name, in capitals.
    pub name: String,
    /// Its address.
    pub endpoint: Endpoint,
}

impl NamedEndpoint {
    /// Reads `NAME://host:port`. Names are put in capitals, as Kafka does.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence's end.
    pub fn parse(text: &str) -> Result<NamedEndpoint, String> {
        let text = text.trim();
        let (name, address) =
            text.split_once("://").ok_or_else(|| format!("{text:?} is not NAME://HOST:PORT"))?;
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            return Err(format!("{name:?} is not a listener's name (letters, digits, '-', '_')"));
        }
        Ok(NamedEndpoint { name: name.to_ascii_uppercase(), endpoint: Endpoint::parse(address)? })
    }
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in capitals: `PLAINTEXT`, `HOST`, …
    pub name: String,
    /// Where to listen. An empty host is all interfaces; port 0 a free port.
    pub bind: Endpoint,
    /// What `advertised.listeners` says for this name. Its port 0 stands for the port that was bound, its empty
    /// host for the host that would be told if nothing were said.
    pub advertised: Option<Endpoint>,
}

impl Listener {
    /// The address to tell a client that reached this listener: the one that was configured to be told; else
    /// the one we listen on; else, where that is every interface, the one the client dialled.
    ///
    /// `bound_port` is the listener's real port, `dialled` the local address of the client's connection.
    pub fn advertise(&self, bound_port: u16, dialled: IpAddr) -> Endpoint {
        let told = self.advertised.as_ref();
        let host = match told.map(|told| told.host.as_str()) {
            Some(host) if !host.is_empty() => host.to_owned(),
            _ if self.bind.is_wildcard() => canonical(dialled).to_string(),
            _ => self.bind.host.clone(),
        };
        let port = told.map(|told| told.port).filter(|port| *port != 0).unwrap_or(bound_port);
        Endpoint { host, port }
    }

    /// The address to show a person and to register in the metadata, where nobody has dialled: like
    /// [`Self::advertise`], every interface being shown as this machine's loopback.
    pub fn advertise_here(&self, bound_port: u16) -> Endpoint {
        self.advertise(bound_port, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// A dual-stack socket shows IPv4 clients as `::ffff:a.b.c.d`, which not every client can dial.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(bind: &str, advertised: Option<&str>) -> Listener {
        let parse = |text: &str| Endpoint::parse(text).unwrap();
        Listener {
            name: "PLAINTEXT".to_owned(),
            bind: parse(bind),
            advertised: advertised.map(parse),
        }
    }

    const DIALLED: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));

    #[test]
    fn a_client_is_told_the_advertised_address_before_all_else() {
        let told = listener("0.0.0.0:9092", Some("kafka.example:19092")).advertise(9092, DIALLED);
        assert_eq!(told.to_string(), "kafka.example:19092");
    }

    #[test]
    fn a_client_of_every_interface_is_told_the_address_it_dialled() {
        for bind in ["0.0.0.0:0", ":0", "[::]:0"] {
            let told = listener(bind, None).advertise(4711, DIALLED);
            assert_eq!(told.to_string(), "172.17.0.2:4711", "{bind}");
        }
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_listener_is_told_an_ipv4_address() {
        let dialled = IpAddr::V6(Ipv4Addr::new(172, 17, 0, 2).to_ipv6_mapped());
        assert_eq!(listener("[::]:0", None).advertise(1, dialled).host, "172.17.0.2");
    }

    #[test]
    fn a_listener_on_one_address_advertises_it_with_the_port_that_was_bound() {
        assert_eq!(
            listener("localhost:0", None).advertise(4711, DIALLED).to_string(),
            "localhost:4711"
        );
        let told = listener("127.0.0.1:0", Some("broker:0")).advertise(4711, DIALLED);
        assert_eq!(told.to_string(), "broker:4711");
    }

    #[test]
    fn addresses_are_read_with_names_in_capitals_and_v6_in_brackets() {
        let read = NamedEndpoint::parse(" plaintext://[::1]:9092 ").unwrap();
        assert_eq!(read.name, "PLAINTEXT");
        assert_eq!(read.endpoint, Endpoint { host: "::1".to_owned(), port: 9092 });
        assert_eq!(read.endpoint.to_string(), "[::1]:9092");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["localhost", "localhost:", ":x", "h:70000", "::1:9092", "a b:1", "[x]:1", "h/p:1"]
        {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
        for text in ["localhost:9092", "://h:1", "A B://h:1", "PLAINTEXT://"] {
            assert!(NamedEndpoint::parse(text).is_err(), "{text}");
        }
    }
}
