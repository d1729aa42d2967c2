//! Signed addresses of files (PROTOCOLS D.8): the SDK signs with the token that it was given, and the gateway compares.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use http::{Method, Uri, uri::PathAndQuery};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{FILES, unauthorized};
use crate::{
    app::App,
    auth::Caller,
    error::{Error, Result},
    ids::InstanceId,
};

const SIGNATURE: &str = "signature";
const EXPIRATION: &str = "signature_expiration";

/// What a signed address says.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    operation: &'static str,
    path: String,
    user: String,
    signature: String,
    /// Seconds since the epoch, as written.
    expiration: Option<String>,
    /// The query without the signature.
    rest: String,
}

impl Signed {
    /// Whether an address is one of a file and carries a signature.
    #[must_use]
    pub fn stands_in(uri: &Uri) -> bool {
        uri.path() == FILES && query(uri).any(|(name, _)| name == SIGNATURE)
    }

    /// # Errors
    /// `unauthenticated` without a signature.
    pub fn read(method: &Method, uri: &Uri) -> Result<Self> {
        let operation = match *method {
            Method::GET | Method::HEAD => "read",
            _ => "write",
        };
        let find = |wanted: &str| query(uri).find(|(name, _)| name == wanted).map(|(_, value)| value);
        let rest = uri.query().unwrap_or_default().split('&');
        let rest: Vec<&str> = rest
            .filter(|pair| ![SIGNATURE, EXPIRATION].contains(&pair.split('=').next().unwrap_or_default()))
            .collect();
        Ok(Self {
            operation,
            path: find("path").unwrap_or_default(),
            user: find("username").unwrap_or_default(),
            signature: find(SIGNATURE).ok_or_else(|| unauthorized("missing signature query parameter"))?,
            expiration: find(EXPIRATION),
            rest: rest.join("&"),
        })
    }

    /// The signature that a token gives.
    fn by(&self, token: &str) -> String {
        let mut text = format!("{}:{}:{}:{token}", self.path, self.operation, self.user);
        if let Some(expiration) = &self.expiration {
            text.push(':');
            text.push_str(expiration);
        }
        format!("v1_{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(text)))
    }

    /// Who signed it, and for which sandbox: the named one, or any that runs.
    ///
    /// # Errors
    /// `unauthenticated` in the words of envd, which tests of clients look for.
    pub async fn sender(&self, app: &App, instance: Option<&InstanceId>) -> Result<(Arc<Caller>, InstanceId)> {
        let matches = |token: &str| bool::from(self.by(token).as_bytes().ct_eq(self.signature.as_bytes()));
        let found = app.auth.passes.find(instance, matches).await?;
        let found = found.ok_or_else(|| unauthorized("invalid signature"))?;
        match self.expiration.as_deref().map(str::parse::<i64>) {
            None => Ok(found),
            Some(Ok(end)) if end >= app.clock.now().timestamp() => Ok(found),
            Some(_) => Err(unauthorized("signature is already expired")),
        }
    }

    /// Where the request goes to: the cloud knows nothing of the signature.
    ///
    /// # Errors
    /// When it is none, which what was taken from one always is.
    pub fn target(&self) -> Result<PathAndQuery> {
        format!("{FILES}?{}", self.rest).parse().map_err(Error::internal)
    }
}

fn query(uri: &Uri) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(method: &str, uri: &str) -> Signed {
        Signed::read(&method.parse().unwrap(), &uri.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_documented_signature_is_computed() {
        let signed = signed("GET", "/files?path=hello.txt&username=user&signature=v1_x");
        assert_eq!(signed.by("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0"), "v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E");
    }

    #[test]
    fn only_the_signature_is_left_behind() {
        let uri = "/files?path=a%20b%2Bc&signature=v1_a%2Fb&signature_expiration=5&username=root";
        let read = signed("POST", uri);
        assert_eq!((read.path.as_str(), read.user.as_str(), read.operation), ("a b+c", "root", "write"));
        assert_eq!((read.signature.as_str(), read.expiration.as_deref()), ("v1_a/b", Some("5")));
        assert_eq!(read.target().unwrap().as_str(), "/files?path=a%20b%2Bc&username=root");
        assert_eq!(signed("GET", "/files?signature=x").target().unwrap().as_str(), "/files?");
    }

    #[test]
    fn each_part_is_signed() {
        let by = |uri: &str| signed("GET", uri).by("t");
        let base = by("/files?path=a&signature=x");
        for other in [
            "/files?path=b&signature=x",
            "/files?path=a&username=root&signature=x",
            "/files?path=a&signature=x&signature_expiration=1",
        ] {
            assert_ne!(by(other), base, "{other}");
        }
        assert_ne!(signed("POST", "/files?path=a&signature=x").by("t"), base);
        assert_ne!(signed("GET", "/files?path=a&signature=x").by("u"), base);
    }
}
