//! TLS: the clients that people have, certificates that change while they work, and files that
//! can't be used.

mod support;

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use support::client::{Python, finish};
use support::server::{Server, ballast};
use tempfile::TempDir;

/// An authority of its own, and the files that a server is given.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let made = Self { folder: tempfile::tempdir()?, issuer };
        fs::write(made.file("ca.pem"), made.issuer.pem())?;
        Ok(made)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// A new certificate and its key for this machine, as PEM.
    fn make(&self) -> Result<(String, String)> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "the hub of a test");
        let made = params.signed_by(&key, &self.issuer)?;
        Ok((made.pem(), key.serialize_pem()))
    }

    /// Puts both where the server reads them, as careful people do: under another name first.
    fn give(&self, (certificate, key): &(String, String)) -> Result<()> {
        for (name, text) in [("hub.crt", certificate), ("hub.key", key)] {
            let new = self.file("new");
            fs::write(&new, text)?;
            fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            fs::rename(&new, self.file(name))?;
        }
        Ok(())
    }

    /// A hub with the certificate that was given.
    fn start(&self) -> Result<Server> {
        Server::start_set(&[
            ("BALLAST_TLS_CERTIFICATE", &self.path("hub.crt")),
            ("BALLAST_TLS_KEY", &self.path("hub.key")),
        ])
    }

    /// A connection that stays open.
    fn connect(
        &self,
        server: &Server,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Connection> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("127.0.0.1")?;
        let session = ClientConnection::new(Arc::new(config), name)?;
        let socket = TcpStream::connect(server.address())?;
        let mut connection = Connection(BufReader::new(StreamOwned::new(session, socket)));
        connection.health()?;
        Ok(connection)
    }
}

struct Connection(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Connection {
    /// One request on it.
    fn health(&mut self) -> Result<()> {
        self.0.get_mut().write_all(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")?;
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200 "), "{line:?}");
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line)?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        self.0.read_exact(&mut vec![0; length])?;
        Ok(())
    }

    /// What the server showed.
    fn certificate(&self) -> Result<Vec<u8>> {
        let shown = self.0.get_ref().conn.peer_certificates().context("no certificate")?;
        Ok(shown.first().context("no certificate")?.to_vec())
    }
}

/// Connects until the server shows another certificate than this one.
fn until_renewed(authority: &Authority, server: &Server, old: &[u8]) -> Result<Vec<u8>> {
    for _ in 0..200_000 {
        let shown = authority.connect(server, rustls::ALL_VERSIONS)?.certificate()?;
        if shown != old {
            return Ok(shown);
        }
    }
    anyhow::bail!("the certificate did not change\n{}", server.log())
}

fn hang_up(server: &Server) -> Result<()> {
    let pid = server.pid().context("it is not running")?.to_string();
    ensure!(Command::new("kill").args(["-HUP", &pid]).status()?.success(), "could not signal it");
    Ok(())
}

#[test]
fn clients_work_over_tls_and_get_addresses_with_it() -> Result<()> {
    let authority = Authority::new()?;
    authority.give(&authority.make()?)?;
    let server = authority.start()?;
    ensure!(server.endpoint.starts_with("https://127.0.0.1:"), "{}", server.endpoint);

    let client = Python::with("hub-2.4")?;
    for disable_xet in ["0", "1"] {
        let home = tempfile::tempdir()?;
        let mut python = client.command("python", &server, &server.token, home.path());
        python
            .env("SSL_CERT_FILE", authority.file("ca.pem"))
            .env("HF_HUB_DISABLE_XET", disable_xet);
        python.arg(support::root().join("tests/clients/round_trip.py"));
        finish(python.arg(format!("admin/tls-{disable_xet}")))?;
    }

    let mut command = ballast(&["repo", "list", "--json"]);
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_TOKEN", &server.token);
    let listed = finish(command.env("SSL_CERT_FILE", authority.file("ca.pem")))?;
    ensure!(listed.contains("admin/tls-1"), "{listed}");

    // A client that trusts others does not talk to it.
    let other = Authority::new()?;
    let failed = command.env("SSL_CERT_FILE", other.file("ca.pem")).output()?;
    ensure!(!failed.status.success(), "{failed:?}");
    Ok(())
}

#[test]
fn both_versions_are_spoken_and_http_inside() -> Result<()> {
    let authority = Authority::new()?;
    authority.give(&authority.make()?)?;
    let server = authority.start()?;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let connection = authority.connect(&server, &[version])?;
        let session = &connection.0.get_ref().conn;
        ensure!(session.protocol_version() == Some(version.version), "{session:?}");
        ensure!(session.alpn_protocol() == Some(b"http/1.1"), "{session:?}");
    }
    // Who speaks without it hears nothing of the hub.
    let mut plain = TcpStream::connect(server.address())?;
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")?;
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    ensure!(!String::from_utf8_lossy(&said).contains("HTTP"), "{said:?}");
    Ok(())
}

#[test]
fn a_new_certificate_is_taken_and_a_bad_one_is_not_while_connections_go_on() -> Result<()> {
    let authority = Authority::new()?;
    authority.give(&authority.make()?)?;
    let mut server = authority.start()?;
    server.expect_in_log("the one before it stays");
    let mut kept = authority.connect(&server, rustls::ALL_VERSIONS)?;
    let first = kept.certificate()?;

    authority.give(&authority.make()?)?;
    hang_up(&server)?;
    let second = until_renewed(&authority, &server, &first)?;
    kept.health()?;

    let (certificate, _) = authority.make()?;
    let (_, other_key) = authority.make()?;
    authority.give(&(certificate, other_key))?;
    hang_up(&server)?;
    for _ in 0..200_000 {
        if server.log().contains("the one before it stays") {
            break;
        }
        kept.health()?;
    }
    ensure!(server.log().contains("the one before it stays"), "{}", server.log());
    let mut still = authority.connect(&server, rustls::ALL_VERSIONS)?;
    ensure!(still.certificate()? == second, "another certificate");

    // Nobody says that they have changed; it sees that by itself.
    authority.give(&authority.make()?)?;
    until_renewed(&authority, &server, &second)?;
    kept.health()?;
    still.health()?;
    server.stop()
}

#[test]
fn a_hangup_without_a_certificate_ends_nothing() -> Result<()> {
    let mut server = Server::start()?;
    for _ in 0..3 {
        hang_up(&server)?;
    }
    for _ in 0..200_000 {
        if server.log().contains("no certificate to read again") {
            break;
        }
        ensure!(server.request("GET", "/health", "", &[], &[])?.status == 200, "it is gone");
    }
    ensure!(server.log().contains("no certificate to read again"), "{}", server.log());
    server.stop()
}

#[test]
fn files_that_can_not_be_used_are_found_before_the_start() -> Result<()> {
    let authority = Authority::new()?;
    let (certificate, key) = authority.make()?;
    let (_, other_key) = authority.make()?;
    let check = |reason: &str| -> Result<()> {
        let output = ballast(&["check-config"])
            .env("BALLAST_TLS_CERTIFICATE", authority.file("hub.crt"))
            .env("BALLAST_TLS_KEY", authority.file("hub.key"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() == reason.is_empty(), "{reason}: {said}");
        ensure!(said.contains(reason), "{reason}: {said}");
        Ok(())
    };
    check("reading `tls.certificate`")?;
    authority.give(&(certificate.clone(), key.clone()))?;
    check("")?;
    authority.give(&(certificate.clone(), other_key))?;
    check("can't be used together")?;
    authority.give(&("nothing".to_owned(), key.clone()))?;
    check("the certificate can't be read")?;
    authority.give(&(certificate.clone(), certificate.clone()))?;
    check("the key can't be read")?;
    authority.give(&(certificate, key))?;
    fs::set_permissions(authority.file("hub.key"), Permissions::from_mode(0o644))?;
    check("hint: chmod 600")?;
    Ok(())
}
