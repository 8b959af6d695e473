//! What the fuzzer calls: the walkers on memory that was damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use anyhow::Result;

use super::{
    hooks,
    image::{
        Image, NET, Offsets, XT_TABLE, hooks_memory, legacy_blob, legacy_memory, nft_memory,
        old_memory, symbols,
    },
    layout::IndexLayout,
    legacy,
    memory::{Gone, Memory, Reader},
    nft,
};

/// As the kernel lays out rules of nf_tables, now and before Linux 5.17, rules of ip_tables, and hooks.
static GOOD: LazyLock<[Image; 4]> = LazyLock::new(|| {
    let legacy = legacy_memory(&legacy_blob(), [0, 0, 176, 0, 0]);
    [nft_memory(), old_memory(), legacy, hooks_memory()]
});

/// Memory of which some is not as it was.
struct Damaged {
    good: &'static Image,
    damage: BTreeMap<u64, u8>,
}

impl Memory for Damaged {
    fn pieces(&mut self, pieces: &[(u64, u32)]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for &(address, len) in pieces {
            for at in 0..u64::from(len) {
                let at = address.checked_add(at).ok_or(Gone)?;
                bytes.push(*self.damage.get(&at).or_else(|| self.good.0.get(&at)).ok_or(Gone)?);
            }
        }
        Ok(bytes)
    }
}

/// Reads damaged memory: the first byte tells whose; what follows are two bytes of an address and the eight that
/// stand there, again and again.
///
/// # Errors
/// The memory is not understood.
pub fn walk(bytes: &[u8]) -> Result<()> {
    let Some((kind, damage)) = bytes.split_first() else { return Ok(()) };
    let good = &GOOD[usize::from(kind % 4)];
    let damage = damage.chunks(10).filter_map(|one| one.split_first_chunk::<2>());
    let damage = damage
        .flat_map(|(at, bytes)| (u64::from(u16::from_le_bytes(*at))..).zip(bytes.iter().copied()))
        .collect();
    let mut memory = Damaged { good, damage };
    let layout = IndexLayout::find(&Offsets { arrays: kind % 4 != 0 })?;
    let reader = &mut Reader::new(&mut memory);
    let (v4, tables) = (&layout.legacy[0], &layout.nf_tables);
    let (Ok(v4), Ok(tables)) = (v4, tables) else { return Ok(()) };
    match kind % 4 {
        0 | 1 => nft::read(reader, tables, NET, &BTreeSet::from([0x4000])).map(drop),
        2 => legacy::read(reader, v4, XT_TABLE, false, kind & 4 != 0).map(drop),
        _ => {
            hooks::read_known(reader, &layout, &symbols()?, NET)?;
            nft::generation(reader, tables, NET, Some(0x4000)).map(drop)
        }
    }
}
