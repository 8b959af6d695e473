//! `conntrack -S`: a line for each CPU.

use super::digits::decimal;
use super::plain::field;
use crate::conntrack::{CpuStats, ExpectCpuStats};

/// Appends the counters of a CPU. Counters that the kernel lacks are left out.
pub fn cpu(out: &mut Vec<u8>, stats: &CpuStats) {
    let CpuStats {
        cpu,
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
    } = *stats;
    line(
        out,
        cpu,
        &[
            ("found=", found),
            ("invalid=", invalid),
            ("insert=", insert),
            ("insert_failed=", insert_failed),
            ("drop=", drop),
            ("early_drop=", early_drop),
            ("error=", error),
            ("search_restart=", search_restart),
            ("clash_resolve=", clash_resolve),
            ("chaintoolong=", chain_toolong),
        ],
    );
}

/// Appends the counters of a CPU about expectations.
pub fn expect_cpu(out: &mut Vec<u8>, stats: &ExpectCpuStats) {
    let ExpectCpuStats { cpu, new, create, delete } = *stats;
    let counters = [("expect_new=", new), ("expect_create=", create), ("expect_delete=", delete)];
    line(out, cpu, &counters);
}

fn line(out: &mut Vec<u8>, cpu: u16, counters: &[(&str, Option<u32>)]) {
    out.extend_from_slice(b"cpu=");
    let start = out.len();
    decimal(out, cpu);
    out.resize(out.len().max(start + 4), b' ');
    out.push(b'\t');
    for (name, counter) in counters {
        if let Some(counter) = *counter {
            field(out, name.as_bytes(), counter);
        }
    }
    out.push(b'\n');
}
