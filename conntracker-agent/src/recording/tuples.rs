//! Tuples in a block of events: each is stated once, and referred to by how many tuples ago that was.
//!
//! A tuple that is another one turned round, the reply of a flow say, is stated as the differences to that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use super::{
    column::Malformed,
    columns::{ReadColumns, WriteColumns, column},
};
use crate::model::{L4, Tuple};

/// Form of a tuple that is stated in full. Higher forms are 1 and the differences below.
const WHOLE: u8 = 0;

/// What differs from the other tuple turned round.
mod differs {
    pub const SRC: u8 = 1;
    pub const DST: u8 = 2;
    pub const FIRST: u8 = 4;
    pub const SECOND: u8 = 8;
}

/// Kinds of [`L4`].
mod kind {
    pub const NONE: u8 = 0;
    pub const PORTS: u8 = 1;
    pub const ICMP: u8 = 2;
    pub const GRE: u8 = 3;
}

/// What a block has stated by now.
#[derive(Debug, Default)]
pub(super) struct TupleWriter {
    tuples: HashMap<Tuple, u64>,
    addresses: HashMap<IpAddr, u64>,
}

impl TupleWriter {
    /// A tuple, which may be much like `like` turned round.
    pub fn write(&mut self, out: &mut WriteColumns, tuple: &Tuple, like: Option<&Tuple>) {
        let count = self.tuples.len() as u64;
        let number = *self.tuples.entry(*tuple).or_insert(count);
        if number < count {
            out.to(column::TUPLE).number(count - number);
            return;
        }
        out.to(column::TUPLE).number(0);
        let like = like.and_then(|like| like.inverted()).filter(|like| is_near(tuple, like));
        let Some(like) = like else {
            out.to(column::FORM).byte(WHOLE);
            let (kind, first, second) = parts(tuple.l4);
            out.to(column::L4).byte(kind);
            out.to(column::PROTO).byte(tuple.proto);
            self.address(out, column::SRC, tuple.src);
            self.address(out, column::DST, tuple.dst);
            if let L4::Icmp { kind, code, .. } = tuple.l4 {
                out.to(column::ICMP_TYPE).byte(kind);
                out.to(column::ICMP_CODE).byte(code);
            }
            if kind != kind::NONE {
                out.halves(column::FIRST, first);
            }
            if matches!(kind, kind::PORTS | kind::GRE) {
                out.halves(column::SECOND, second);
            }
            return;
        };
        let (_, first, second) = parts(tuple.l4);
        let (_, like_first, like_second) = parts(like.l4);
        let bit = |differ: bool, bit: u8| if differ { bit } else { 0 };
        let differences = bit(tuple.src != like.src, differs::SRC)
            | bit(tuple.dst != like.dst, differs::DST)
            | bit(first != like_first, differs::FIRST)
            | bit(second != like_second, differs::SECOND);
        out.to(column::FORM).byte(differences + 1);
        if differences & differs::SRC != 0 {
            self.address(out, column::OTHER_SRC, tuple.src);
        }
        if differences & differs::DST != 0 {
            self.address(out, column::OTHER_DST, tuple.dst);
        }
        if differences & differs::FIRST != 0 {
            out.halves(column::FIRST, first);
        }
        if differences & differs::SECOND != 0 {
            out.halves(column::SECOND, second);
        }
    }

    fn address(&mut self, out: &mut WriteColumns, column: u16, address: IpAddr) {
        let count = self.addresses.len() as u64;
        let number = *self.addresses.entry(address).or_insert(count);
        if number < count {
            out.to(column).number(number + 1);
            return;
        }
        out.to(column).number(0);
        match address {
            IpAddr::V4(address) => {
                out.to(column::FAMILY).byte(4);
                for (n, byte) in address.octets().into_iter().enumerate() {
                    out.to(column::IPV4 + n as u16).byte(byte);
                }
            }
            IpAddr::V6(address) => {
                out.to(column::FAMILY).byte(6);
                out.to(column::IPV6).bytes(&address.octets());
            }
        }
    }

    /// The next block states them again.
    pub fn clear(&mut self) {
        self.tuples.clear();
        self.addresses.clear();
    }
}

/// What a block has stated by now, for a reader.
#[derive(Debug, Default)]
pub(super) struct TupleReader {
    tuples: Vec<Tuple>,
    addresses: Vec<IpAddr>,
}

impl TupleReader {
    pub fn read(
        &mut self,
        from: &mut ReadColumns,
        like: Option<&Tuple>,
    ) -> Result<Tuple, Malformed> {
        let ago: usize = from.of(column::TUPLE).small()?;
        if ago > 0 {
            let number = self.tuples.len().checked_sub(ago).ok_or(Malformed)?;
            return Ok(self.tuples[number]);
        }
        let tuple = match from.of(column::FORM).byte()? {
            WHOLE => self.whole(from)?,
            form => {
                let like = like.and_then(|like| like.inverted()).ok_or(Malformed)?;
                self.differing(from, like, form - 1)?
            }
        };
        self.tuples.push(tuple);
        Ok(tuple)
    }

    fn whole(&mut self, from: &mut ReadColumns) -> Result<Tuple, Malformed> {
        let of = from.of(column::L4).byte()?;
        let proto = from.of(column::PROTO).byte()?;
        let src = self.address(from, column::SRC)?;
        let dst = self.address(from, column::DST)?;
        let l4 = match of {
            kind::NONE => L4::None,
            kind::ICMP => L4::Icmp {
                kind: from.of(column::ICMP_TYPE).byte()?,
                code: from.of(column::ICMP_CODE).byte()?,
                id: from.halves(column::FIRST)?,
            },
            kind::PORTS | kind::GRE => {
                let (src, dst) = (from.halves(column::FIRST)?, from.halves(column::SECOND)?);
                if of == kind::GRE { L4::Gre { src, dst } } else { L4::Ports { src, dst } }
            }
            _ => return Err(Malformed),
        };
        Ok(Tuple { src, dst, proto, l4 })
    }

    fn differing(
        &mut self,
        from: &mut ReadColumns,
        mut tuple: Tuple,
        differences: u8,
    ) -> Result<Tuple, Malformed> {
        if differences & differs::SRC != 0 {
            tuple.src = self.address(from, column::OTHER_SRC)?;
        }
        if differences & differs::DST != 0 {
            tuple.dst = self.address(from, column::OTHER_DST)?;
        }
        if differences & differs::FIRST != 0 {
            let first = from.halves(column::FIRST)?;
            match &mut tuple.l4 {
                L4::Ports { src, .. } | L4::Gre { src, .. } => *src = first,
                L4::Icmp { id, .. } => *id = first,
                L4::None => return Err(Malformed),
            }
        }
        if differences & differs::SECOND != 0 {
            let second = from.halves(column::SECOND)?;
            match &mut tuple.l4 {
                L4::Ports { dst, .. } | L4::Gre { dst, .. } => *dst = second,
                L4::Icmp { .. } | L4::None => return Err(Malformed),
            }
        }
        Ok(tuple)
    }

    fn address(&mut self, from: &mut ReadColumns, column: u16) -> Result<IpAddr, Malformed> {
        let number: usize = from.of(column).small()?;
        if let Some(number) = number.checked_sub(1) {
            return self.addresses.get(number).copied().ok_or(Malformed);
        }
        let address = match from.of(column::FAMILY).byte()? {
            4 => {
                let mut octets = [0; 4];
                for (n, octet) in octets.iter_mut().enumerate() {
                    *octet = from.of(column::IPV4 + n as u16).byte()?;
                }
                IpAddr::V4(Ipv4Addr::from(octets))
            }
            6 => IpAddr::V6(Ipv6Addr::from(from.of(column::IPV6).bytes::<16>()?)),
            _ => return Err(Malformed),
        };
        self.addresses.push(address);
        Ok(address)
    }
}

/// Whether the differences between two tuples can be stated.
fn is_near(tuple: &Tuple, like: &Tuple) -> bool {
    let same = match (tuple.l4, like.l4) {
        (L4::Ports { .. }, L4::Ports { .. })
        | (L4::Gre { .. }, L4::Gre { .. })
        | (L4::None, L4::None) => true,
        (L4::Icmp { kind, code, .. }, L4::Icmp { kind: like_kind, code: like_code, .. }) => {
            (kind, code) == (like_kind, like_code)
        }
        _ => false,
    };
    same && tuple.proto == like.proto
}

/// Kind, and the two numbers.
fn parts(l4: L4) -> (u8, u16, u16) {
    match l4 {
        L4::None => (kind::NONE, 0, 0),
        L4::Ports { src, dst } => (kind::PORTS, src, dst),
        L4::Icmp { id, .. } => (kind::ICMP, id, 0),
        L4::Gre { src, dst } => (kind::GRE, src, dst),
    }
}
