//! Where a peer is that is known as `host:port`.

use std::net::SocketAddr;

use super::{Error, Result};

/// All addresses behind `host:port`, as the system knows them now, each once. Whoever connects anew
/// asks again: a host may have moved.
pub async fn look_up(host_port: &str) -> Result<Vec<SocketAddr>> {
    let unknown = |reason: String| Error::Unreachable { address: host_port.to_owned(), reason };
    let found = tokio::net::lookup_host(host_port).await;
    let mut addresses = Vec::new();
    for address in found.map_err(|error| unknown(error.to_string()))? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(unknown("its name has no address".to_owned())),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_or_an_address_is_found_and_what_is_neither_is_told() {
        let found = look_up("127.0.0.1:8081").await.expect("an address");
        assert_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 8081))]);
        let found = look_up("localhost:8081").await.expect("a name");
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 8081));
        for wrong in ["", "hub", "no-such-host.invalid:8081"] {
            let error = look_up(wrong).await.expect_err("it is nowhere").to_string();
            assert!(error.contains(wrong) && error.contains("cannot be reached"), "{error}");
        }
    }
}
