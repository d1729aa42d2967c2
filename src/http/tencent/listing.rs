//! Lists by offset, with filters by name.

use ags_client::types::Filter;

use crate::error::{Error, FieldError, Result};

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: u32,
    pub limit: u32,
}

impl Span {
    /// # Errors
    /// `validation_failed` outside of 0 and more, and 1 to 100.
    pub fn of(offset: Option<i64>, limit: Option<i64>) -> Result<Self> {
        let offset = u32::try_from(offset.unwrap_or_default())
            .map_err(|_| Error::field("Offset", "must be 0 or more, and below 2^32"))?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        match u32::try_from(limit) {
            Ok(limit) if (1..=MAX_LIMIT).contains(&i64::from(limit)) => Ok(Self { offset, limit }),
            _ => Err(Error::field("Limit", format!("must lie between 1 and {MAX_LIMIT}"))),
        }
    }

    /// That part of what is there as a whole.
    pub fn part<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.offset as usize).take(self.limit as usize).collect()
    }
}

/// The ids that a request names.
///
/// # Errors
/// `validation_failed` for more than a page of them.
pub fn at_most_a_page(field: &'static str, ids: Option<Vec<String>>) -> Result<Vec<String>> {
    let ids = ids.unwrap_or_default();
    if i64::try_from(ids.len()).is_ok_and(|count| count <= MAX_LIMIT) {
        return Ok(ids);
    }
    Err(Error::field(field, format!("may have up to {MAX_LIMIT} entries")))
}

/// The values of each known filter, in the order of `known`; an empty list stands for all.
///
/// # Errors
/// `validation_failed` for an unknown one, or one without values.
pub fn filters<const N: usize>(given: Option<Vec<Filter>>, known: [&str; N]) -> Result<[Vec<String>; N]> {
    let mut values = [const { Vec::new() }; N];
    for (index, filter) in given.into_iter().flatten().enumerate() {
        let place = known.iter().position(|name| *name == filter.name);
        match place {
            Some(place) if !filter.values.is_empty() => values[place].extend(filter.values),
            Some(_) => return Err(Error::field(format!("Filters[{index}].Values"), "must not be empty")),
            None => {
                let message = format!("must be one of {}", known.join(", "));
                return Err(Error::fields(vec![FieldError { field: format!("Filters[{index}].Name"), message }]));
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_within_its_bounds() {
        assert_eq!(Span::of(None, None).unwrap(), Span { offset: 0, limit: 20 });
        assert_eq!(Span::of(Some(2), Some(2)).unwrap().part(vec![0, 1, 2, 3, 4]), [2, 3]);
        assert!(Span::of(Some(9), Some(2)).unwrap().part(vec![0, 1]).is_empty());
        for (offset, limit) in [(-1, 1), (0, 0), (0, 101), (0, -5), (1 << 40, 1)] {
            assert!(Span::of(Some(offset), Some(limit)).is_err(), "{offset} {limit}");
        }
    }

    #[test]
    fn filters_go_to_their_places() {
        let filter = |name: &str, values: &[&str]| Filter {
            name: name.into(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        let given = vec![filter("Status", &["RUNNING"]), filter("ToolName", &["a", "b"])];
        let [names, statuses] = filters(Some(given), ["ToolName", "Status"]).unwrap();
        assert_eq!((names, statuses), (vec!["a".to_owned(), "b".into()], vec!["RUNNING".to_owned()]));
        assert!(filters(Some(vec![filter("Status", &[])]), ["Status"]).is_err());
        assert!(filters(Some(vec![filter("Colour", &["red"])]), ["Status"]).is_err());
    }
}
