//! Whether regions together cover another one.

use super::{field::Fields, region::Region, values::Values};

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// These regions cover it together, by their indices.
    Whole(Vec<usize>),
    /// No region has anything of this part.
    Open(Region),
    /// The budget was used up before.
    Unknown,
}

/// Looks for a part of a region that none of the others has. `budget` counts comparisons of two regions.
pub fn cover(region: &Region, by: &[&Region], fields: &Fields, budget: &mut usize) -> Cover {
    match search(region, by, fields, budget) {
        Cover::Whole(used) => Cover::Whole(needed(region, by, used, fields, budget)),
        other => other,
    }
}

/// Those that have something of a region that they cover, or what none has.
fn search(region: &Region, by: &[&Region], fields: &Fields, budget: &mut usize) -> Cover {
    let mut used = Vec::new();
    let mut parts = vec![(region.clone(), 0)];
    while let Some((mut part, first)) = parts.pop() {
        let mut covered = false;
        for (index, other) in by.iter().enumerate().skip(first) {
            let Some(left) = budget.checked_sub(1) else { return Cover::Unknown };
            *budget = left;
            if !other.meets(&part) {
                continue;
            }
            if !used.contains(&index) {
                used.push(index);
            }
            // What is outside of it in one field is a part of its own; the rest goes on to the next field.
            for (field, values) in other.fields() {
                if let Some(outside) = part.outside(*field, values, fields) {
                    parts.push((outside, index + 1));
                    let Some(inside) = part.narrowed(*field, values) else { break };
                    part = inside;
                }
            }
            covered = true;
            break;
        }
        if !covered {
            return Cover::Open(part);
        }
    }
    used.sort_unstable();
    Cover::Whole(used)
}

/// Those without which the others do not cover a region.
fn needed(
    region: &Region,
    by: &[&Region],
    mut used: Vec<usize>,
    fields: &Fields,
    budget: &mut usize,
) -> Vec<usize> {
    let mut at = 0;
    while at < used.len() && used.len() > 1 {
        let one = used.remove(at);
        let others: Vec<&Region> = used.iter().map(|index| by[*index]).collect();
        if !matches!(search(region, &others, fields, budget), Cover::Whole(_)) {
            used.insert(at, one);
            at += 1;
        }
    }
    used
}

/// A part of a region that none of the others has, where values of single fields suffice to leave each of them. Much
/// faster than [`cover`] where there are many; `None` proves nothing.
#[must_use]
pub fn open_part(region: &Region, by: &[&Region], fields: &Fields) -> Option<Region> {
    let mut part = region.clone();
    let mut left: Vec<&Region> = by.iter().copied().filter(|other| other.meets(&part)).collect();
    while let Some(first) = left.first() {
        // A value of one of its fields that no other has either.
        let free = first.fields().iter().find_map(|(field, _)| {
            let mut ranges = Vec::new();
            let mut absent = false;
            for values in left.iter().filter_map(|other| other.get(*field)) {
                ranges.extend_from_slice(values.ranges());
                absent |= values.has_absent();
            }
            let taken = Values::of(ranges);
            let taken = if absent { taken.or_absent() } else { taken };
            Some((*field, part.outside(*field, &taken, fields)?))
        });
        let (field, free) = free?;
        part = free;
        left.retain(|other| other.get(field).is_none());
    }
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        firewall::analyse::field::Source, model::table::Family, netlink::nftables::key::meta,
    };

    /// Values 0 to 3 of three fields that every packet has.
    fn fields() -> Fields {
        let mut fields = Fields::new(Family::Ip);
        for source in
            [Source::Meta(meta::MARK), Source::address(false, false), Source::address(true, false)]
        {
            let field = fields.load(source);
            fields.number(field);
        }
        fields
    }

    fn region(bounds: &[(u32, u128, u128)]) -> Region {
        bounds.iter().fold(Region::ALL, |region, (field, first, last)| {
            region.narrowed(*field, &Values::range(*first, *last)).unwrap_or(region)
        })
    }

    fn has(region: &Region, packet: [u128; 3]) -> bool {
        region.fields().iter().all(|(field, values)| values.has(packet[*field as usize]))
    }

    proptest! {
        #[test]
        fn what_is_covered_and_what_is_open_is_so_for_every_packet(
            own in proptest::collection::vec((0_u32..3, 0_u128..4, 0_u128..4), 0..3),
            others in proptest::collection::vec(
                proptest::collection::vec((0_u32..3, 0_u128..4, 0_u128..4), 0..3), 0..7),
        ) {
            let fields = fields();
            let bound = [(0, 0, 3), (1, 0, 3), (2, 0, 3)];
            let region_of = |bounds: &[(u32, u128, u128)]| region(&[&bound[..], bounds].concat());
            let (own, others): (Region, Vec<Region>) =
                (region_of(&own), others.iter().map(|bounds| region(bounds)).collect());
            let by: Vec<&Region> = others.iter().collect();
            let packets = (0..64).map(|n: u128| [n & 3, n >> 2 & 3, n >> 4]);
            let free: Vec<_> = packets
                .filter(|packet| has(&own, *packet) && !others.iter().any(|of| has(of, *packet)))
                .collect();
            match cover(&own, &by, &fields, &mut 100_000) {
                Cover::Whole(used) => {
                    prop_assert!(free.is_empty());
                    let used: Vec<&Region> = used.iter().map(|index| by[*index]).collect();
                    let again = cover(&own, &used, &fields, &mut 100_000);
                    prop_assert!(matches!(again, Cover::Whole(_)));
                }
                Cover::Open(part) => prop_assert!(free.iter().any(|packet| has(&part, *packet))),
                Cover::Unknown => prop_assert!(false),
            }
            if let Some(part) = open_part(&own, &by, &fields) {
                prop_assert!(free.iter().any(|packet| has(&part, *packet)));
            }
        }
    }

    #[test]
    fn a_budget_that_is_used_up_proves_nothing() {
        let all = region(&[]);
        let half = region(&[(0, 0, 7)]);
        assert_eq!(cover(&all, &[&half], &fields(), &mut 0), Cover::Unknown);
    }
}
