//! Which content encoding a download gets.

use http::{HeaderMap, header};

/// The encodings that are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
}

/// Nothing that is offered is acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no acceptable encoding found, supported: [identity gzip]")]
pub struct NotAcceptable;

/// Chooses by `Accept-Encoding`: the higher weight wins, gzip on a tie, as it is cheaper to carry.
///
/// # Errors
/// Both are excluded by a weight of 0.
pub fn negotiate(headers: &HeaderMap) -> Result<Encoding, NotAcceptable> {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    let offers: Vec<(&str, f32)> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(offer)
        .collect();
    let weight = |name: &str| offers.iter().find(|(offered, _)| offered.eq_ignore_ascii_case(name)).map(|(_, q)| *q);
    let any = weight("*");
    let gzip = weight("gzip").or(any).unwrap_or(0.0);
    // Identity is acceptable unless it is excluded, and preferred only when it says so.
    let identity = weight("identity").or(any.filter(|q| *q == 0.0));
    match identity {
        Some(identity) if gzip <= 0.0 && identity <= 0.0 => Err(NotAcceptable),
        Some(identity) if identity > gzip => Ok(Encoding::Identity),
        _ if gzip > 0.0 => Ok(Encoding::Gzip),
        _ => Ok(Encoding::Identity),
    }
}

fn offer(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((name, weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0))))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(value: &str) -> Result<Encoding, NotAcceptable> {
        let mut headers = HeaderMap::new();
        headers.extend(HeaderValue::from_str(value).map(|value| (header::ACCEPT_ENCODING, value)));
        negotiate(&headers)
    }

    #[test]
    fn weights_decide() {
        assert_eq!(negotiate(&HeaderMap::new()), Ok(Encoding::Identity));
        assert_eq!(of("gzip, deflate"), Ok(Encoding::Gzip));
        assert_eq!(of("identity"), Ok(Encoding::Identity));
        assert_eq!(of("br"), Ok(Encoding::Identity));
        assert_eq!(of("*"), Ok(Encoding::Gzip));
        assert_eq!(of("gzip;q=0"), Ok(Encoding::Identity));
        assert_eq!(of("gzip;q=0.2, identity;q=0.8"), Ok(Encoding::Identity));
        assert_eq!(of("gzip;q=0.8, identity;q=0.8"), Ok(Encoding::Gzip));
        assert_eq!(of("identity;q=0"), Err(NotAcceptable));
        assert_eq!(of("gzip;q=0, *;q=0"), Err(NotAcceptable));
        assert_eq!(of("gzip, identity;q=0"), Ok(Encoding::Gzip));
    }

    proptest! {
        #[test]
        fn what_is_excluded_is_never_chosen(gzip in 0u8..=10, identity in 0u8..=10) {
            let header = format!("gzip;q={:.1}, identity;q={:.1}", f32::from(gzip) / 10.0, f32::from(identity) / 10.0);
            match of(&header) {
                Ok(Encoding::Gzip) => prop_assert!(gzip > 0 && gzip >= identity),
                Ok(Encoding::Identity) => prop_assert!(identity > gzip),
                Err(NotAcceptable) => prop_assert!(gzip == 0 && identity == 0),
            }
        }

        #[test]
        fn no_header_breaks_it(header in "[a-z*;,=q0-9. ]{0,40}") {
            prop_assert!(matches!(of(&header), Ok(_) | Err(NotAcceptable)));
        }
    }
}
