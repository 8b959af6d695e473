//! Packets whose fields have certain values, each field by itself.

use super::{
    field::{FieldNumber, Fields},
    values::Values,
};

/// All packets whose fields are as said; a field that is not named may have any value, or be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Region(Vec<(FieldNumber, Values)>);

impl Region {
    /// All packets.
    pub const ALL: Self = Self(Vec::new());

    /// The fields that are named, by number, with their values.
    #[must_use]
    pub fn fields(&self) -> &[(FieldNumber, Values)] {
        &self.0
    }

    /// The values of a field, if it is named.
    #[must_use]
    pub fn get(&self, field: FieldNumber) -> Option<&Values> {
        let at = self.0.binary_search_by_key(&field, |(number, _)| *number).ok()?;
        Some(&self.0[at].1)
    }

    /// Those in which a field has these values; `None`: there are none.
    #[must_use]
    pub fn narrowed(&self, field: FieldNumber, values: &Values) -> Option<Self> {
        let mut narrowed = self.clone();
        match self.0.binary_search_by_key(&field, |(number, _)| *number) {
            Ok(at) => {
                let both = narrowed.0[at].1.intersection(values);
                if both.is_empty() {
                    return None;
                }
                narrowed.0[at].1 = both;
            }
            Err(at) if !values.is_empty() => narrowed.0.insert(at, (field, values.clone())),
            Err(_) => return None,
        }
        Some(narrowed)
    }

    /// Those in which a field does not have these values; `None`: there are none.
    #[must_use]
    pub fn outside(&self, field: FieldNumber, values: &Values, fields: &Fields) -> Option<Self> {
        let rest = self.get(field).unwrap_or(fields.all(field)).without(values);
        let mut outside = self.clone();
        match self.0.binary_search_by_key(&field, |(number, _)| *number) {
            _ if rest.is_empty() => return None,
            Ok(at) => outside.0[at].1 = rest,
            Err(at) => outside.0.insert(at, (field, rest)),
        }
        Some(outside)
    }

    /// What both have; `None`: nothing.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        for (field, values) in &other.0 {
            both = both.narrowed(*field, values)?;
        }
        Some(both)
    }

    /// Whether they may have something in common.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        other.0.iter().all(|(field, values)| self.get(*field).is_none_or(|own| own.meets(values)))
    }

    /// Whether all packets of `other` are among these.
    #[must_use]
    pub fn contains(&self, other: &Self, fields: &Fields) -> bool {
        self.0
            .iter()
            .all(|(field, values)| values.contains(other.get(*field).unwrap_or(fields.all(*field))))
    }
}
