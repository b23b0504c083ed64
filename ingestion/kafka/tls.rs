//! Encrypted connections.

use std::path::Path;
use std::sync::Arc;

use contract::{Error, Result};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::settings::Settings;

/// What encrypts connections as set; none where they are in the clear.
///
/// # Errors
/// `Change` when a file cannot be read or holds nothing of its kind.
pub(crate) fn connector(settings: &Settings) -> Result<Option<TlsConnector>> {
    if !settings.tls {
        return Ok(None);
    }
    let wrong = |cause| Error::change("set up TLS to Kafka").because(cause);
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(authorities(&settings.tls_ca_file)?);
    let config = if settings.tls_certificate_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let (file, name) = (&settings.tls_key_file, "kafka.tls_key_file");
        let key = PrivateKeyDer::from_pem_file(file).map_err(|cause| unreadable(name, file, cause))?;
        let chain = certificates("kafka.tls_certificate_file", &settings.tls_certificate_file)?;
        builder.with_client_auth_cert(chain, key).map_err(wrong)?
    };
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

fn authorities(file: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if file.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    } else {
        roots.add_parsable_certificates(certificates("kafka.tls_ca_file", file)?);
    }
    if roots.is_empty() {
        return Err(Error::change(
            "find an authority that may vouch for Kafka's brokers: the system has none; name a PEM file in \
             `kafka.tls_ca_file`",
        ));
    }
    Ok(roots)
}

fn certificates(name: &str, file: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|cause| unreadable(name, file, cause))?;
    if found.is_empty() {
        return Err(Error::change(format!("read `{name}`: `{}` holds no certificate", Path::new(file).display())));
    }
    Ok(found)
}

fn unreadable(name: &str, file: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::change(format!("read `{name}`, which is `{file}`")).because(cause)
}
