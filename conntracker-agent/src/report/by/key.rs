//! What flows are grouped by, as the user says it.

use std::{fmt, str::FromStr};

/// What flows are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Source address of the original direction.
    Src,
    /// Destination address of the original direction.
    Dst,
    /// Destination port of the original direction, with the protocol.
    Dport,
    /// Protocol.
    Proto,
    /// Network namespace.
    Netns,
    /// Conntrack zone.
    Zone,
    /// Input interface of the first packet.
    Iif,
    /// Output interface of the first packet.
    Oif,
    /// Rules and policies that packets met.
    Rule,
    /// Why packets were dropped.
    Reason,
    /// Process at this machine's end.
    Process,
    /// Its user.
    User,
    /// The bits of the connmark that the mask has.
    Mark(u32),
}

/// A key that there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoKey(String);

/// The keys without a value.
const NAMES: [(&str, Key); 13] = [
    ("src", Key::Src),
    ("dst", Key::Dst),
    ("dport", Key::Dport),
    ("proto", Key::Proto),
    ("netns", Key::Netns),
    ("zone", Key::Zone),
    ("iif", Key::Iif),
    ("oif", Key::Oif),
    ("rule", Key::Rule),
    ("reason", Key::Reason),
    ("process", Key::Process),
    ("user", Key::User),
    ("mark", Key::Mark(u32::MAX)),
];

impl Key {
    /// Whether flows that fold into one line are in the same group. If not, flows must be kept one by one.
    #[must_use]
    pub fn folded_key_decides(self) -> bool {
        use Key::{
            Dport, Dst, Iif, Mark, Netns, Oif, Process, Proto, Reason, Rule, Src, User, Zone,
        };
        match self {
            Src | Dst | Dport | Proto | Netns | Zone => true,
            Iif | Oif | Rule | Reason | Process | User | Mark(_) => false,
        }
    }

    /// Whether only traced packets tell it.
    #[must_use]
    pub fn needs_rules(self) -> bool {
        self == Self::Rule
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(mask) if *mask != u32::MAX => write!(f, "mark/{mask:#x}"),
            key => f.write_str(NAMES.iter().find(|(_, of)| of == key).map_or("", |(name, _)| name)),
        }
    }
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoKey {}

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        if let Some(mask) = text.strip_prefix("mark/") {
            let number = match mask.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => mask.parse(),
            };
            return match number {
                Ok(mask @ 1..) => Ok(Self::Mark(mask)),
                _ => Err(NoKey(format!("`{mask}` is no mask of a mark: 0xff00, or 65280"))),
            };
        }
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, key)| *key).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            NoKey(format!("there are: {}, mark/MASK", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for (name, key) in NAMES {
            assert_eq!((name.parse(), key.to_string().as_str()), (Ok(key), name));
        }
        assert_eq!("mark/0xff00".parse(), Ok(Key::Mark(0xff00)));
        assert_eq!("mark/256".parse(), Ok(Key::Mark(0x100)));
        assert_eq!(Key::Mark(0xff00).to_string(), "mark/0xff00");
        for wrong in ["", "sport", "mark/", "mark/0", "mark/0xfffffffff", "Mark"] {
            assert!(wrong.parse::<Key>().is_err(), "{wrong}");
        }
    }
}
