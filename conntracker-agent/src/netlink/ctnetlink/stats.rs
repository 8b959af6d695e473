//! The size of the table, and the counters of each CPU.

use super::dump::message_type;
#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use crate::netlink::request::{ACK, DUMP, Request};
use crate::netlink::socket::{Error, RECEIVE_BYTES, Socket};
use crate::netlink::wire::{self, DecodeError, Message};

/// The table of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GlobalStats {
    /// Entries now.
    pub entries: u32,
    /// The most entries that the table may have (nf_conntrack_max; Linux 4.18+).
    pub max_entries: Option<u32>,
}

/// What one CPU has counted since the network namespace was made: `struct ip_conntrack_stat` of
/// include/linux/netfilter/nf_conntrack_common.h. `None`: the kernel is older than the counter, or has dropped it.
/// Counters wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuStats {
    /// Number of the CPU.
    pub cpu: u16,
    /// Lookups for a packet that found a clash with an existing entry: NAT choosing tuples, mostly.
    pub found: Option<u32>,
    /// Packets that cannot be tracked.
    pub invalid: Option<u32>,
    /// Entries inserted by user space. Those that packets make are not counted.
    pub insert: Option<u32>,
    /// Entries that could not be inserted, because there was one of the same tuple.
    pub insert_failed: Option<u32>,
    /// Packets dropped because an entry could not be made or inserted.
    pub drop: Option<u32>,
    /// Entries removed before their time, to make room.
    pub early_drop: Option<u32>,
    /// Packets with an error in their ICMP payload or header.
    pub error: Option<u32>,
    /// Lookups begun anew because the table was resized.
    pub search_restart: Option<u32>,
    /// Insertions that met the entry of a packet of the same flow and took that one (Linux 5.9+).
    pub clash_resolve: Option<u32>,
    /// Insertions given up because too many entries have the same hash (Linux 5.15+).
    pub chain_toolong: Option<u32>,
}

/// What one CPU has counted of expectations since the network namespace was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpectCpuStats {
    /// Number of the CPU.
    pub cpu: u16,
    /// Expected flows that came.
    pub new: Option<u32>,
    /// Expectations made.
    pub create: Option<u32>,
    /// Expectations ended.
    pub delete: Option<u32>,
}

impl CpuStats {
    /// Names and values of the counters that the kernel has.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u32)> {
        // The pattern names every field, so that the compiler reports a new counter that is missing here.
        let Self {
            cpu: _,
            found,
            invalid,
            insert,
            insert_failed,
            drop,
            early_drop,
            error,
            search_restart,
            clash_resolve,
            chain_toolong,
        } = *self;
        [
            ("found", found),
            ("invalid", invalid),
            ("insert", insert),
            ("insert_failed", insert_failed),
            ("drop", drop),
            ("early_drop", early_drop),
            ("error", error),
            ("search_restart", search_restart),
            ("clash_resolve", clash_resolve),
            ("chain_toolong", chain_toolong),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

impl ExpectCpuStats {
    /// Names and values of the counters that the kernel has.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let Self { cpu: _, new, create, delete } = *self;
        [("new", new), ("create", create), ("delete", delete)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Asks for the statistics of the socket's network namespace.
pub fn global(socket: &mut Socket) -> Result<GlobalStats, Error> {
    const NAME: &str = "conntrack statistics";
    let request = Request::netfilter(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS, ACK, 0);
    let mut stats = Err(DecodeError::Missing("CTA_STATS_GLOBAL_ENTRIES"));
    let mut buffer = vec![0; RECEIVE_BYTES];
    socket.ask(NAME, request, &mut buffer, |message| stats = decode_global(&message))?;
    stats.map_err(|source| Error::Malformed { request: NAME, source })
}

/// Asks for the statistics of each CPU that there may be.
pub fn per_cpu(socket: &mut Socket) -> Result<Vec<CpuStats>, Error> {
    let message = (NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS_CPU);
    each_cpu(socket, "conntrack statistics of CPUs", message, |message| {
        if message.kind == message_type(IPCTNL_MSG_CT_GET_STATS_CPU) {
            decode_cpu(message)
        } else {
            Err(DecodeError::UnexpectedMessage(message.kind))
        }
    })
}

/// Asks for the statistics of expectations of each CPU that there may be.
pub fn expectations_per_cpu(socket: &mut Socket) -> Result<Vec<ExpectCpuStats>, Error> {
    let message = (NFNL_SUBSYS_CTNETLINK_EXP, IPCTNL_MSG_EXP_GET_STATS_CPU);
    each_cpu(socket, "expectation statistics of CPUs", message, |message| {
        // The kernel answers with the message type of the other subsystem.
        if message.kind == message_type(IPCTNL_MSG_EXP_GET_STATS_CPU) {
            decode_expectations(message)
        } else {
            Err(DecodeError::UnexpectedMessage(message.kind))
        }
    })
}

/// Dumps statistics: a message for each CPU.
fn each_cpu<T>(
    socket: &mut Socket,
    name: &'static str,
    (subsystem, message): (u8, u8),
    decode: impl Fn(&Message<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, Error> {
    let request = Request::netfilter(subsystem, message, DUMP, 0);
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut stats = Ok(Vec::new());
    socket.ask(name, request, &mut buffer, |message| {
        if let Ok(all) = &mut stats {
            match decode(&message) {
                Ok(cpu) => all.push(cpu),
                Err(error) => stats = Err(error),
            }
        }
    })?;
    stats.map_err(|source| Error::Malformed { request: name, source })
}

fn decode_global(message: &Message<'_>) -> Result<GlobalStats, DecodeError> {
    if message.kind != message_type(IPCTNL_MSG_CT_GET_STATS) {
        return Err(DecodeError::UnexpectedMessage(message.kind));
    }
    let (_, attributes) = wire::netfilter(message.payload)?;
    let (mut entries, mut max_entries) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            CTA_STATS_GLOBAL_ENTRIES => {
                entries = Some(attribute.be32("CTA_STATS_GLOBAL_ENTRIES")?);
            }
            CTA_STATS_GLOBAL_MAX_ENTRIES => {
                max_entries = Some(attribute.be32("CTA_STATS_GLOBAL_MAX_ENTRIES")?);
            }
            _ => {}
        }
    }
    let entries = entries.ok_or(DecodeError::Missing("CTA_STATS_GLOBAL_ENTRIES"))?;
    Ok(GlobalStats { entries, max_entries })
}

fn decode_cpu(message: &Message<'_>) -> Result<CpuStats, DecodeError> {
    let (_, attributes) = wire::netfilter(message.payload)?;
    let mut stats = CpuStats { cpu: wire::resource(message.payload)?, ..CpuStats::default() };
    for attribute in attributes {
        let attribute = attribute?;
        let counter = match attribute.kind {
            CTA_STATS_FOUND => &mut stats.found,
            CTA_STATS_INVALID => &mut stats.invalid,
            CTA_STATS_INSERT => &mut stats.insert,
            CTA_STATS_INSERT_FAILED => &mut stats.insert_failed,
            CTA_STATS_DROP => &mut stats.drop,
            CTA_STATS_EARLY_DROP => &mut stats.early_drop,
            CTA_STATS_ERROR => &mut stats.error,
            CTA_STATS_SEARCH_RESTART => &mut stats.search_restart,
            CTA_STATS_CLASH_RESOLVE => &mut stats.clash_resolve,
            CTA_STATS_CHAIN_TOOLONG => &mut stats.chain_toolong,
            _ => continue,
        };
        *counter = Some(attribute.be32("CTA_STATS")?);
    }
    Ok(stats)
}

fn decode_expectations(message: &Message<'_>) -> Result<ExpectCpuStats, DecodeError> {
    let (_, attributes) = wire::netfilter(message.payload)?;
    let cpu = wire::resource(message.payload)?;
    let mut stats = ExpectCpuStats { cpu, ..ExpectCpuStats::default() };
    for attribute in attributes {
        let attribute = attribute?;
        let counter = match attribute.kind {
            CTA_STATS_EXP_NEW => &mut stats.new,
            CTA_STATS_EXP_CREATE => &mut stats.create,
            CTA_STATS_EXP_DELETE => &mut stats.delete,
            _ => continue,
        };
        *counter = Some(attribute.be32("CTA_STATS_EXP")?);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::wire::Messages;

    #[test]
    fn the_answer_of_a_kernel_is_read() {
        // Linux 6.18, followed by the acknowledgement.
        let datagram = include_bytes!("fixtures/stats.bin");
        let message = Messages::new(datagram).next().unwrap().unwrap();
        let stats = decode_global(&message).unwrap();
        assert_eq!(stats, GlobalStats { entries: 10, max_entries: Some(0x4_0000) });
    }

    #[test]
    fn counters_of_a_cpu_are_told_apart_and_may_be_missing() {
        let message = Request::new(message_type(IPCTNL_MSG_CT_GET_STATS_CPU), 0)
            .raw(&[0, 0, 1, 2])
            .attribute(CTA_STATS_FOUND, &[0, 0, 0, 3])
            .attribute(CTA_STATS_CHAIN_TOOLONG, &[0, 0, 0, 4])
            .attribute(99, &[])
            .finish(1, 1)
            .unwrap();
        let message = Messages::new(&message).next().unwrap().unwrap();
        let want =
            CpuStats { cpu: 0x102, found: Some(3), chain_toolong: Some(4), ..CpuStats::default() };
        assert_eq!(decode_cpu(&message), Ok(want));
        // The attribute numbers of the statistics of expectations mean something else in those of entries.
        let expectations = decode_expectations(&message).unwrap();
        assert_eq!((expectations.cpu, expectations.create), (0x102, Some(3)));
    }
}
