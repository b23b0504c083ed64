//! Who a TLS listener shows itself as, and whom it lets in.

use std::path::Path;
use std::sync::Arc;

use contract::{Error, Result};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::settings::Settings;

/// TLS 1.2 and 1.3 with the certificate chain and key that are set; with `dns.tls_client_ca_file`, writers must show
/// a certificate of its.
///
/// # Errors
/// `Change` when a file is missing or wrong.
pub(super) fn acceptor(settings: &Settings) -> Result<TlsAcceptor> {
    let (certificate, key) = (&settings.tls_certificate_file, &settings.tls_key_file);
    if certificate.is_empty() || key.is_empty() {
        let right = "a `tls:` listener needs `dns.tls_certificate_file` and `dns.tls_key_file`";
        return Err(Error::change(format!("use `dns.listeners` ({right})")));
    }
    let chain = certificates("tls_certificate_file", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("tls_key_file", key, error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong("tls_certificate_file", certificate, error))?;
    let builder = match settings.tls_client_ca_file.as_str() {
        "" => builder.with_no_client_auth(),
        file => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("tls_client_ca_file", file)? {
                roots.add(authority).map_err(|error| wrong("tls_client_ca_file", file, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong("tls_client_ca_file", file, error))?)
        }
    };
    let config = builder.with_single_cert(chain, private).map_err(|error| wrong("tls_key_file", key, error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(setting: &str, file: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(Path::new(file)).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| wrong(setting, file, error))?;
    if certificates.is_empty() {
        return Err(wrong(setting, file, "there is no PEM certificate in it"));
    }
    Ok(certificates)
}

fn wrong(setting: &str, file: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::change(format!("use `dns.{setting}` = `{file}`")).because(cause)
}
