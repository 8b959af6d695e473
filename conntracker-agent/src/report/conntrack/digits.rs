//! Numbers and addresses as text, appended to a buffer. Most of a line consists of them, and the standard library's
//! formatting takes several times as long.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a decimal number.
pub fn decimal(out: &mut Vec<u8>, number: impl Into<u64>) {
    let mut number = number.into();
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a decimal number of at least `width` digits, filled up with zeros.
pub fn zero_padded(out: &mut Vec<u8>, number: impl Into<u64>, width: usize) {
    let start = out.len();
    decimal(out, number);
    for _ in out.len() - start..width {
        out.insert(start, b'0');
    }
}

/// Appends a hexadecimal number after `0x`, without leading zeros.
pub fn hexadecimal(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(b"0x");
    hex_digits(out, number);
}

fn hex_digits(out: &mut Vec<u8>, number: u16) {
    let digits = [12, 8, 4, 0].map(|shift| HEX[usize::from(number >> shift & 15)]);
    let leading = number.leading_zeros() as usize / 4;
    out.extend_from_slice(&digits[leading.min(3)..]);
}

/// Appends text and spaces up to `width`.
pub fn left_aligned(out: &mut Vec<u8>, text: &str, width: usize) {
    out.extend_from_slice(text.as_bytes());
    for _ in text.len()..width {
        out.push(b' ');
    }
}

/// Appends an address as inet_ntop(3) writes it.
pub fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => v4(out, address),
        IpAddr::V6(address) => v6(out, address),
    }
}

/// Appends an address as RFC 5952 and the standard library write it.
pub fn canonical_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => v4(out, address),
        // Writing to memory does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    let [a, b, c, d] = address.octets();
    octet(out, a);
    for byte in [b, c, d] {
        out.push(b'.');
        octet(out, byte);
    }
}

fn octet(out: &mut Vec<u8>, byte: u8) {
    let [hundreds, tens, ones] = [byte / 100, byte / 10 % 10, byte % 10].map(|digit| b'0' + digit);
    match byte {
        100.. => out.extend_from_slice(&[hundreds, tens, ones]),
        10.. => out.extend_from_slice(&[tens, ones]),
        _ => out.push(ones),
    }
}

/// RFC 5952: the first of the longest runs of at least two zeros becomes `::`. Unlike the standard
/// library, inet_ntop(3) writes the last 32 bits with dots not only after `::ffff:`, but after `::`
/// too, unless they begin with zeros themselves.
fn v6(out: &mut Vec<u8>, address: Ipv6Addr) {
    let groups = address.segments();
    let (start, len) = zeros(&groups);
    if start == 0 && (len == 6 || len == 5 && groups[5] == 0xffff) {
        out.extend_from_slice(if len == 6 { b"::" } else { b"::ffff:" });
        let [.., a, b, c, d] = address.octets();
        return v4(out, Ipv4Addr::new(a, b, c, d));
    }
    let mut at = 0;
    while at < groups.len() {
        if at == start && len > 1 {
            out.extend_from_slice(b"::");
            at += len;
            continue;
        }
        if at != 0 && at != start + len {
            out.push(b':');
        }
        hex_digits(out, groups[at]);
        at += 1;
    }
}

/// Start and length of the first of the longest runs of zeros; a start behind the end and length 0
/// if none is longer than one.
fn zeros(groups: &[u16; 8]) -> (usize, usize) {
    let (mut best, mut run) = ((9, 0), (0, 0));
    for (at, &group) in groups.iter().enumerate() {
        if group == 0 {
            run = if run.1 == 0 { (at, 1) } else { (run.0, run.1 + 1) };
            if run.1 > best.1 && run.1 > 1 {
                best = run;
            }
        } else {
            run.1 = 0;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_of_all_lengths() {
        for n in [0, 9, 10, 99, 100, 65535, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(text(|out| decimal(out, n)), n.to_string());
            assert_eq!(text(|out| zero_padded(out, n, 6)), format!("{n:06}"));
        }
        for n in [0, 1, 0xf, 0x10, 0xfff, 0x1000, 0xffff] {
            assert_eq!(text(|out| hexadecimal(out, n)), format!("{n:#x}"));
        }
        assert_eq!(text(|out| left_aligned(out, "udp", 8)), "udp     ");
        assert_eq!(text(|out| left_aligned(out, "longer than", 8)), "longer than");
    }

    /// What glibc's inet_ntop(3) prints.
    #[test]
    fn addresses_are_shortened_as_inet_ntop_does() {
        let shortened = |text: &str| {
            let mut out = Vec::new();
            v6(&mut out, text.parse().unwrap());
            String::from_utf8(out).unwrap()
        };
        for same in [
            "::",
            "::1",
            "1::",
            "2001:db8::1",
            "1:0:2::3",
            "1:2:3:4:5:6:7:8",
            "1:0:3:4:5:6:7:8",
            "0:2:3:4:5:6:7:8",
            "1:2:3:4:5:6::",
            "1::2:0:0:3:4",
            "::1:2:3",
            "::ffff:192.0.2.1",
            "::192.0.2.1",
            "::0.1.0.0",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(shortened(same), same);
        }
        assert_eq!(shortened("1:0:0:2::3"), "1:0:0:2::3");
        assert_eq!(shortened("1:0:2:0:0:0:0:3"), "1:0:2::3");
    }

    proptest! {
        #[test]
        fn addresses_are_read_back(octets: [u8; 16], mask: u16) {
            // With zeros here and there.
            let mut octets = octets;
            for (n, octet) in octets.iter_mut().enumerate() {
                if mask >> n & 1 == 1 {
                    *octet = 0;
                }
            }
            let v6 = Ipv6Addr::from_octets(octets);
            prop_assert_eq!(text(|out| address(out, v6.into())).parse::<Ipv6Addr>().unwrap(), v6);
            let [a, b, c, d, ..] = octets;
            let v4 = Ipv4Addr::new(a, b, c, d);
            prop_assert_eq!(text(|out| address(out, v4.into())), v4.to_string());
        }
    }
}
