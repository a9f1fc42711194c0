//! TLS for the listener: rustls with the ring provider passed explicitly, so that no process-wide
//! default is needed, and certificates that are read again when their files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use wire::config::TlsConfig;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file does not hold what it should.
    #[error("reading {what} from {path}: {why}")]
    Pem {
        /// The certificates, or the key.
        what: &'static str,
        /// The file.
        path: String,
        /// Why; never any of its content.
        why: String,
    },
    /// The certificate and the key do not go together, or are not usable.
    #[error("{cert} and {key} cannot be used together")]
    Mismatch {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What every connection is offered.
pub(crate) fn read(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let certificates = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem("the certificate chain", &config.cert, &error))?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| pem("the private key", &config.key, &error))?;
    let mismatch = |source| TlsError::Mismatch {
        cert: config.cert.display().to_string(),
        key: config.key.display().to_string(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?;
    let mut server = builder.with_no_client_auth().with_single_cert(certificates, key).map_err(mismatch)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

/// The files that a change of is a change of the certificate.
pub(crate) fn files(config: &TlsConfig) -> Vec<PathBuf> {
    vec![config.cert.clone(), config.key.clone()]
}

fn pem(what: &'static str, path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError::Pem { what, path: path.display().to_string(), why: error.to_string() }
}
