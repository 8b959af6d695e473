//! The attributes of each expression, by the numbers that include/uapi/linux/netfilter/nf_tables.h gives them.

use super::{
    super::{
        super::wire::DecodeError,
        data::{Data, data as value_or_verdict},
        fields::Fields,
        key::bitwise,
    },
    Destination, Expression, NatRegisters, Register, Slice,
};

/// An expression; `None` if it is a new one, or lacks what it needs.
pub(super) fn expression(
    name: &str,
    data: &Fields<'_>,
    depth: u8,
) -> Result<Option<Expression>, DecodeError> {
    Ok(match name {
        "immediate" => immediate(data)?,
        "cmp" => cmp(data)?,
        "range" => range(data)?,
        "bitwise" => bitwise(data)?,
        "dynset" => dynset(data, depth)?,
        "inner" => inner(data, depth)?,
        "notrack" => Some(Expression::Notrack),
        "last" => Some(Expression::Last),
        "payload" => payload(data),
        "meta" => meta(data),
        "ct" => ct(data),
        "exthdr" => exthdr(data),
        "lookup" => lookup(data),
        "objref" => objref(data),
        _ => loads(name, data).or_else(|| acts(name, data)),
    })
}

/// Expressions that load into a register.
fn loads(name: &str, data: &Fields<'_>) -> Option<Expression> {
    Some(match name {
        "byteorder" => Expression::Byteorder {
            from: register(data, 1)?,
            to: register(data, 2)?,
            op: data.be32(3)?,
            len: data.be32(4)?,
            size: data.be32(5)?,
        },
        "numgen" => Expression::Numgen {
            to: register(data, 1)?,
            modulus: data.be32(2)?,
            kind: data.be32(3)?,
            offset: data.be32(4).unwrap_or_default(),
        },
        "hash" => Expression::Hash {
            from: register(data, 1),
            to: register(data, 2)?,
            len: data.be32(3).unwrap_or_default(),
            modulus: data.be32(4)?,
            seed: data.be32(5),
            offset: data.be32(6).unwrap_or_default(),
            kind: data.be32(7).unwrap_or_default(),
        },
        "fib" => Expression::Fib {
            to: register(data, 1)?,
            result: data.be32(2)?,
            flags: data.be32(3).unwrap_or_default(),
        },
        "rt" => Expression::Rt { to: register(data, 1)?, key: data.be32(2)? },
        "socket" => Expression::Socket {
            key: data.be32(1)?,
            to: register(data, 2)?,
            level: data.be32(3).unwrap_or_default(),
        },
        "osf" => Expression::Osf {
            to: register(data, 1)?,
            ttl: data.u8(2).unwrap_or_default(),
            flags: data.be32(3).unwrap_or_default(),
        },
        "xfrm" => Expression::Xfrm {
            to: register(data, 1)?,
            key: data.be32(2)?,
            direction: data.u8(3)?,
            number: data.be32(4).unwrap_or_default(),
        },
        "tunnel" => Expression::Tunnel {
            key: data.be32(1)?,
            to: register(data, 2)?,
            mode: data.be32(3).unwrap_or_default(),
        },
        _ => return None,
    })
}

/// Expressions that count, limit, change or decide.
fn acts(name: &str, data: &Fields<'_>) -> Option<Expression> {
    let flags = |kind| data.be32(kind).unwrap_or_default();
    Some(match name {
        "counter" => Expression::Counter {
            bytes: data.be64(1).unwrap_or_default(),
            packets: data.be64(2).unwrap_or_default(),
        },
        "limit" => Expression::Limit {
            rate: data.be64(1)?,
            unit: data.be64(2)?,
            burst: data.be32(3).unwrap_or_default(),
            of_bytes: data.be32(4) == Some(1),
            flags: flags(5),
        },
        "quota" => Expression::Quota {
            bytes: data.be64(1)?,
            flags: flags(2),
            consumed: data.be64(4).unwrap_or_default(),
        },
        "connlimit" => Expression::Connlimit { count: data.be32(1)?, flags: flags(2) },
        "nat" => Expression::Nat {
            kind: data.be32(1)?,
            family: data.be32(2)?,
            registers: NatRegisters {
                addresses: [register(data, 3), register(data, 4)],
                ports: [register(data, 5), register(data, 6)],
            },
            flags: flags(7),
        },
        "masq" => Expression::Masq {
            flags: flags(1),
            registers: NatRegisters {
                ports: [register(data, 2), register(data, 3)],
                ..NatRegisters::default()
            },
        },
        "redir" => Expression::Redir {
            registers: NatRegisters {
                ports: [register(data, 1), register(data, 2)],
                ..NatRegisters::default()
            },
            flags: flags(3),
        },
        "tproxy" => Expression::Tproxy {
            family: data.be32(1)?,
            address: register(data, 2),
            port: register(data, 3),
        },
        "reject" => {
            Expression::Reject { kind: data.be32(1)?, code: data.u8(2).unwrap_or_default() }
        }
        "log" => Expression::Log {
            group: data.be16(1),
            prefix: data.text(2),
            snaplen: data.be32(3),
            qthreshold: data.be16(4),
            level: data.be32(5),
            flags: data.be32(6),
        },
        "queue" => Expression::Queue {
            number: data.be16(1).unwrap_or_default(),
            total: data.be16(2).unwrap_or_default(),
            flags: data.be16(3).unwrap_or_default(),
            from: register(data, 4),
        },
        "dup" => Expression::Dup { address: register(data, 1), device: register(data, 2) },
        "fwd" => Expression::Fwd {
            device: register(data, 1),
            address: register(data, 2),
            family: flags(3),
        },
        "synproxy" => Expression::Synproxy {
            mss: data.be16(1).unwrap_or_default(),
            wscale: data.u8(2).unwrap_or_default(),
            flags: flags(3),
        },
        "flow_offload" => Expression::FlowOffload { flowtable: data.text(1)? },
        "match" => {
            Expression::Match { name: data.text(1)?, revision: data.be32(2)?, info: data.bytes(3)? }
        }
        "target" => Expression::Target {
            name: data.text(1)?,
            revision: data.be32(2)?,
            info: data.bytes(3)?,
        },
        _ => return None,
    })
}

fn register(data: &Fields<'_>, kind: u16) -> Option<Register> {
    Register::numbered(data.be32(kind)?)
}

/// A value in NFTA_DATA_VALUE.
fn value(data: &Fields<'_>, kind: u16) -> Result<Option<Vec<u8>>, DecodeError> {
    Ok(data.nested(kind)?.and_then(|data| data.bytes(1)))
}

fn immediate(data: &Fields<'_>) -> Result<Option<Expression>, DecodeError> {
    Ok(match data.get(2).map(value_or_verdict).transpose()?.flatten() {
        Some(Data::Verdict(verdict)) => Some(Expression::Verdict(verdict)),
        Some(Data::Value(value)) => register(data, 1).map(|to| Expression::Immediate { to, value }),
        None => None,
    })
}

fn cmp(data: &Fields<'_>) -> Result<Option<Expression>, DecodeError> {
    let value = value(data, 3)?;
    let cmp =
        || Some(Expression::Cmp { from: register(data, 1)?, op: data.be32(2)?, value: value? });
    Ok(cmp())
}

fn range(data: &Fields<'_>) -> Result<Option<Expression>, DecodeError> {
    let (low, high) = (value(data, 3)?, value(data, 4)?);
    let range = || {
        let (from, op) = (register(data, 1)?, data.be32(2)?);
        Some(Expression::Range { op, from, low: low?, high: high? })
    };
    Ok(range())
}

fn bitwise(data: &Fields<'_>) -> Result<Option<Expression>, DecodeError> {
    let (mask, xor, operand) = (value(data, 4)?, value(data, 5)?, value(data, 7)?);
    let bitwise = || {
        let (from, to, len) = (register(data, 1)?, register(data, 2)?, data.be32(3)?);
        Some(match data.be32(6).unwrap_or(bitwise::MASK_XOR) {
            bitwise::MASK_XOR => Expression::Mask { from, to, mask: mask?, xor: xor? },
            op @ (bitwise::LSHIFT | bitwise::RSHIFT) => {
                let bits = u32::from_ne_bytes(operand?.try_into().ok()?);
                Expression::Shift { op, from, to, len, bits }
            }
            op @ (bitwise::AND | bitwise::OR | bitwise::XOR) => {
                let (other, value) = (register(data, 8), operand.unwrap_or_default());
                Expression::Bitwise { op, from, other, value, to, len }
            }
            _ => return None,
        })
    };
    Ok(bitwise())
}

fn payload(data: &Fields<'_>) -> Option<Expression> {
    let slice = Slice { base: data.be32(2)?, offset: data.be32(3)?, len: data.be32(4)? };
    if let Some(to) = register(data, 1) {
        return Some(Expression::Payload { slice, to });
    }
    Some(Expression::PayloadSet {
        slice,
        from: register(data, 5)?,
        csum_type: data.be32(6).unwrap_or_default(),
        csum_offset: data.be32(7).unwrap_or_default(),
        csum_flags: data.be32(8).unwrap_or_default(),
    })
}

fn meta(data: &Fields<'_>) -> Option<Expression> {
    let key = data.be32(2)?;
    Some(match register(data, 1) {
        Some(to) => Expression::Meta { key, to },
        None => Expression::MetaSet { key, from: register(data, 3)? },
    })
}

fn ct(data: &Fields<'_>) -> Option<Expression> {
    let (key, direction) = (data.be32(2)?, data.u8(3));
    Some(match register(data, 1) {
        Some(to) => Expression::Ct { key, direction, to },
        None => Expression::CtSet { key, direction, from: register(data, 4)? },
    })
}

fn exthdr(data: &Fields<'_>) -> Option<Expression> {
    let (op, kind) = (data.be32(6).unwrap_or_default(), data.u8(2)?);
    let (offset, len) = (data.be32(3).unwrap_or_default(), data.be32(4).unwrap_or_default());
    Some(match register(data, 1) {
        Some(to) => {
            let flags = data.be32(5).unwrap_or_default();
            Expression::Exthdr { op, kind, offset, len, flags, to }
        }
        None => Expression::ExthdrSet { op, kind, offset, len, from: register(data, 7) },
    })
}

fn lookup(data: &Fields<'_>) -> Option<Expression> {
    /// NFT_LOOKUP_F_INV.
    const INV: u32 = 1;
    let to = match data.be32(3) {
        None => None,
        Some(0) => Some(Destination::Verdict),
        Some(number) => Some(Destination::Register(Register::numbered(number)?)),
    };
    let invert = data.be32(5).unwrap_or_default() & INV != 0;
    Some(Expression::Lookup { set: data.text(1)?, from: register(data, 2)?, to, invert })
}

fn objref(data: &Fields<'_>) -> Option<Expression> {
    match data.text(4) {
        Some(set) => Some(Expression::ObjectMap { set, from: register(data, 3)? }),
        None => Some(Expression::ObjectRef { kind: data.be32(1)?, name: data.text(2)? }),
    }
}

fn dynset(data: &Fields<'_>, depth: u8) -> Result<Option<Expression>, DecodeError> {
    /// NFT_DYNSET_F_INV.
    const INV: u32 = 1;
    let attributes = data.get(7).into_iter().map(Ok).chain(data.list(10));
    let expressions = attributes
        .map(|attribute| Expression::within(attribute?, depth))
        .collect::<Result<Vec<_>, _>>()?;
    let dynset = || {
        Some(Expression::Dynset {
            set: data.text(1)?,
            op: data.be32(3)?,
            key: register(data, 4),
            data: register(data, 5),
            timeout: data.be64(6).unwrap_or_default(),
            invert: data.be32(9).unwrap_or_default() & INV != 0,
            expressions,
        })
    };
    Ok(dynset())
}

fn inner(data: &Fields<'_>, depth: u8) -> Result<Option<Expression>, DecodeError> {
    let Some(attribute) = data.get(5) else { return Ok(None) };
    let expression = Box::new(Expression::within(attribute, depth)?);
    let inner = || {
        Some(Expression::Inner {
            kind: data.be32(2)?,
            flags: data.be32(3).unwrap_or_default(),
            header_len: data.be32(4).unwrap_or_default(),
            expression,
        })
    };
    Ok(inner())
}
