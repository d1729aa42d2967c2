//! Passes: tokens with which SDKs reach the ports of one instance, in place of the cloud's own.
//!
//! A pass is as good as the key that it was given to, within that instance, and ends with either. Its text is derived from
//! both under the pepper: nothing secret is stored, whoever asks again gets the same text (SDKs keep it over a pause), and
//! what an SDK signed with it can be checked.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use moka::future::Cache;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use super::{BELIEF, CACHED_CREDENTIALS, Caller, unauthenticated};
use crate::{
    domain::{credential::Peppers, scope::Scope},
    error::Result,
    ids::{Id, InstanceId, KeyId},
    storage::{keys, passes},
};

/// What carries a pass to all ports of an instance.
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");
/// What carries a pass to all ports but envd's.
const TRAFFIC_TOKEN: HeaderName = HeaderName::from_static("e2b-traffic-access-token");
/// All that carry one, in the order in which they are believed.
const PASS_HEADERS: [HeaderName; 3] = [ACCESS_TOKEN, TRAFFIC_TOKEN, header::AUTHORIZATION];

/// Digits of an id behind its prefix, and of a signature in hex.
const ID_DIGITS: usize = 26;
const MAC_DIGITS: usize = 64;
/// Passes that one signature is compared with when it does not say whose it is.
const COMPARED: i64 = 10_000;
/// Such comparisons at once.
const COMPARING: usize = 2;
/// After so many comparisons others get their turn.
const TURN: usize = 128;

/// What a pass is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reach {
    /// All ports: commands and files too, as far as the key may.
    All,
    /// What servers in the sandbox and the code interpreter serve.
    Traffic,
}

impl Reach {
    const ALL: [Self; 2] = [Self::All, Self::Traffic];

    const fn prefix(self) -> &'static str {
        match self {
            Self::All => "agsa_",
            Self::Traffic => "agst_",
        }
    }

    const fn purpose(self) -> &'static str {
        match self {
            Self::All => "access-pass",
            Self::Traffic => "traffic-pass",
        }
    }

    const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::All => &[Scope::Ports, Scope::Exec, Scope::ExecRead, Scope::FilesRead, Scope::FilesWrite],
            Self::Traffic => &[Scope::Ports, Scope::Exec],
        }
    }
}

/// Whose pass it is, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Named {
    reach: Reach,
    instance: InstanceId,
    key: KeyId,
}

impl Named {
    fn message(&self) -> String {
        format!("{} {}", self.instance, self.key)
    }

    fn text(&self, peppers: &Peppers) -> String {
        self.written(&peppers.sign(self.reach.purpose(), self.message().as_bytes()))
    }

    /// As [`text`](Self::text), and what it was before the pepper was replaced.
    fn texts(&self, peppers: &Peppers) -> Vec<String> {
        let signed = peppers.signatures(self.reach.purpose(), self.message().as_bytes());
        signed.iter().map(|mac| self.written(mac)).collect()
    }

    fn written(&self, mac: &[u8]) -> String {
        let (instance, key) =
            (&self.instance.as_str()[InstanceId::PREFIX.len()..], &self.key.as_str()[KeyId::PREFIX.len()..]);
        format!("{}{instance}{key}{}", self.reach.prefix(), hex::encode(mac))
    }

    /// What a text claims to be, and its signature; `None` when it has not the form of a pass.
    fn read(text: &str) -> Option<(Self, Vec<u8>)> {
        let (reach, rest) = Reach::ALL.iter().find_map(|reach| Some((*reach, text.strip_prefix(reach.prefix())?)))?;
        if rest.len() != 2 * ID_DIGITS + MAC_DIGITS || !rest.is_ascii() {
            return None;
        }
        let (instance, rest) = rest.split_at(ID_DIGITS);
        let (key, mac) = rest.split_at(ID_DIGITS);
        let instance = format!("{}{instance}", InstanceId::PREFIX).parse().ok()?;
        let key = format!("{}{key}", KeyId::PREFIX).parse().ok()?;
        Some((Self { reach, instance, key }, hex::decode(mac).ok()?))
    }
}

/// The passes of one key to one instance.
pub struct Pass {
    /// For [`ACCESS_TOKEN`].
    pub access: SecretString,
    /// For [`TRAFFIC_TOKEN`].
    pub traffic: SecretString,
}

/// Makes and checks passes.
#[derive(Clone)]
pub struct Passes {
    pool: PgPool,
    peppers: Arc<Peppers>,
    cache: Cache<Named, Arc<Caller>>,
    comparing: Arc<Semaphore>,
}

impl Passes {
    pub(super) fn new(pool: PgPool, peppers: Arc<Peppers>) -> Self {
        let cache = Cache::builder().max_capacity(CACHED_CREDENTIALS).time_to_live(BELIEF).build();
        Self { pool, peppers, cache, comparing: Arc::new(Semaphore::new(COMPARING)) }
    }

    pub(super) fn forget_all(&self) {
        self.cache.invalidate_all();
    }

    /// The caller's passes to an instance of its team.
    ///
    /// # Errors
    /// `not_found` for a caller that is bound to another instance; when the database fails.
    pub async fn issue(&self, caller: &Caller, instance: &InstanceId) -> Result<Pass> {
        caller.require_instance(instance)?;
        passes::note(&mut *self.pool.acquire().await?, caller.team_id(), instance, &caller.key_id).await?;
        let text = |reach| {
            let named = Named { reach, instance: instance.clone(), key: caller.key_id.clone() };
            named.text(&self.peppers).into()
        };
        Ok(Pass { access: text(Reach::All), traffic: text(Reach::Traffic) })
    }

    /// The caller behind a request's pass, bound to the pass's instance; `None` when no header has the form of one.
    ///
    /// # Errors
    /// `unauthenticated` when it was not made here, or its key is over.
    pub async fn recognise(&self, headers: &HeaderMap) -> Result<Option<(Arc<Caller>, InstanceId)>> {
        let Some((named, mac)) = presented(headers) else { return Ok(None) };
        if !self.peppers.verify(named.reach.purpose(), named.message().as_bytes(), &mac) {
            return Err(refused());
        }
        let instance = named.instance.clone();
        Ok(Some((self.caller(named).await?, instance)))
    }

    /// The caller whose access token `signed` accepts, of all that were given one of this instance, or of any that runs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(
        &self,
        instance: Option<&InstanceId>,
        signed: impl Fn(&str) -> bool,
    ) -> Result<Option<(Arc<Caller>, InstanceId)>> {
        let _turn = self.comparing.acquire().await;
        let live = passes::system_given(&mut *self.pool.acquire().await?, instance, COMPARED).await?;
        for (done, (instance, key)) in live.into_iter().enumerate() {
            if done % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let named = Named { reach: Reach::All, instance, key };
            if named.texts(&self.peppers).iter().any(|text| signed(text)) {
                let instance = named.instance.clone();
                return Ok(self.caller(named).await.ok().map(|caller| (caller, instance)));
            }
        }
        Ok(None)
    }

    async fn caller(&self, named: Named) -> Result<Arc<Caller>> {
        if let Some(caller) = self.cache.get(&named).await {
            return Ok(caller);
        }
        let look_up = self.look_up(named.clone());
        // Boxed: what is rare does not make what is moved for each request larger.
        Box::pin(self.cache.try_get_with(named, look_up))
            .await
            .map_err(|shared: Arc<crate::error::Error>| shared.copy())
    }

    async fn look_up(&self, named: Named) -> Result<Arc<Caller>> {
        let mut connection = self.pool.acquire().await?;
        let team = keys::system_team_of(&mut connection, &named.key).await?.ok_or_else(refused)?;
        let found = keys::with_team(&mut connection, &team, &named.key, Vec::new()).await?.ok_or_else(refused)?;
        keys::touch(&mut connection, &named.key).await?;
        let mut caller = Caller::of_key(found.key, found.team);
        caller.require_instance(&named.instance)?;
        let reach = named.reach.scopes();
        caller.scopes = caller.scopes.iter().filter(|scope| reach.contains(scope)).collect();
        caller.only_instance = Some(named.instance);
        Ok(Arc::new(caller))
    }
}

fn refused() -> crate::error::Error {
    unauthenticated(
        "The token is not valid (any more): its key was revoked or has expired. Connect to the sandbox again.",
    )
}

fn presented(headers: &HeaderMap) -> Option<(Named, Vec<u8>)> {
    PASS_HEADERS.iter().find_map(|name| read(name, headers.get(name)?))
}

/// A pass in a header: as it is, but for the general one, in which the cloud's clients for devices send it.
fn read(name: &HeaderName, value: &HeaderValue) -> Option<(Named, Vec<u8>)> {
    let text = value.to_str().ok()?;
    Named::read(if *name == header::AUTHORIZATION { text.strip_prefix("Bearer ")? } else { text })
}

/// Whether a pass to all ports stands where the cloud's clients send it.
#[must_use]
pub fn presents_access(headers: &HeaderMap) -> bool {
    headers.get(ACCESS_TOKEN).and_then(|value| read(&ACCESS_TOKEN, value)).is_some()
}

/// Whether one of the headers holds something of a pass's form.
#[must_use]
pub fn presents_pass(headers: &HeaderMap) -> bool {
    presented(headers).is_some()
}

/// Takes passes out of a request on its way to a sandbox; what else stands in their headers is the server's own.
pub fn remove_passes(headers: &mut HeaderMap) {
    for name in PASS_HEADERS {
        if headers.get_all(&name).iter().any(|value| read(&name, value).is_some()) {
            headers.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, ids::Ids};
    use proptest::prelude::*;

    fn peppers(secret: &str, previous: Option<&str>) -> Peppers {
        Peppers::derive(&secret.to_owned().into(), previous.map(|text| text.to_owned().into()).as_ref())
    }

    fn named(reach: Reach) -> Named {
        let ids = Ids::new(Arc::new(clock::System));
        Named { reach, instance: ids.next(), key: ids.next() }
    }

    #[test]
    fn a_pass_says_whose_it_is_and_is_signed() {
        for reach in Reach::ALL {
            let (named, peppers) = (named(reach), peppers("one", None));
            let text = named.text(&peppers);
            let (read, mac) = Named::read(&text).unwrap();
            assert_eq!(read, named);
            assert!(peppers.verify(reach.purpose(), named.message().as_bytes(), &mac));
            assert_eq!(named.texts(&peppers), std::slice::from_ref(&text));
            assert!(Named::read(&text[1..]).is_none());
            assert!(Named::read(&text.to_uppercase()).is_none());
        }
    }

    #[test]
    fn one_kind_is_not_the_other() {
        let (mut named, peppers) = (named(Reach::Traffic), peppers("one", None));
        let (_, mac) = Named::read(&named.text(&peppers)).unwrap();
        named.reach = Reach::All;
        assert!(!peppers.verify(named.reach.purpose(), named.message().as_bytes(), &mac));
    }

    #[test]
    fn what_was_signed_before_a_rotation_is_known() {
        let named = named(Reach::All);
        let old = named.text(&peppers("old", None));
        assert!(named.texts(&peppers("new", Some("old"))).contains(&old));
        assert!(!named.texts(&peppers("new", None)).contains(&old));
    }

    #[test]
    fn only_passes_are_taken_out_of_a_request() {
        let pass = named(Reach::All).text(&peppers("one", None));
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_TOKEN, pass.parse().unwrap());
        headers.insert(TRAFFIC_TOKEN, "of-the-server".parse().unwrap());
        assert!(presents_pass(&headers));
        remove_passes(&mut headers);
        assert!(!headers.contains_key(ACCESS_TOKEN));
        assert_eq!(headers[TRAFFIC_TOKEN], "of-the-server");
        assert!(!presents_pass(&headers));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(ags[at]_)?\\PC{0,130}") {
            let _ = Named::read(&text);
        }
    }
}
