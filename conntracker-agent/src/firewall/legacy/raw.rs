//! The tables of ip_tables and ip6_tables as the kernel gives them: the answers to IPT_SO_GET_INFO and
//! IPT_SO_GET_ENTRIES (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h). They are in the byte
//! order and alignment of the machine that they were read on.

use std::{io, net::UdpSocket, os::fd::AsFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::in_use;
use crate::{model::table::Family, os::sockopt};

/// Sizes of `struct ipt_getinfo` and, without the entries, of `struct ipt_get_entries`. The entries hold `__u64`.
const INFO: usize = 84;
const ENTRIES: usize = 36usize.next_multiple_of(align_of::<u64>());

/// Offset of the name and of the size in both structures, and of the size in `struct ipt_getinfo`.
const NAME_BYTES: usize = 32;
const INFO_SIZE: usize = 80;

/// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; those of IPv6 are the same.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// NFPROTO_IPV4 and NFPROTO_IPV6.
const IP: u8 = 2;
const IP6: u8 = 10;

/// The most that the entries of one table may be.
const MOST: usize = 256 << 20;

/// How often a table is read again that was replaced between the two calls.
const ATTEMPTS: usize = 10;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTable {
    /// [`Family::Ip`] or [`Family::Ip6`].
    pub family: Family,
    /// `struct ipt_getinfo`.
    pub info: Vec<u8>,
    /// The entries, `struct ipt_entry` or `struct ip6t_entry` one after the other.
    pub entries: Vec<u8>,
}

/// Reads all tables of the calling thread's namespace. No module is loaded and no table is made: only those are asked
/// for that the namespace has.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN in the namespace; a table that does not stop to change.
pub fn read() -> Result<Vec<RawTable>> {
    let mut tables = Vec::new();
    for (family, names) in [(Family::Ip, "ip_tables_names"), (Family::Ip6, "ip6_tables_names")] {
        let names = in_use(names)?;
        if names.is_empty() {
            continue;
        }
        let socket = open(family)?;
        for name in names {
            tables.push(table(&socket, family, &name).with_context(|| {
                format!("cannot read the table {name} of iptables-legacy ({})", family.name())
            })?);
        }
    }
    Ok(tables)
}

/// The calls work with any socket of the family.
fn open(family: Family) -> Result<UdpSocket> {
    let domain = if family == Family::Ip6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?.into())
}

fn table(socket: &impl AsFd, family: Family, name: &str) -> Result<RawTable> {
    let level = if family == Family::Ip6 { libc::SOL_IPV6 } else { libc::SOL_IP };
    let name = name.as_bytes();
    if name.len() >= NAME_BYTES {
        bail!("its name is too long");
    }
    for _ in 0..ATTEMPTS {
        let info = info(socket, level, name)?;
        let size = info.get(INFO_SIZE..).and_then(<[u8]>::first_chunk).copied();
        let size = size.map(u32::from_ne_bytes).context("the answer is too short")?;
        if size as usize > MOST {
            bail!("it has more than {} MiB", MOST >> 20);
        }
        let mut entries = vec![0; ENTRIES + size as usize];
        entries[..name.len()].copy_from_slice(name);
        entries[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&size.to_ne_bytes());
        match sockopt::read(socket, level, GET_ENTRIES, &mut entries) {
            // Replaced by one of the same size meanwhile.
            Ok(_) if self::info(socket, level, name)? != info => {}
            Ok(_) => {
                entries.drain(..ENTRIES);
                return Ok(RawTable { family, info, entries });
            }
            // Replaced by one of another size.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("it changes all the time")
}

fn info(socket: &impl AsFd, level: libc::c_int, name: &[u8]) -> io::Result<Vec<u8>> {
    let mut info = vec![0; INFO];
    info[..name.len()].copy_from_slice(name);
    sockopt::read(socket, level, GET_INFO, &mut info)?;
    Ok(info)
}

/// The tables as one list of bytes, for [`of_bytes`]: of each the number of its family (NFPROTO_), and its two parts,
/// each behind its length (32 bits, little-endian).
#[must_use]
pub fn to_bytes(tables: &[RawTable]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for RawTable { family, info, entries } in tables {
        bytes.push(if *family == Family::Ip6 { IP6 } else { IP });
        for part in [info, entries] {
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

/// The tables of which [`to_bytes`] made these bytes; `None` if it did not.
#[must_use]
pub fn of_bytes(mut bytes: &[u8]) -> Option<Vec<RawTable>> {
    let mut tables = Vec::new();
    while let Some((family, mut rest)) = bytes.split_first() {
        let family = match *family {
            IP => Family::Ip,
            IP6 => Family::Ip6,
            _ => return None,
        };
        let mut part = || {
            let (length, behind) = rest.split_first_chunk()?;
            let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(part.to_vec())
        };
        let (info, entries) = (part()?, part()?);
        tables.push(RawTable { family, info, entries });
        bytes = rest;
    }
    Some(tables)
}
