//! Parsers of option values. Each error says what was wrong and what is accepted.

use std::{ops::RangeInclusive, time::Duration};

use conntracker::{
    conntrack::ProtoState,
    model::{
        Zone,
        filter::{MaskedMark, StatusIs, Term},
        protocol,
    },
    recording::Rotate,
    report::conntrack::LabelMap,
};
use ipnet::IpNet;

/// `!VALUE` or `VALUE`.
pub fn term<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Term<T>, String> {
    match text.strip_prefix('!') {
        Some(rest) => parse(rest.trim_start()).map(|value| Term { negated: true, value }),
        None => parse(text).map(|value| Term { negated: false, value }),
    }
}

/// A duration: `90` (seconds), `90s`, `1m30s`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|e| e.to_string()),
    };
    match parsed {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) => Err("must be more than zero".to_owned()),
        Err(why) => Err(format!("{why}; give seconds, or something like 90s, 1m30s, 2h")),
    }
}

/// A size in bytes: `65536`, `64K`, `16M`, `1G`; at least a page.
pub fn size(text: &str) -> Result<u32, String> {
    match u32::try_from(bytes(text)?) {
        Ok(bytes) if (4096..=1 << 30).contains(&bytes) => Ok(bytes),
        _ => Err("must be from 4K to 1G".to_owned()),
    }
}

/// A number of bytes, more than 0: `65536`, `64K`, `16M`, `1G`, `1T`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let plain = text.trim_end_matches(['B', 'b', 'i']);
    let (digits, unit) = match plain.split_at_checked(plain.len().saturating_sub(1)) {
        Some((digits, "K" | "k")) => (digits, 1 << 10),
        Some((digits, "M" | "m")) => (digits, 1 << 20),
        Some((digits, "G" | "g")) => (digits, 1 << 30),
        Some((digits, "T" | "t")) => (digits, 1 << 40),
        _ => (text, 1),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n > 0);
    bytes.ok_or_else(|| "not a size; give bytes, or something like 64K or 16M".to_owned())
}

/// When a new part of a recording begins: a size from 64K (with its unit), or a time of a second or more.
pub fn rotate(text: &str) -> Result<Rotate, String> {
    let unit =
        text.trim_end_matches(['B', 'b', 'i']).ends_with(['K', 'k', 'M', 'G', 'g', 'T', 't']);
    if unit && let Ok(bytes) = bytes(text) {
        return if bytes < 65_536 {
            Err("a part has 64K at least".to_owned())
        } else {
            Ok(Rotate::Bytes(bytes))
        };
    }
    match duration(text) {
        Ok(time) if time >= Duration::from_secs(1) => Ok(Rotate::Time(time)),
        Ok(_) => Err("a part takes a second at least".to_owned()),
        Err(_) => Err("give a size such as 64M, or a time such as 1h".to_owned()),
    }
}

/// Values of one option, a comma between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T>(pub Vec<Term<T>>);

/// What one `--sport` or `--dport` says.
pub type Ports = Listed<RangeInclusive<u16>>;

/// `VALUE`, `VALUE,VALUE,…`, or either with a `!` before it, which is for all of them.
pub fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Listed<T>, String> {
    let (negated, items) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let term = |item: &str| parse(item.trim()).map(|value| Term { negated, value });
    items.split(',').map(term).collect::<Result<_, _>>().map(Listed)
}

/// Protocols by name or number.
pub fn proto(text: &str) -> Result<Listed<u8>, String> {
    list(text, one_proto)
}

/// As [`proto`], not to be negated.
pub fn one_proto(text: &str) -> Result<u8, String> {
    protocol::number(text).ok_or_else(|| {
        format!("unknown protocol `{text}`; give a name such as tcp, or a number up to 255")
    })
}

/// Addresses or networks.
pub fn networks(text: &str) -> Result<Listed<IpNet>, String> {
    list(text, network)
}

/// An address or network.
pub fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is neither an address nor a network such as 192.0.2.0/24"))
}

/// Ports: a number, a name, a range `1000-2000` or `1000:2000`, or a comma-separated list of these.
pub fn ports(text: &str) -> Result<Ports, String> {
    list(text, port_range)
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    // A service name may hold a hyphen, so only numbers make a range.
    let numbers = text
        .split_once([':', '-'])
        .and_then(|(low, high)| Some((low.parse::<u16>().ok()?, high.parse::<u16>().ok()?)));
    match numbers {
        Some((low, high)) if low <= high => Ok(low..=high),
        Some(_) => Err(format!("the range `{text}` ends before it starts")),
        None => port(text).map(|port| port..=port),
    }
}

/// A port: a number, or a name.
pub fn port(text: &str) -> Result<u16, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    service(&services, text)
        .ok_or_else(|| format!("`{text}` is neither a port nor a service in /etc/services"))
}

/// Looks a name up in the text of /etc/services (services(5)).
fn service(services: &str, wanted: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let port = words.next()?.split('/').next()?.parse().ok()?;
        (name == wanted || words.any(|alias| alias == wanted)).then_some(port)
    })
}

/// Marks `VALUE[/MASK]`, decimal or with 0x.
pub fn mark(text: &str) -> Result<Listed<MaskedMark>, String> {
    list(text, one_mark)
}

/// As [`mark`], not to be negated.
pub fn one_mark(text: &str) -> Result<MaskedMark, String> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    match (number(value), number(mask)) {
        (Some(value), Some(mask)) => Ok(MaskedMark { value, mask }),
        _ => Err(format!("`{text}` is not a mark; give VALUE or VALUE/MASK, such as 0x10/0xf0")),
    }
}

/// A mark without a mask.
pub fn whole_mark(text: &str) -> Result<u32, String> {
    number(text)
        .ok_or_else(|| "must be a number of 32 bits, decimal or hexadecimal (0x1f)".to_owned())
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Labels, by number or name.
pub fn label(text: &str) -> Result<Listed<u16>, String> {
    list(text, |t| {
        let names = std::fs::read_to_string(LabelMap::PATH).unwrap_or_default();
        LabelMap::parse(&names).number(t).ok_or_else(|| {
            format!(
                "`{t}` is neither a label (0 to 127) nor one of the names in {}",
                LabelMap::PATH
            )
        })
    })
}

/// Zone numbers.
pub fn zone(text: &str) -> Result<Listed<Zone>, String> {
    list(text, |t| t.parse().map(Zone).map_err(|_| format!("`{t}` is not a zone (0 to 65535)")))
}

/// Statuses by name.
pub fn status(text: &str) -> Result<Listed<StatusIs>, String> {
    list(text, one_status)
}

/// As [`status`], not to be negated.
pub fn one_status(text: &str) -> Result<StatusIs, String> {
    StatusIs::named(text).ok_or_else(|| {
        let names: Vec<_> = StatusIs::names().collect();
        format!("unknown status `{text}`; one of: {}", names.join(", "))
    })
}

/// States of protocols by name.
pub fn state(text: &str) -> Result<Listed<String>, String> {
    list(text, |t| {
        if ProtoState::is_called(None, t) {
            return Ok(t.to_owned());
        }
        let names = ProtoState::names_of_tcp().join(", ");
        Err(format!("no protocol has a state `{t}`; TCP has: {names}"))
    })
}

/// The longest name of an interface (IFNAMSIZ), and of a helper (NF_CT_HELPER_NAME_LEN).
const NAME_BYTES: usize = 15;

/// A name that an interface can have (`dev_valid_name` of net/core/dev.c).
pub fn interface(text: &str) -> Result<Term<String>, String> {
    term(text, |t| {
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if t.is_empty() || t.len() > NAME_BYTES || t == "." || t == ".." || t.contains(odd) {
            return Err(format!("no interface can be called `{t}`"));
        }
        Ok(t.to_owned())
    })
}

/// A name that a helper can have.
pub fn helper(text: &str) -> Result<Term<String>, String> {
    term(text, one_helper)
}

/// As [`helper`], not to be negated.
pub fn one_helper(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES {
        return Err(format!("no helper can be called `{text}`"));
    }
    Ok(text.to_owned())
}

/// A function of the kernel.
pub fn function(text: &str) -> Result<String, String> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.');
    if text.is_empty() || text.contains(odd) || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("no function can be called `{text}`"));
    }
    Ok(text.to_owned())
}

/// How many flows there is room for.
pub fn max_flows(text: &str) -> Result<usize, String> {
    // The table numbers its slots with 32 bits.
    const MOST: usize = u32::MAX as usize / 2;
    match text.parse() {
        Ok(0) => Err("must be 1 or more".to_owned()),
        Ok(flows) if flows > MOST => Err(format!("must be {MOST} or less")),
        Ok(flows) => Ok(flows),
        Err(_) => Err(format!("`{text}` is no number of flows")),
    }
}

/// How often something is to be done again: at most ten times a second.
/// An interval of 100 ms or more.
pub fn interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    match duration(text)? {
        often if often < SHORTEST => Err("must be 100ms or more".to_owned()),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_by_their_size_or_by_time() {
        assert_eq!(rotate("64M"), Ok(Rotate::Bytes(64 << 20)));
        assert_eq!(rotate("64KiB"), Ok(Rotate::Bytes(64 << 10)));
        assert_eq!(rotate("1h"), Ok(Rotate::Time(Duration::from_hours(1))));
        assert_eq!(rotate("5m"), Ok(Rotate::Time(Duration::from_mins(5))));
        for bad in ["1K", "0", "", "64X", "100ms", "99999999999T"] {
            assert!(rotate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_seconds_unless_they_say_otherwise() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["0", "-1", "soon", "", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_take_units_and_have_bounds() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64K"), Ok(65536));
        assert_eq!(size("16MiB"), Ok(16 << 20));
        for bad in ["", "K", "1", "5G", "x", "1T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_names_ranges_and_lists() {
        let plain = |ranges: &[RangeInclusive<u16>]| {
            Ok(Listed(ranges.iter().map(|r| Term { negated: false, value: r.clone() }).collect()))
        };
        assert_eq!(ports("80"), plain(&[80..=80]));
        assert_eq!(ports("80,443,1000-1010"), plain(&[80..=80, 443..=443, 1000..=1010]));
        assert_eq!(ports("1:100"), plain(&[1..=100]));
        assert!(ports("!22").unwrap().0[0].negated);
        for bad in ["65536", "9-1", "", "80,,", "no-such-service"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn services_are_found_by_name_and_alias() {
        let file = "# comment\nssh 22/tcp\ndomain\t53/tcp\nwww 80/tcp http # WorldWideWeb\n";
        assert_eq!(service(file, "domain"), Some(53));
        assert_eq!(service(file, "http"), Some(80));
        assert_eq!(service(file, "WorldWideWeb"), None);
    }

    #[test]
    fn marks_take_masks_and_hex() {
        let plain = |value, mask| {
            Ok(Listed(vec![Term { negated: false, value: MaskedMark { value, mask } }]))
        };
        assert_eq!(mark("5"), plain(5, u32::MAX));
        assert_eq!(mark("0x10/0xf0"), plain(0x10, 0xf0));
        assert!(mark("0x10/").is_err() && mark("-1").is_err());
    }

    #[test]
    fn each_value_of_a_list_counts_and_one_that_is_wrong_refuses_it() {
        let Listed(terms) = networks("!192.0.2.1, 2001:db8::/32").unwrap();
        assert!(terms.len() == 2 && terms.iter().all(|term| term.negated), "{terms:?}");
        let protos: Vec<u8> = proto("tcp,udp").unwrap().0.iter().map(|term| term.value).collect();
        assert_eq!(protos, [6, 17]);
        let is = |name| status(name).unwrap().0.remove(0).value;
        assert_eq!(is("UNREPLIED"), StatusIs::Unreplied);
        for (name, bit) in StatusIs::names().zip(0..16) {
            assert_eq!(is(name).bits(), (1 << bit, 1 << bit), "{name}");
        }
        for bad in ["tcp,", "tcp,nosuch", ",", ""] {
            assert!(proto(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for bad in ["", "!", "a/b", "a b", "sixteen-letters!", "..", "eth0:1"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
        assert!(interface("eth0.17").is_ok() && interface("!wg0").unwrap().negated);
        assert!(state("established,SYN_SENT").is_ok() && state("HEARTBEAT_ACKED").is_ok());
        assert!(state("FOO").unwrap_err().contains("SYN_SENT2"));
        assert!(helper("").is_err() && helper("a-helper-of-much-too-long-a-name").is_err());
        assert!(function("").is_err() && function("a b").is_err() && function("1a").is_err());
        assert!(function("nf_hook_slow").is_ok() && function("f.isra.0").is_ok());
        assert!(interval("1ms").is_err() && interval("0.1").is_ok());
    }
}
