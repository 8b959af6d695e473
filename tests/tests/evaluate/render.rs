//! Expressions in the form of `nft --debug=netlink`, so that the two can be compared.

use std::fmt::Write;

use conntracker::netlink::nftables::{
    data::Verdict,
    expression::{Destination, Expression, NatRegisters, Register, Slice},
};

/// A name by its number, which has one for sure in what nft writes.
fn name<'a>(names: &[&'a str], number: u32) -> &'a str {
    names.get(number as usize).copied().unwrap_or("unknown")
}

const META: [&str; 35] = [
    "len",
    "protocol",
    "priority",
    "mark",
    "iif",
    "oif",
    "iifname",
    "oifname",
    "iiftype",
    "oiftype",
    "skuid",
    "skgid",
    "nftrace",
    "rtclassid",
    "secmark",
    "nfproto",
    "l4proto",
    "bri_iifname",
    "bri_oifname",
    "pkttype",
    "cpu",
    "iifgroup",
    "oifgroup",
    "cgroup",
    "prandom",
    "secpath",
    "iifkind",
    "oifkind",
    "bri_iifpvid",
    "bri_iifvproto",
    "time",
    "day",
    "hour",
    "sdif",
    "sdifname",
];

const CT: [&str; 25] = [
    "state",
    "direction",
    "status",
    "mark",
    "secmark",
    "expiration",
    "helper",
    "l3protocol",
    "src",
    "dst",
    "protocol",
    "proto_src",
    "proto_dst",
    "label",
    "packets",
    "bytes",
    "avgpkt",
    "zone",
    "event",
    "src_ip",
    "dst_ip",
    "src_ip6",
    "dst_ip6",
    "timeout",
    "id",
];

const BASES: [&str; 5] = ["link", "network", "transport", "inner", "tunnel"];
const CMP: [&str; 6] = ["eq", "neq", "lt", "lte", "gt", "gte"];
const EXTHDR: [&str; 5] = ["ipv6", "tcpopt", "ipv4", "sctp", "dccp"];

/// One expression with its brackets.
pub(crate) fn render(expression: &Expression) -> String {
    let (name, text) = parts(expression);
    if text.is_empty() { format!("[ {name} ]") } else { format!("[ {name} {text} ]") }
}

fn parts(expression: &Expression) -> (&str, String) {
    use Expression as E;
    match expression {
        E::Payload { slice, to } => {
            ("payload", format!("load {} => reg {}", slice_of(slice), to.number()))
        }
        E::PayloadSet { slice, from, csum_type, csum_offset, csum_flags } => (
            "payload",
            format!(
                "write reg {} => {} csum_type {csum_type} csum_off {csum_offset} csum_flags 0x{csum_flags:x}",
                from.number(),
                slice_of(slice)
            ),
        ),
        E::Meta { key, to } => {
            ("meta", format!("load {} => reg {}", name(&META, *key), to.number()))
        }
        E::MetaSet { key, from } => {
            ("meta", format!("set {} with reg {}", name(&META, *key), from.number()))
        }
        E::Ct { key, direction, to } => {
            let direction = match direction {
                Some(0) => " , dir original",
                Some(_) => " , dir reply",
                None => "",
            };
            ("ct", format!("load {} => reg {}{direction}", name(&CT, *key), to.number()))
        }
        E::CtSet { key, from, .. } => {
            ("ct", format!("set {} with reg {}", name(&CT, *key), from.number()))
        }
        E::Cmp { op, from, value } => {
            ("cmp", format!("{} reg {} {}", name(&CMP, *op), from.number(), words(value)))
        }
        E::Range { op, from, low, high } => (
            "range",
            format!("{} reg {} {} {}", name(&CMP, *op), from.number(), words(low), words(high)),
        ),
        E::Mask { from, to, mask, xor } => (
            "bitwise",
            format!(
                "reg {} = ( reg {} & {} ) ^ {}",
                to.number(),
                from.number(),
                words(mask),
                words(xor)
            ),
        ),
        E::Shift { op, from, to, bits, .. } => {
            let op = if *op == 1 { "<<" } else { ">>" };
            (
                "bitwise",
                format!("reg {} = ( reg {} {op} 0x{bits:08x} )", to.number(), from.number()),
            )
        }
        E::Byteorder { op, from, to, len, size } => {
            let op = if *op == 0 { "ntoh" } else { "hton" };
            (
                "byteorder",
                format!("reg {} = {op}(reg {}, {len}, {size})", to.number(), from.number()),
            )
        }
        E::Lookup { set, from, to, invert } => {
            let to = match to {
                Some(Destination::Verdict) => " dreg 0".to_owned(),
                Some(Destination::Register(to)) => format!(" dreg {}", to.number()),
                None => String::new(),
            };
            let flags = u8::from(*invert);
            ("lookup", format!("reg {} set {set}{to} 0x{flags:x}", from.number()))
        }
        E::Verdict(verdict) => ("immediate", format!("reg 0 {}", verdict_text(verdict))),
        E::Immediate { to, value } => {
            ("immediate", format!("reg {} {}", to.number(), words(value)))
        }
        E::Counter { packets, bytes } => ("counter", format!("pkts {packets} bytes {bytes}")),
        E::Limit { rate, unit, burst, of_bytes, flags } => {
            let kind = if *of_bytes { "bytes" } else { "packets" };
            let unit = match unit {
                1 => "second",
                60 => "minute",
                3600 => "hour",
                86_400 => "day",
                _ => "week",
            };
            ("limit", format!("rate {rate}/{unit} burst {burst} type {kind} flags 0x{flags:x}"))
        }
        E::Quota { bytes, consumed, flags } => {
            ("quota", format!("bytes {bytes} consumed {consumed} flags {flags}"))
        }
        E::Connlimit { count, flags } => ("connlimit", format!("count {count} flags {flags:x}")),
        E::Notrack => ("notrack", String::new()),
        E::Last => ("last", "never".to_owned()),
        _ => more(expression),
    }
}

fn more(expression: &Expression) -> (&str, String) {
    use Expression as E;
    match expression {
        E::Numgen { to, modulus, kind, offset } => {
            let kind = if *kind == 0 { "inc" } else { "random" };
            let offset = if *offset == 0 { String::new() } else { format!(" offset {offset}") };
            ("numgen", format!("reg {} = {kind} mod {modulus}{offset}", to.number()))
        }
        E::Hash { from, to, len, modulus, seed, offset, kind } => {
            let of = match (kind, from) {
                (0, Some(from)) => {
                    format!("jhash(reg {}, {len}, 0x{:x})", from.number(), seed.unwrap_or_default())
                }
                _ => "symhash()".to_owned(),
            };
            let offset = if *offset == 0 { String::new() } else { format!(" offset {offset}") };
            ("hash", format!("reg {} = {of} % mod {modulus}{offset}", to.number()))
        }
        E::Nat { kind, family, registers, flags } => {
            let kind = if *kind == 0 { "snat" } else { "dnat" };
            let family = if *family == 2 { "ip" } else { "ip6" };
            ("nat", format!("{kind} {family}{}{}", nat("addr", "proto", *registers), flag(*flags)))
        }
        E::Masq { registers, flags } => (
            "masq",
            format!("{}{}", nat("addr", "proto", *registers), flag(*flags)).trim().to_owned(),
        ),
        E::Redir { registers, flags } => (
            "redir",
            format!("{}{}", nat("addr", "proto", *registers), flag(*flags)).trim().to_owned(),
        ),
        E::Tproxy { family, address, port } => {
            let family = match family {
                2 => "ip ",
                10 => "ip6 ",
                _ => "",
            };
            let part = |name, register: &Option<Register>| match register {
                Some(register) => format!("{name} reg {} ", register.number()),
                None => String::new(),
            };
            let text = format!("{family}{}{}", part("addr", address), part("port", port));
            ("tproxy", text.trim().to_owned())
        }
        E::Reject { kind, code } => ("reject", format!("type {kind} code {code}")),
        E::Log { .. } => ("log", log(expression)),
        E::Fib { to, result, flags } => {
            let parts = [(1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif")];
            let of: Vec<&str> =
                parts.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
            let result = name(&["", "oif", "oifname", "type"], *result);
            let present = if flags & 32 != 0 { " present" } else { "" };
            ("fib", format!("{} {result}{present} => reg {}", of.join(" . "), to.number()))
        }
        E::Rt { key, to } => {
            let key = name(&["classid", "nexthop4", "nexthop6", "tcpmss", "ipsec"], *key);
            ("rt", format!("load {key} => reg {}", to.number()))
        }
        E::Socket { key, to, .. } => {
            let key = name(&["transparent", "mark", "wildcard", "cgroupv2"], *key);
            ("socket", format!("load {key} => reg {}", to.number()))
        }
        E::Osf { to, .. } => ("osf", format!("dreg {}", to.number())),
        E::Exthdr { op, kind, offset, len, flags, to } => {
            let present = if *flags == 1 { " present" } else { "" };
            let text = format!(
                "load {} {len}b @ {kind} + {offset}{present} => reg {}",
                name(&EXTHDR, *op),
                to.number()
            );
            ("exthdr", text)
        }
        E::ExthdrSet { op, kind, offset, len, from } => {
            let from = from.map(Register::number).unwrap_or_default();
            let op = name(&EXTHDR, *op);
            ("exthdr", format!("write {op} reg {from} => {len}b @ {kind} + {offset}"))
        }
        E::Fwd { device, address, .. } => {
            let part = |name, register: &Option<Register>| match register {
                Some(register) => format!("{name} {} ", register.number()),
                None => String::new(),
            };
            let text = format!("{}{}", part("sreg_dev", device), part("sreg_addr", address));
            ("fwd", text.trim().to_owned())
        }
        E::Dynset { set, op, key, data, timeout, expressions, .. } => {
            let mut text = name(&["add", "update", "delete"], *op).to_owned();
            if let Some(key) = key {
                let _ = write!(text, " reg_key {}", key.number());
            }
            let _ = write!(text, " set {set}");
            if let Some(data) = data {
                let _ = write!(text, " reg_data {}", data.number());
            }
            if *timeout > 0 {
                let _ = write!(text, " timeout {timeout}ms");
            }
            for expression in expressions {
                let _ = write!(text, " expr {}", render(expression));
            }
            ("dynset", text)
        }
        E::ObjectRef { kind, name } => ("objref", format!("type {kind} name {name}")),
        E::ObjectMap { set, from } => ("objref", format!("sreg {} set {set}", from.number())),
        E::Synproxy { mss, wscale, .. } => ("synproxy", format!("mss {mss} wscale {wscale}")),
        E::FlowOffload { flowtable } => ("flow_offload", format!("flowtable {flowtable}")),
        E::Match { name, revision, .. } => ("match", format!("name {name} rev {revision}")),
        E::Target { name, revision, .. } => ("target", format!("name {name} rev {revision}")),
        other => ("not rendered", format!("{other:?}")),
    }
}

fn slice_of(Slice { base, offset, len }: &Slice) -> String {
    format!("{len}b @ {} header + {offset}", name(&BASES, *base))
}

/// Bytes as words of the host, the last one filled up with zeros.
fn words(bytes: &[u8]) -> String {
    let word = |chunk: &[u8]| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        format!("0x{:08x}", u32::from_ne_bytes(word))
    };
    bytes.chunks(4).map(word).collect::<Vec<_>>().join(" ")
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Jump(chain) => format!("jump -> {chain}"),
        Verdict::Goto(chain) => format!("goto -> {chain}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn nat(address: &str, port: &str, registers: NatRegisters) -> String {
    let mut text = String::new();
    for (name, [min, max]) in [(address, registers.addresses), (port, registers.ports)] {
        for (end, register) in [("min", min), ("max", max)] {
            if let Some(register) = register {
                let _ = write!(text, " {name}_{end} reg {}", register.number());
            }
        }
    }
    text
}

fn flag(flags: u32) -> String {
    if flags == 0 { String::new() } else { format!(" flags 0x{flags:x}") }
}

fn log(expression: &Expression) -> String {
    let Expression::Log { group, prefix, snaplen, qthreshold, level, flags } = expression else {
        return String::new();
    };
    let mut text = String::new();
    if let Some(prefix) = prefix {
        let _ = write!(text, "prefix {prefix} ");
    }
    if let Some(group) = group {
        let (snaplen, threshold) = (snaplen.unwrap_or_default(), qthreshold.unwrap_or_default());
        let _ = write!(text, "group {group} snaplen {snaplen} qthreshold {threshold} ");
    } else {
        if let Some(level) = level {
            let _ = write!(text, "level {level} ");
        }
        let flags = flags.unwrap_or_default();
        for (bit, name) in
            [(1, "tcpseq"), (2, "tcpopt"), (4, "ipopt"), (8, "uid"), (32, "macdecode")]
        {
            if flags & bit != 0 {
                let _ = write!(text, "{name} ");
            }
        }
    }
    text.trim().to_owned()
}
