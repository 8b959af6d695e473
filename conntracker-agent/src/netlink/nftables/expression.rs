//! The expressions of rules: what the kernel evaluates one after the other, until one of them ends the rule.
//!
//! Numbers that choose what an expression does are those of [`super::key`]. An expression that is new, or whose
//! attributes make no sense, is [`Expression::Unknown`].

mod decode;

use super::{
    super::wire::{Attribute, Attributes, DecodeError},
    data::Verdict,
    fields::Fields,
};

/// Expressions inside of expressions (of `dynset`, `inner`) are followed so deep. The kernel has them one deep.
const DEPTH: u8 = 2;

/// Bytes of all registers.
pub const REGISTER_BYTES: usize = 64;

/// A register by the offset of its first byte, below [`REGISTER_BYTES`] and a multiple of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(u8);

impl Register {
    /// By its number in netlink (`enum nft_registers`): 1 to 4 have 16 bytes each, 8 to 23 have 4.
    #[must_use]
    pub fn numbered(number: u32) -> Option<Self> {
        match number {
            1..=4 => Some(Self((number as u8 - 1) * 16)),
            8..=23 => Some(Self((number as u8 - 8) * 4)),
            _ => None,
        }
    }

    /// The number that the kernel gives it (`nft_dump_register`).
    #[must_use]
    pub fn number(self) -> u32 {
        if self.0.is_multiple_of(16) {
            u32::from(self.0) / 16 + 1
        } else {
            u32::from(self.0) / 4 + 8
        }
    }

    /// Offset of its first byte.
    #[must_use]
    pub fn offset(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a lookup writes what an element maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The verdict of the rule.
    Verdict,
    /// A register.
    Register(Register),
}

/// Bytes of a packet: `base` says from where `offset` counts ([`super::key::base`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Header.
    pub base: u32,
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

/// Registers with the first and the last address and port of NAT; a last one that is not there equals the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatRegisters {
    /// Addresses.
    pub addresses: [Option<Register>; 2],
    /// Ports.
    pub ports: [Option<Register>; 2],
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the attributes of the kernel's header")]
pub enum Expression {
    /// Loads bytes of the packet.
    Payload { slice: Slice, to: Register },
    /// Changes bytes of the packet.
    PayloadSet { slice: Slice, from: Register, csum_type: u32, csum_offset: u32, csum_flags: u32 },
    /// Loads metadata of the packet.
    Meta { key: u32, to: Register },
    /// Changes metadata of the packet.
    MetaSet { key: u32, from: Register },
    /// Loads from the conntrack entry; of one direction, where that matters.
    Ct { key: u32, direction: Option<u8>, to: Register },
    /// Changes the conntrack entry.
    CtSet { key: u32, direction: Option<u8>, from: Register },
    /// Ends the rule unless a register compares so with a value.
    Cmp { op: u32, from: Register, value: Vec<u8> },
    /// Ends the rule unless a register is within, or outside (`op` 1), of a range.
    Range { op: u32, from: Register, low: Vec<u8>, high: Vec<u8> },
    /// `(from & mask) ^ xor`.
    Mask { from: Register, to: Register, mask: Vec<u8>, xor: Vec<u8> },
    /// Shifts to the left (`op` 1) or to the right (`op` 2).
    Shift { op: u32, from: Register, to: Register, len: u32, bits: u32 },
    /// AND, OR or XOR (`op` 3, 4, 5) of two registers, or of a register and a value.
    Bitwise {
        op: u32,
        from: Register,
        other: Option<Register>,
        value: Vec<u8>,
        to: Register,
        len: u32,
    },
    /// Network to host byte order (`op` 0) or back (1), in units of `size` bytes.
    Byteorder { op: u32, from: Register, to: Register, len: u32, size: u32 },
    /// Looks a key up; ends the rule if it is not there, or with `invert` if it is.
    Lookup { set: String, from: Register, to: Option<Destination>, invert: bool },
    /// Sets the verdict.
    Verdict(Verdict),
    /// Loads a value.
    Immediate { to: Register, value: Vec<u8> },
    /// Counts.
    Counter { packets: u64, bytes: u64 },
    /// Ends the rule above a rate, or with flag 1 below it.
    Limit { rate: u64, unit: u64, burst: u32, of_bytes: bool, flags: u32 },
    /// Ends the rule above a number of bytes, or with flag 1 below it.
    Quota { bytes: u64, consumed: u64, flags: u32 },
    /// Ends the rule above a number of connections, or with flag 1 below it.
    Connlimit { count: u32, flags: u32 },
    /// Loads a number: of a counter (`kind` 0), or random (1).
    Numgen { to: Register, modulus: u32, kind: u32, offset: u32 },
    /// Loads a hash of a register (`kind` 0) or of the flow (1).
    Hash {
        from: Option<Register>,
        to: Register,
        len: u32,
        modulus: u32,
        seed: Option<u32>,
        offset: u32,
        kind: u32,
    },
    /// NAT to given addresses.
    Nat { kind: u32, family: u32, registers: NatRegisters, flags: u32 },
    /// NAT to the address of the interface of output.
    Masq { registers: NatRegisters, flags: u32 },
    /// NAT to this host.
    Redir { registers: NatRegisters, flags: u32 },
    /// Gives the packet to a local socket.
    Tproxy { family: u32, address: Option<Register>, port: Option<Register> },
    /// Drops and answers.
    Reject { kind: u32, code: u8 },
    /// Logs.
    Log {
        group: Option<u16>,
        prefix: Option<String>,
        snaplen: Option<u32>,
        qthreshold: Option<u16>,
        level: Option<u32>,
        flags: Option<u32>,
    },
    /// Keeps conntrack from tracking the packet.
    Notrack,
    /// Asks the routing tables.
    Fib { to: Register, result: u32, flags: u32 },
    /// Loads from the route of the packet.
    Rt { key: u32, to: Register },
    /// Loads from the socket of the packet.
    Socket { key: u32, level: u32, to: Register },
    /// Loads the operating system of the sender.
    Osf { to: Register, ttl: u8, flags: u32 },
    /// Loads from an extension header or an option, or only whether it is there (flag 1).
    Exthdr { op: u32, kind: u8, offset: u32, len: u32, flags: u32, to: Register },
    /// Changes an option of TCP, or without a register removes it.
    ExthdrSet { op: u32, kind: u8, offset: u32, len: u32, from: Option<Register> },
    /// Gives the packet to a program.
    Queue { number: u16, total: u16, flags: u16, from: Option<Register> },
    /// Sends a copy to another host.
    Dup { address: Option<Register>, device: Option<Register> },
    /// Sends the packet through another interface.
    Fwd { device: Option<Register>, address: Option<Register>, family: u32 },
    /// Adds (`op` 0), updates (1) or removes (2) an element of a set.
    Dynset {
        set: String,
        op: u32,
        key: Option<Register>,
        data: Option<Register>,
        timeout: u64,
        invert: bool,
        expressions: Vec<Expression>,
    },
    /// Uses an object: a counter, a limit, a helper, ….
    ObjectRef { kind: u32, name: String },
    /// Uses the object that a map has for a key.
    ObjectMap { set: String, from: Register },
    /// Answers in place of the server until the handshake is complete.
    Synproxy { mss: u16, wscale: u8, flags: u32 },
    /// Loads from the IPsec policy or state of the packet.
    Xfrm { key: u32, direction: u8, number: u32, to: Register },
    /// Loads from the metadata of a tunnel.
    Tunnel { key: u32, mode: u32, to: Register },
    /// Gives the flow to a flowtable.
    FlowOffload { flowtable: String },
    /// Notes when it was last evaluated.
    Last,
    /// Evaluates an expression on the packet inside of a tunnel.
    Inner { kind: u32, header_len: u32, flags: u32, expression: Box<Expression> },
    /// A match of iptables.
    Match { name: String, revision: u32, info: Vec<u8> },
    /// A target of iptables.
    Target { name: String, revision: u32, info: Vec<u8> },
    /// Any other, by its name.
    Unknown(String),
}

impl Expression {
    /// NFTA_EXPR_NAME and NFTA_EXPR_DATA.
    pub(super) fn decode(attribute: Attribute<'_>) -> Result<Self, DecodeError> {
        Self::within(attribute, DEPTH)
    }

    fn within(attribute: Attribute<'_>, depth: u8) -> Result<Self, DecodeError> {
        let fields = Fields::new(attribute.nested())?;
        let name = fields.text(1).ok_or(DecodeError::Missing("NFTA_EXPR_NAME"))?;
        let Some(depth) = depth.checked_sub(1) else { return Ok(Self::Unknown(name)) };
        // Some have no attributes.
        let data = fields.nested(2)?.unwrap_or(Fields::new(Attributes::new(&[]))?);
        Ok(decode::expression(&name, &data, depth)?.unwrap_or(Self::Unknown(name)))
    }
}

/// The expressions of a list.
pub(super) fn expressions<'a>(
    list: impl Iterator<Item = Result<Attribute<'a>, DecodeError>>,
) -> Result<Vec<Expression>, DecodeError> {
    list.map(|attribute| Expression::decode(attribute?)).collect()
}
