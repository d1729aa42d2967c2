//! The certificates of `dev --tls`: an authority that is made once, and a certificate of it for each run.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use devstack::files;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};

use crate::clock::{self, Clock};

const NAME: &str = "ags-gateway local development";
/// What the authority may vouch for: to trust it risks nothing else.
const REALM: &str = "localhost";
const AUTHORITY_DAYS: i64 = 3650;
/// Browsers take no certificate that is good for longer than 398 days.
const DAYS: i64 = 90;
/// What programs on Debian, Fedora and Alpine trust already.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Files below the state directory.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    /// The authority alone, for programs that add it to what they trust.
    pub authority: PathBuf,
    /// The authority and the system's, for programs that trust one file only.
    pub bundle: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// Makes what is missing, and a new certificate for this host's names and `*.{domain}`.
    pub(super) fn prepare(directory: &Path, domain: &str) -> anyhow::Result<Self> {
        files::create_private_dir(directory)?;
        let path = |name: &str| directory.join(name);
        let made = Self {
            authority: path("ca.pem"),
            bundle: path("bundle.pem"),
            certificate: path("server.pem"),
            key: path("server.key"),
        };
        let today = clock::System.now();
        let (key, authority) = authority(&path("ca.key"), &made.authority, today)?;
        let issuer = Issuer::new(authority_params(today), key);
        let server_key = KeyPair::generate()?;
        let certificate = server_params(domain, today)?.signed_by(&server_key, &issuer)?;
        files::write_private(&made.key, &server_key.serialize_pem())?;
        files::write_private(&made.certificate, &certificate.pem())?;
        let roots = SYSTEM_ROOTS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        files::write_private(&made.bundle, &format!("{authority}{roots}"))?;
        Ok(made)
    }
}

/// The authority's key and certificate, kept from earlier runs: whoever trusts it need not do so again.
fn authority(key_file: &Path, file: &Path, today: DateTime<Utc>) -> anyhow::Result<(KeyPair, String)> {
    if let (Ok(key), Ok(certificate)) = (fs::read_to_string(key_file), fs::read_to_string(file)) {
        let kept = KeyPair::from_pem(&key);
        return Ok((kept.with_context(|| format!("{} is no key", key_file.display()))?, certificate));
    }
    let key = KeyPair::generate()?;
    let certificate: Certificate = authority_params(today).self_signed(&key)?;
    files::write_private(key_file, &key.serialize_pem())?;
    files::write_private(file, &certificate.pem())?;
    Ok((key, certificate.pem()))
}

fn authority_params(today: DateTime<Utc>) -> CertificateParams {
    let mut params = named(NAME, AUTHORITY_DAYS, today);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName(REALM.into()),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv4Addr::LOCALHOST.into(), 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv6Addr::LOCALHOST.into(), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn server_params(domain: &str, today: DateTime<Utc>) -> anyhow::Result<CertificateParams> {
    let names = ["localhost", domain, &format!("*.{domain}")].map(|name| name.try_into().map(SanType::DnsName));
    let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(SanType::IpAddress);
    // Another name than the authority's: OpenSSL takes what bears its issuer's name for self-signed.
    let mut params = named(domain, DAYS, today);
    params.subject_alt_names = names.into_iter().collect::<Result<Vec<_>, _>>()?;
    params.subject_alt_names.extend(addresses);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// From yesterday on: clocks differ.
fn named(name: &str, days: i64, today: DateTime<Utc>) -> CertificateParams {
    let day = |offset| {
        let date = (today + TimeDelta::days(offset)).date_naive();
        date_time_ymd(date.year(), date.month() as u8, date.day() as u8)
    };
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (day(-1), day(days));
    params
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    };

    use super::*;

    fn trusts(authority: &Path, certificate: &Path, name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let certificate = CertificateDer::from_pem_file(certificate).unwrap();
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn an_authority_made_once_vouches_for_every_run_and_for_this_host_alone() {
        let directory = tempfile::tempdir().unwrap();
        let first = Certificates::prepare(directory.path(), "sandbox.localhost").unwrap();
        let (authority, certificate) = (fs::read(&first.authority).unwrap(), fs::read(&first.certificate).unwrap());
        let second = Certificates::prepare(directory.path(), "sandbox.localhost").unwrap();
        assert_eq!(fs::read(&second.authority).unwrap(), authority);
        assert_ne!(fs::read(&second.certificate).unwrap(), certificate);
        for name in ["localhost", "127.0.0.1", "::1", "api.sandbox.localhost", "8000-ins1.sandbox.localhost"] {
            assert!(trusts(&second.authority, &second.certificate, name), "{name}");
        }
        assert!(!trusts(&second.authority, &second.certificate, "other.localhost"));
        let elsewhere = Certificates::prepare(directory.path(), "sandbox.example").unwrap();
        assert!(!trusts(&elsewhere.authority, &elsewhere.certificate, "a.sandbox.example"), "it may not");
    }
}
