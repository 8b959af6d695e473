//! Finds regions that may have something in common with another one, without comparing all of them.

use std::collections::HashMap;

use super::{
    field::{FieldNumber, Fields},
    region::Region,
    values::Values,
};

/// Values of a field by which a region is found, at most.
const VALUES: usize = 16;

/// Regions in the order in which they were added, each with the number of a rule.
#[derive(Debug, Default)]
pub struct Index {
    regions: Vec<(usize, Region)>,
    /// By one field of each: regions by its values, and those that have many values of it.
    fields: HashMap<FieldNumber, (HashMap<u128, Vec<usize>>, Vec<usize>)>,
    /// Regions of all packets.
    everywhere: Vec<usize>,
}

impl Index {
    /// Adds a region of a rule.
    pub fn add(&mut self, rule: usize, region: Region, fields: &Fields) {
        let at = self.regions.len();
        // Long fields have the most different values.
        let few = |(_, values): &&(FieldNumber, Values)| {
            !values.has_absent()
                && values.ranges().len() <= VALUES
                && values.ranges().iter().all(|(first, last)| first == last)
        };
        let bits = |(field, _): &&(FieldNumber, Values)| fields.field(*field).bits();
        if let Some((field, values)) = region.fields().iter().filter(few).max_by_key(bits) {
            let (by_value, _) = self.fields.entry(*field).or_default();
            for (value, _) in values.ranges() {
                by_value.entry(*value).or_default().push(at);
            }
        } else if let Some((field, _)) = region.fields().iter().max_by_key(bits) {
            self.fields.entry(*field).or_default().1.push(at);
        } else {
            self.everywhere.push(at);
        }
        self.regions.push((rule, region));
    }

    /// A region and its rule.
    #[must_use]
    pub fn get(&self, at: usize) -> (usize, &Region) {
        let (rule, region) = &self.regions[at];
        (*rule, region)
    }

    /// The first region that has all of another one.
    #[must_use]
    pub fn containing(&self, region: &Region, fields: &Fields) -> Option<usize> {
        let named = region.fields().iter().filter_map(|(field, values)| {
            let (by_value, wide) = self.fields.get(field)?;
            let first = values.ranges().first()?.0;
            Some(by_value.get(&first).into_iter().flatten().chain(wide))
        });
        let candidates = named.flatten().chain(&self.everywhere);
        candidates.filter(|at| self.regions[**at].1.contains(region, fields)).min().copied()
    }

    /// The regions that may have something in common with another one, in order.
    #[must_use]
    pub fn meeting(&self, region: &Region) -> Vec<usize> {
        let mut found = self.everywhere.clone();
        for (field, (by_value, wide)) in &self.fields {
            found.extend(wide);
            match region.get(*field) {
                Some(values) if values.single().is_some() => {
                    let value = values.single().unwrap_or_default();
                    found.extend(by_value.get(&value).into_iter().flatten());
                }
                Some(values) => {
                    let met = by_value.iter().filter(|(value, _)| values.has(**value));
                    found.extend(met.flat_map(|(_, regions)| regions));
                }
                None => found.extend(by_value.values().flatten()),
            }
        }
        found.retain(|at| self.regions[*at].1.meets(region));
        found.sort_unstable();
        found.dedup();
        found
    }
}
