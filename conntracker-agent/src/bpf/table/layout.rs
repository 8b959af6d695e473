//! Offsets of the members that the table's reader needs.

use anyhow::{Context, Result};
use conntracker_common::{
    offsets::{TABLE_ASSUMED, TableOffsets},
    table::{CONN_BYTES, TUPLE_BYTES, TableNumbers},
};
use nix::time::{ClockId, clock_getres};

use crate::bpf::{
    btf::{BtfError, KernelBtf, layout},
    offsets::{LayoutError, check},
};

layout! {
    /// `struct nf_conn`, and the extensions that every kernel has.
    Conn {
        users = "nf_conn"."ct_general.use";
        timeout = "nf_conn"."timeout";
        orig = "nf_conn"."tuplehash[0].tuple";
        reply = "nf_conn"."tuplehash[1].tuple";
        status = "nf_conn"."status";
        tcp_state = "nf_conn"."proto.tcp.state";
        tcp_scale = "nf_conn"."proto.tcp.seen[0].td_scale";
        tcp_scale_reply = "nf_conn"."proto.tcp.seen[1].td_scale";
        tcp_flags = "nf_conn"."proto.tcp.seen[0].flags";
        tcp_flags_reply = "nf_conn"."proto.tcp.seen[1].flags";
        ext_offsets = "nf_ct_ext"."offset";
        acct = "nf_conn_acct"."counter[0].packets";
        acct_bytes = "nf_conn_acct"."counter[0].bytes";
        acct_reply = "nf_conn_acct"."counter[1].packets";
        acct_reply_bytes = "nf_conn_acct"."counter[1].bytes";
        seqadj = "nf_conn_seqadj"."seq[0]";
        seqadj_reply = "nf_conn_seqadj"."seq[1]";
        seqadj_before = "nf_ct_seqadj"."offset_before";
        seqadj_after = "nf_ct_seqadj"."offset_after";
    }
}

layout! {
    /// `struct ip_ct_sctp`.
    Sctp {
        state = "nf_conn"."proto.sctp.state";
        vtag = "nf_conn"."proto.sctp.vtag[0]";
        vtag_reply = "nf_conn"."proto.sctp.vtag[1]";
    }
}

layout! {
    /// `struct nf_ct_dccp` (until Linux 6.16).
    Dccp {
        state = "nf_conn"."proto.dccp.state";
        role = "nf_conn"."proto.dccp.role[0]";
        handshake_seq = "nf_conn"."proto.dccp.handshake_seq";
    }
}

layout! {
    /// `struct nf_conn_tstamp`.
    Stamp {
        start = "nf_conn_tstamp"."start";
        stop = "nf_conn_tstamp"."stop";
    }
}

layout! {
    /// `struct nf_conn_labels`.
    Labels {
        bits = "nf_conn_labels"."bits";
    }
}

layout! {
    /// `struct nf_conn_synproxy`.
    SynProxy {
        isn = "nf_conn_synproxy"."isn";
        its = "nf_conn_synproxy"."its";
        tsoff = "nf_conn_synproxy"."tsoff";
    }
}

layout! {
    /// The path from a sysctl file to its variable.
    Sysctl {
        task_files = "task_struct"."files";
        files_table = "files_struct"."fdt";
        table_files = "fdtable"."fd";
        file_inode = "file"."f_inode";
        proc_inode = "proc_inode"."vfs_inode";
        proc_entry = "proc_inode"."sysctl_entry";
        entry_data = "ctl_table"."data";
    }
}

/// An optional extension of the kernel: its number, and its members.
type Extension<T> = Option<(u32, T)>;

/// How entries lie in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryLayout {
    pub conn: Conn,
    /// NF_CT_EXT_ACCT and NF_CT_EXT_SEQADJ.
    pub ext_acct: u32,
    pub ext_seqadj: Option<u32>,
    pub zone: Option<u64>,
    pub mark: Option<u64>,
    pub secmark: Option<u64>,
    pub sctp: Option<Sctp>,
    pub dccp: Option<Dccp>,
    pub stamp: Extension<Stamp>,
    pub labels: Extension<Labels>,
    pub synproxy: Extension<SynProxy>,
    /// Ticks of a second.
    pub hz: u32,
}

/// What reading the table depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableLayout {
    /// For the program.
    pub offsets: TableOffsets,
    pub numbers: TableNumbers,
    /// For us.
    pub entry: EntryLayout,
    pub sysctl: Sysctl,
}

impl TableLayout {
    /// Looks the offsets up; `hz` is the number of ticks in a second.
    pub fn resolve(btf: &KernelBtf, hz: u32) -> Result<Self, LayoutError> {
        check(btf, TABLE_ASSUMED)?;
        let entry = EntryLayout::resolve(btf, hz)?;
        let ext_helper = btf.enumerator("NF_CT_EXT_HELPER")?;
        Ok(Self {
            offsets: TableOffsets::from_array(&btf.member_offsets(TableOffsets::MEMBERS)?),
            numbers: TableNumbers { conn_bytes: entry.conn_bytes()?, ext_helper },
            entry,
            sysctl: Sysctl::find(btf)?,
        })
    }
}

impl EntryLayout {
    /// Bytes of a `struct nf_conn` up to the last member that is read.
    fn conn_bytes(&self) -> Result<u32, LayoutError> {
        let Conn { reply, status, tcp_state, tcp_flags_reply, .. } = self.conn;
        let word = |at: Option<u64>| at.map_or(0, |at| at + 4);
        let ends = [
            reply + TUPLE_BYTES as u64,
            status + 4,
            tcp_state.max(tcp_flags_reply) + 1,
            word(self.zone),
            word(self.mark),
            word(self.secmark),
            word(self.sctp.map(|members| members.state.max(members.vtag_reply))),
            self.dccp.map_or(0, |members| members.state.max(members.handshake_seq) + 8),
        ];
        // Copied in whole words.
        let end = ends.into_iter().max().unwrap_or_default().next_multiple_of(8) as u32;
        if end > CONN_BYTES as u32 {
            let (strukt, path) = ("nf_conn", "proto");
            return Err(LayoutError::Changed {
                strukt,
                path,
                found: end,
                expected: CONN_BYTES as u32,
            });
        }
        Ok(end)
    }

    /// Resolves it.
    pub fn resolve(btf: &KernelBtf, hz: u32) -> Result<Self, BtfError> {
        let number = |name| btf.enumerator(name);
        let member = |path: &str| btf.member_offset("nf_conn", path).ok().map(u64::from);
        Ok(Self {
            conn: Conn::find(btf)?,
            ext_acct: number("NF_CT_EXT_ACCT")?,
            ext_seqadj: number("NF_CT_EXT_SEQADJ").ok(),
            zone: member("zone"),
            mark: member("mark"),
            secmark: member("secmark"),
            sctp: Sctp::find(btf).ok(),
            dccp: Dccp::find(btf).ok(),
            stamp: number("NF_CT_EXT_TSTAMP").ok().zip(Stamp::find(btf).ok()),
            labels: number("NF_CT_EXT_LABELS").ok().zip(Labels::find(btf).ok()),
            synproxy: number("NF_CT_EXT_SYNPROXY").ok().zip(SynProxy::find(btf).ok()),
            hz,
        })
    }
}

/// Ticks in a second (CONFIG_HZ), from the resolution of a coarse clock.
pub(super) fn hz() -> Result<u32> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?.tv_nsec().cast_unsigned();
    // Rounded, because 300 does not divide a second.
    let hz = (1_000_000_000 + tick / 2).checked_div(tick).context("the clock has no ticks")?;
    Ok(u32::try_from(hz)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::fixtures::{KERNELS, kernel};

    #[test]
    fn every_kernel_has_what_is_needed_and_no_more_than_there_is_room_for() {
        let bytes = KERNELS.map(|name| {
            let layout = TableLayout::resolve(&kernel(name), 250).unwrap();
            assert_eq!(
                layout.entry.dccp.is_some(),
                !name.contains("6.18") && !name.contains("7.2")
            );
            (name, layout.numbers.conn_bytes)
        });
        let expected = [240, 240, 232, 232, 232, 232, 232, 232];
        assert_eq!(bytes.map(|(_, bytes)| bytes), expected, "{bytes:?}");
    }
}
