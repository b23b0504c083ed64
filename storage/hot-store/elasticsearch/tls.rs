//! Which certificates of servers are trusted.

use std::sync::Arc;

use contract::{Error, Result};
use reqwest::{Certificate, ClientBuilder};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ElasticsearchSettings;

/// Sets up TLS as the settings say; without any, the system's certificates are trusted.
pub(super) fn apply(settings: &ElasticsearchSettings, builder: ClientBuilder) -> Result<ClientBuilder> {
    if !settings.ca_file.is_empty() {
        return trust_file(&settings.ca_file, builder);
    }
    if settings.ca_fingerprint.is_empty() {
        return Ok(builder);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Pinned { fingerprint: fingerprint(&settings.ca_fingerprint)?, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|cause| Error::stop("set up TLS for Elasticsearch").because(cause))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    Ok(builder.tls_backend_preconfigured(config))
}

fn trust_file(file: &str, builder: ClientBuilder) -> Result<ClientBuilder> {
    let failed = || Error::change(format!("read certificates from `elasticsearch.ca_file` `{file}`"));
    let text = std::fs::read(file).map_err(|cause| failed().because(cause))?;
    let certificates = Certificate::from_pem_bundle(&text).map_err(|cause| failed().because(cause))?;
    if certificates.is_empty() {
        return Err(failed().because("it has none (PEM begins with `-----BEGIN CERTIFICATE-----`)"));
    }
    Ok(builder.tls_certs_only(certificates))
}

/// 32 bytes in hexadecimal digits, with or without colons.
fn fingerprint(text: &str) -> Result<[u8; 32]> {
    let wrong = || {
        Error::change(
            "use `elasticsearch.ca_fingerprint`: it is 64 hexadecimal digits (SHA-256), colons between them or not",
        )
    };
    let digits: Vec<char> = text.chars().filter(|&letter| letter != ':' && !letter.is_whitespace()).collect();
    let value = |letter: char| letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> =
        digits.chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(*pair.get(1)?)?)).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)
}

/// Trusts the one certificate of this fingerprint, and what it signed.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned = |certificate: &&CertificateDer<'_>| Sha256::digest(certificate)[..] == self.fingerprint;
        if is_pinned(&end) {
            return Ok(ServerCertVerified::assertion());
        }
        let signer = intermediates.iter().find(is_pinned);
        let signer = signer.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(signer.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|cause| rustls::Error::General(cause.to_string()))?;
        verifier.verify_server_cert(end, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_64_digits_with_or_without_colons() {
        let plain = "0a".repeat(32);
        assert_eq!(fingerprint(&plain).unwrap(), [10; 32]);
        assert_eq!(fingerprint(&"0A:".repeat(32)).unwrap(), [10; 32]);
        for wrong in ["", "0a", &"0".repeat(63), &"0g".repeat(32), &"0a".repeat(33)] {
            assert!(fingerprint(wrong).is_err(), "{wrong}");
        }
    }
}
