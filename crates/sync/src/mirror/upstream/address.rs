//! Which addresses an upstream may send us to.
//!
//! An upstream's redirects are hostile input: they must not make us ask the metadata service of a
//! cloud or a neighbour in our own network. Every address is checked before a connection is made
//! to it, the one that a name was resolved to and no other. Where a proxy is set, names are
//! resolved there, and only addresses given as such can be checked here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::error::Error;

/// Where nobody public is: loopback, private, link-local, shared, for documentation, for tests,
/// multicast, reserved.
const NOT_PUBLIC: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/128",
    "::1/128",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/9",
    "ff00::/8",
];

/// What an upstream may lead to.
#[derive(Debug)]
pub(super) struct Guard {
    endpoint: Url,
    plain_hosts: Vec<String>,
    networks: Vec<IpNet>,
    not_public: Vec<IpNet>,
}

impl Guard {
    /// A guard for an upstream; the operator lists hosts that may be asked without TLS, and
    /// networks (as CIDR) that are not public and may be led to all the same.
    pub(super) fn new(
        endpoint: Url,
        plain_hosts: &[String],
        networks: &[String],
    ) -> Result<Arc<Self>, Error> {
        let parse = |text: &String| {
            text.parse::<IpNet>()
                .map_err(|_| Error::settings(format!("`{text}` is not a network like 10.0.0.0/8")))
        };
        Ok(Arc::new(Self {
            endpoint,
            plain_hosts: plain_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            networks: networks.iter().map(parse).collect::<Result<_, _>>()?,
            not_public: NOT_PUBLIC.iter().filter_map(|text| text.parse().ok()).collect(),
        }))
    }

    /// Whether this is the upstream itself, which may see its token.
    pub(super) fn is_upstream(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Refuses an address to which an upstream must not lead.
    pub(super) async fn check(&self, url: &Url) -> Result<(), Error> {
        if self.is_upstream(url) {
            return Ok(());
        }
        let host = url.host_str().unwrap_or("").to_ascii_lowercase();
        let plain = self.endpoint.scheme() == "http" || self.plain_hosts.contains(&host);
        match url.scheme() {
            "https" => {}
            "http" if plain => {}
            scheme => {
                return Err(Error::lied(format!("it leads to `{host}` by `{scheme}`")));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::lied(format!("it leads to `{host}` with credentials")));
        }
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
            // Checked when it is resolved.
            Some(url::Host::Domain(_)) => return Ok(()),
            None => return Err(Error::lied("it leads to an address without a host")),
        };
        if self.may_reach(address) || self.own_addresses().await.contains(&address) {
            return Ok(());
        }
        Err(Error::lied(refusal(&host)))
    }

    /// Whether an address is public, or listed.
    fn may_reach(&self, address: IpAddr) -> bool {
        let within = |nets: &[IpNet], address| nets.iter().any(|net| net.contains(&address));
        if within(&self.networks, address) {
            return true;
        }
        let real = inner(address);
        within(&self.networks, real) || !within(&self.not_public, real)
    }

    /// Where the upstream itself is: whoever sends us back there leads to nothing new.
    async fn own_addresses(&self) -> Vec<IpAddr> {
        match self.endpoint.host() {
            Some(url::Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(url::Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            Some(url::Host::Domain(name)) => look_up(name).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// Addresses of a name that may be connected to.
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<SocketAddr>> {
        let found = look_up(name).await?;
        let is_own = self.endpoint.host_str().is_some_and(|own| own.eq_ignore_ascii_case(name));
        let mut open: Vec<IpAddr> =
            found.iter().copied().filter(|&address| is_own || self.may_reach(address)).collect();
        if open.is_empty() {
            let own = self.own_addresses().await;
            open.extend(found.into_iter().filter(|address| own.contains(address)));
        }
        if open.is_empty() {
            return Err(std::io::Error::other(refusal(name)));
        }
        Ok(open.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}

fn refusal(host: &str) -> String {
    format!(
        "it leads to `{host}`, which is not at a public address\n\
         hint: list its network in the upstream's `private_networks` if that is meant"
    )
}

async fn look_up(name: &str) -> std::io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, or by a translator.
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let parts = v6.segments();
    let v4 = |high: u16, low: u16| {
        let bits = u32::from(high) << 16 | u32::from(low);
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    };
    match parts {
        _ if v6 == Ipv6Addr::UNSPECIFIED || v6 == Ipv6Addr::LOCALHOST => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// A guard as the client's resolver.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<Guard>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses: Addrs = Box::new(guard.resolve(name.as_str()).await?.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(endpoint: &str, networks: &[&str]) -> Arc<Guard> {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let endpoint = endpoint.parse().expect("an address");
        Guard::new(endpoint, &["plain.example".to_owned()], &networks).expect("right")
    }

    async fn passes(guard: &Guard, url: &str) -> bool {
        guard.check(&url.parse().expect("an address")).await.is_ok()
    }

    #[tokio::test]
    async fn an_upstream_leads_to_public_addresses_only() {
        let guard = guard("https://hub.example", &[]);
        assert!(passes(&guard, "https://93.184.216.34/x").await);
        assert!(passes(&guard, "https://[2606:2800:220:1::1]/x").await);
        for wrong in [
            "https://127.0.0.1/",
            "https://10.1.2.3/",
            "https://169.254.169.254/latest",
            "https://0.0.0.0/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[2002:7f00:1::]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
        ] {
            assert!(!passes(&guard, wrong).await, "{wrong}");
        }
    }

    #[tokio::test]
    async fn it_may_lead_where_the_operator_says_and_where_it_is_itself() {
        let listed = guard("https://hub.example", &["10.0.0.0/8"]);
        assert!(passes(&listed, "https://10.1.2.3/").await);
        assert!(passes(&listed, "https://[::ffff:10.1.2.3]/").await);
        assert!(!passes(&listed, "https://192.168.1.1/").await);
        let local = guard("http://127.0.0.1:8080", &[]);
        assert!(passes(&local, "http://127.0.0.1:9000/").await);
        assert!(!passes(&local, "http://127.0.0.2:9000/").await);
    }

    #[tokio::test]
    async fn no_scheme_but_https_unless_it_is_listed() {
        let guard = guard("https://hub.example", &[]);
        for wrong in ["http://cdn.example/", "ftp://cdn.example/", "file:///etc/passwd"] {
            assert!(!passes(&guard, wrong).await, "{wrong}");
        }
        assert!(passes(&guard, "http://plain.example/").await);
        assert!(passes(&guard, "https://cdn.example/").await);
        assert!(!passes(&guard, "https://user:word@cdn.example/").await);
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_refused() {
        let guard = guard("https://hub.example", &[]);
        let error = guard.resolve("localhost").await.expect_err("loopback");
        assert!(error.to_string().contains("not at a public address"), "{error}");
        let own = self::guard("http://localhost:8080", &[]);
        assert!(own.resolve("localhost").await.is_ok());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        let endpoint = "https://hub.example".parse().expect("an address");
        assert!(Guard::new(endpoint, &[], &["10.0.0.0/40".to_owned()]).is_err());
        let all = NOT_PUBLIC.iter().all(|text| text.parse::<IpNet>().is_ok());
        assert!(all, "each of ours is one");
    }
}
