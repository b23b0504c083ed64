//! A server with a certificate of its own authority: who trusts it, and who does not.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::Method;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::ElasticsearchSettings;
use super::client::{Body, Client};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

struct Secured {
    port: u16,
    folder: TempDir,
    authority: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
}

impl Secured {
    /// Starts a server for the name `localhost`, which shows its certificate and the authority's.
    async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let (authority, certificate) = (authority.der().clone(), certificate.der().clone());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.clone(), authority.clone()], key).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));
        Self { port, folder, authority, certificate }
    }

    fn settings(&self, name: &str) -> ElasticsearchSettings {
        let hosts = format!("https://{name}:{}", self.port);
        ElasticsearchSettings { hosts, request_seconds_max: 5, ..ElasticsearchSettings::default() }
    }
}

async fn serve(listener: tokio::net::TcpListener, acceptor: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        // A client that does not trust us leaves.
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let mut request = [0; 1024];
        if stream.read(&mut request).await.is_ok() && stream.write_all(ANSWER).await.is_ok() {
            stream.shutdown().await.unwrap_or_default();
        }
    }
}

async fn trusts(settings: &ElasticsearchSettings) -> bool {
    Client::new(settings).unwrap().send(Method::GET, "", Body::None).await.is_ok()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_its_authoritys_file_or_a_fingerprint_and_else_not() {
    let server = Secured::start().await;
    let settings = server.settings("localhost");
    assert!(!trusts(&settings).await, "the system does not know its authority");
    let file = ElasticsearchSettings {
        ca_file: server.folder.path().join("ca.pem").display().to_string(),
        ..settings.clone()
    };
    assert!(trusts(&file).await);
    for certificate in [&server.authority, &server.certificate] {
        let pinned = ElasticsearchSettings { ca_fingerprint: fingerprint(certificate), ..settings.clone() };
        assert!(trusts(&pinned).await);
    }
    let other = Secured::start().await;
    let pinned = ElasticsearchSettings { ca_fingerprint: fingerprint(&other.authority), ..settings.clone() };
    assert!(!trusts(&pinned).await, "another authority");
    // Signed by the pinned authority, but for another name.
    let pinned =
        ElasticsearchSettings { ca_fingerprint: fingerprint(&server.authority), ..server.settings("127.0.0.1") };
    assert!(!trusts(&pinned).await);
}

#[test]
fn a_file_without_certificates_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let ca_file = file.path().display().to_string();
    let settings =
        ElasticsearchSettings { hosts: "https://localhost".to_owned(), ca_file, ..ElasticsearchSettings::default() };
    let error = Client::new(&settings).err().unwrap().to_string();
    assert!(error.contains("`elasticsearch.ca_file`") && error.contains("BEGIN CERTIFICATE"), "{error}");
}
