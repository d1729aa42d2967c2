//! TLS that ends at the gateway: certificates from files, read again when they change.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::{config::Tls, lifecycle::Lifecycle};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(60);

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Certificates {
    files: Tls,
    provider: Arc<CryptoProvider>,
    current: RwLock<Read>,
}

/// What was read last.
#[derive(Debug)]
struct Read {
    key: Arc<CertifiedKey>,
    /// Of both files: times of files are too coarse to tell two writes apart.
    digest: [u8; 32],
}

impl Certificates {
    /// # Errors
    /// When a file cannot be read, or the key is not the certificate's.
    pub fn load(files: &Tls) -> anyhow::Result<Arc<Self>> {
        let provider = Arc::new(ring::default_provider());
        let content = Content::of(files)?;
        let current = RwLock::new(Read { key: content.certified(files, &provider)?, digest: content.digest() });
        Ok(Arc::new(Self { files: files.clone(), provider, current }))
    }

    /// Reads the files again; whether they have changed. What does not fit together leaves all as it is: one file may have
    /// been replaced before the other.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn renew(&self) -> anyhow::Result<bool> {
        let content = Content::of(&self.files)?;
        let digest = content.digest();
        if self.current.read().unwrap_or_else(PoisonError::into_inner).digest == digest {
            return Ok(false);
        }
        let key = content.certified(&self.files, &self.provider)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Read { key, digest };
        Ok(true)
    }

    /// Where they are served.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.files.listen
    }

    /// Looks after the files until the drain.
    pub async fn keep(self: Arc<Self>, lifecycle: Lifecycle) {
        let draining = lifecycle.draining();
        while draining.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            match self.renew() {
                Ok(true) => tracing::info!(file = %self.files.cert_file.display(), "the TLS certificate was renewed"),
                Ok(false) => {}
                Err(error) => tracing::error!(error = format!("{error:#}"), "the TLS certificate cannot be renewed"),
            }
        }
    }

    /// What takes connections under the certificate: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// When the provider supports no protocol version.
    pub fn acceptor(self: &Arc<Self>) -> anyhow::Result<TlsAcceptor> {
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        let mut config =
            builder.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// Both files.
struct Content {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Content {
    fn of(files: &Tls) -> anyhow::Result<Self> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
        Ok(Self { certificate: read(&files.cert_file)?, key: read(&files.key_file)?.into() })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(&self.certificate).chain_update(&self.key).finalize().into()
    }

    fn certified(&self, files: &Tls, provider: &CryptoProvider) -> anyhow::Result<Arc<CertifiedKey>> {
        let (cert, key) = (files.cert_file.display(), files.key_file.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.with_context(|| format!("{cert} is no certificate in PEM"))?;
        anyhow::ensure!(!chain.is_empty(), "{cert} holds no certificate");
        // The parser's error could repeat what it read.
        let private = PrivateKeyDer::from_pem_slice(&self.key);
        let private = private.map_err(|_| anyhow::anyhow!("{key} is no private key in PEM"))?;
        let certified = CertifiedKey::from_der(chain, private, provider);
        Ok(Arc::new(certified.with_context(|| format!("{key} is not the key of {cert}"))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &Tls, cert: Option<&rcgen::Certificate>, key: Option<&rcgen::KeyPair>) {
        if let Some(cert) = cert {
            fs::write(&files.cert_file, cert.pem()).unwrap();
        }
        if let Some(key) = key {
            fs::write(&files.key_file, key.serialize_pem()).unwrap();
        }
    }

    #[test]
    fn a_new_certificate_is_taken_once_its_key_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let files = Tls { listen: "127.0.0.1:0".parse().unwrap(), cert_file: path("cert"), key_file: path("key") };
        let [old, new] = [(), ()].map(|()| rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap());
        write(&files, Some(&old.cert), Some(&old.signing_key));
        let certificates = Certificates::load(&files).unwrap();
        let served = || certificates.current.read().unwrap().key.cert[0].clone();
        assert!(!certificates.renew().unwrap());
        write(&files, Some(&new.cert), None);
        assert!(certificates.renew().is_err());
        assert_eq!(served(), *old.cert.der());
        write(&files, None, Some(&new.signing_key));
        assert!(certificates.renew().unwrap());
        assert_eq!(served(), *new.cert.der());
        assert!(!certificates.renew().unwrap());
    }
}
