//! `conntracker doctor`: a line for each thing that this system offers or lacks, with the reason and the substitute.

mod backends;
mod preemption;

use std::{fs, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use conntracker_common::probes::ABSENT;

use self::backends::{Backends, Loaded};
use crate::{
    bpf::{
        activity::Activity,
        btf::{Btf, BtfError, SYSFS},
        index::{self, Index},
        symbols::{Kallsyms, Symbols},
    },
    capture::{NetnsChoice, kernel::Kernel},
    firewall::program,
    live::{
        self,
        notes::{HOW_TO_ACTIVATE, Settings},
    },
    model::harmless::OneLine,
    netlink::{Socket, ctnetlink::stats},
    os::{netns::Netns, output::Destination},
};

/// Capabilities that matter: (bit of CapEff, name, what for). linux/capability.h.
const CAPABILITIES: &[(u32, &str, &str)] = &[
    (12, "CAP_NET_ADMIN", "conntrack events and netfilter links"),
    (38, "CAP_PERFMON", "reading kernel memory in BPF programs"),
    (39, "CAP_BPF", "loading BPF programs"),
    (21, "CAP_SYS_ADMIN", "entering other network namespaces"),
];

/// Modules whose structures conntracker reads, each with a function that is in the kernel's own BTF
/// if the module is built in.
const MODULES: &[(&str, &str)] = &[
    ("nf_conntrack", "nf_conntrack_in"),
    ("nf_tables", "nft_do_chain"),
    ("ip_tables", "ipt_do_table"),
];

/// A finding.
struct Finding {
    name: String,
    ok: bool,
    text: String,
}

/// Prints all findings. Exit status 1 if not even the netlink backend works.
pub fn run(netns: &NetnsChoice) -> Result<ExitCode> {
    let namespaces = netns.open()?;
    let netns = namespaces.first().context("no namespace")?;
    let vmlinux = Btf::vmlinux();
    let vmlinux = vmlinux.as_deref();
    let kernel = Kernel::running(&[]);
    let Backends { findings: mut backends, mut loaded, chosen } = Backends::of(kernel.as_ref());
    let netlink = netlink(netns);
    let works = chosen.is_some() || netlink.ok;
    let chosen = match (&chosen, netlink.ok) {
        (Some(chosen), _) => chosen,
        (None, true) => {
            "netlink: flows from conntrack dumps and events; drops and rules are not visible"
        }
        (None, false) => "none: run as root, or with CAP_NET_ADMIN",
    };
    backends.push(netlink);
    let mut findings = backends;
    if let Ok(kernel) = &kernel {
        findings.push(backends::drops(kernel));
        findings.push(backends::lost_packets(kernel));
        findings.extend(backends::functions(kernel));
        findings.push(preemption::finding(!kernel.layout.switches.contains(&ABSENT)));
    }
    findings.extend(btf(vmlinux));
    findings.extend(capabilities());
    findings.extend(conntrack(netns, loaded.as_mut()));
    findings.push(counters(loaded.as_ref()));
    findings.push(maps());
    findings.push(rules(netns, loaded.as_mut()));
    findings.extend(firewalls(netns));
    let width = findings.iter().map(|f| f.name.len()).max().unwrap_or(0);
    Destination::Stdout.write(|out| {
        for Finding { name, ok, text } in &findings {
            let ok = if *ok { "yes" } else { "no" };
            writeln!(out, "{name:width$}  {ok:3}  {}", OneLine(text))?;
        }
        writeln!(out, "{:width$}       {}", "backend", OneLine(chosen))
    })?;
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the maps of a trace take, the larger ones by name.
fn maps() -> Finding {
    const MEBIBYTE: u64 = 1 << 20;
    let said = live::sizes().maps(true).map(|maps| {
        let large = maps.iter().filter(|(_, bytes)| *bytes >= MEBIBYTE);
        let large: Vec<String> =
            large.map(|(name, bytes)| format!("{name} {} MiB", bytes / MEBIBYTE)).collect();
        let all: u64 = maps.iter().map(|(_, bytes)| bytes).sum();
        format!("{} MiB for a trace of rules: {}", all / MEBIBYTE, large.join(", "))
    });
    finding("kernel maps", said, "")
}

fn finding(name: &str, result: Result<String>, instead: &str) -> Finding {
    let name = name.to_owned();
    match result {
        Ok(text) => Finding { name, ok: true, text },
        Err(error) => {
            let instead = if instead.is_empty() { String::new() } else { format!("; {instead}") };
            Finding { name, ok: false, text: format!("{error:#}{instead}") }
        }
    }
}

fn netlink(netns: &Netns) -> Finding {
    let result = (|| {
        let mut socket = netns.enter(|| Socket::netfilter().map_err(std::io::Error::other))?;
        let stats = stats::global(&mut socket)?;
        Ok(format!("ctnetlink answers: {} entries", stats.entries))
    })();
    finding(
        "netlink",
        result,
        "without it there is no list of flows (modprobe nf_conntrack_netlink)",
    )
}

fn btf(vmlinux: Result<&Btf, &BtfError>) -> Vec<Finding> {
    let mut all = vec![finding(
        "BTF",
        match vmlinux {
            Ok(_) => Ok(format!("{SYSFS}/vmlinux")),
            Err(error) => Err(anyhow!("{error}")),
        },
        "needs CONFIG_DEBUG_INFO_BTF; without it the netlink backend is used",
    )];
    for (module, function) in MODULES {
        let result = if Path::new(SYSFS).join(module).exists() {
            Ok(format!("{SYSFS}/{module}"))
        } else if vmlinux.is_ok_and(|btf| btf.function(function).is_some()) {
            Ok("built into the kernel".to_owned())
        } else {
            Err(anyhow!("module {module} is not loaded, or has no BTF"))
        };
        all.push(finding(&format!("BTF of {module}"), result, "needed only if it is in use"));
    }
    all
}

fn capabilities() -> Vec<Finding> {
    let effective = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim();
            u64::from_str_radix(line, 16).ok()
        })
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .map(|(bit, name, purpose)| Finding {
            name: (*name).to_owned(),
            ok: effective >> bit & 1 == 1,
            text: (*purpose).to_owned(),
        })
        .collect()
}

/// Whether conntrack is active: its hook functions prove both answers, entries in its table prove that it is.
fn active(netns: &Netns, loaded: Option<&mut Loaded>, settings: &Settings) -> Finding {
    let found = loaded.map(|Loaded { programs, layout, .. }| {
        let net = programs.kernel_memory().net(netns)?;
        let hooks = index::hooks_of(
            programs.kernel_memory(),
            layout,
            &mut Symbols::of(&Kallsyms::read()?),
            net,
        )?;
        Ok::<_, anyhow::Error>(Activity::of(&hooks))
    });
    let (ok, text) = match found {
        Some(Ok(Activity { v4, v6 })) => {
            let families = match (v4, v6) {
                (true, true) => "for IPv4 and IPv6".to_owned(),
                (true, false) => "for IPv4 only".to_owned(),
                (false, true) => "for IPv6 only".to_owned(),
                (false, false) => format!("no rule needs it. {HOW_TO_ACTIVATE}"),
            };
            (v4 || v6, families)
        }
        _ if settings.count > 0 => (true, format!("{} entries in the table", settings.count)),
        Some(Err(error)) => (false, format!("unknown: {error:#}, and the table is empty")),
        None => (false, format!("unknown: the table is empty. {HOW_TO_ACTIVATE}")),
    };
    Finding { name: "conntrack active".to_owned(), ok, text }
}

fn conntrack(netns: &Arc<Netns>, loaded: Option<&mut Loaded>) -> Vec<Finding> {
    let settings = Settings::of(netns).unwrap_or_default();
    let yes_no = |name: &str, ok: bool, yes: String, no: &str| Finding {
        name: name.to_owned(),
        ok,
        text: if ok { yes } else { no.to_owned() },
    };
    vec![
        active(netns, loaded, &settings),
        Finding {
            name: "conntrack table".to_owned(),
            ok: settings.fullness().is_none(),
            text: settings
                .fullness()
                .unwrap_or_else(|| format!("room for {} entries", settings.max)),
        },
        yes_no(
            "nf_conntrack_acct",
            settings.accounting,
            "packets and bytes are counted".to_owned(),
            "packets and bytes are not counted: sysctl -w net.netfilter.nf_conntrack_acct=1",
        ),
        yes_no(
            "nf_conntrack_events",
            settings.events > 0,
            if settings.events == 2 {
                "sent while somebody listens".to_owned()
            } else {
                "sent".to_owned()
            },
            "the netlink backend sees dumps only: sysctl -w net.netfilter.nf_conntrack_events=1",
        ),
        yes_no(
            "nf_conntrack_timestamp",
            settings.timestamps,
            "start times are kept".to_owned(),
            "flows older than the trace have no start time: sysctl -w net.netfilter.nf_conntrack_timestamp=1",
        ),
    ]
}

/// Whether the programs can read counters, without which rules of iptables-legacy cannot be traced.
fn counters(loaded: Option<&Loaded>) -> Finding {
    let result = loaded.context("needs links or probes").and_then(|loaded| {
        match loaded.programs.without_counters() {
            Some(why) => bail!(why),
            None => Ok("can be read".to_owned()),
        }
    });
    finding("counters of rules", result, "hooks with rules of iptables-legacy are not traced")
}

/// Whether the rules can be found in the kernel's memory, as `trace` would look for them.
fn rules(netns: &Netns, loaded: Option<&mut Loaded>) -> Finding {
    let result = loaded.context("needs links or probes").and_then(|loaded| {
        let Loaded { programs, layout, without_rules } = loaded;
        if let Some(error) = without_rules {
            bail!("{error:#}");
        }
        let net = programs.kernel_memory().net(netns)?;
        let Index { nft, legacy, .. } = Index::read(
            programs.kernel_memory(),
            layout,
            &mut Symbols::of(&Kallsyms::read()?),
            net,
        )?;
        let (nft, legacy) = (nft.len(), legacy.len());
        Ok(format!("can be traced (chains of nf_tables: {nft}, tables of ip_tables: {legacy})"))
    });
    finding("rules", result, "flows are reported without the rules that their packets met")
}

fn firewalls(netns: &Netns) -> Vec<Finding> {
    let nft = program::find("nft");
    let legacy = netns
        .enter(|| {
            let tables =
                |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
            Ok(tables("ip_tables_names") + &tables("ip6_tables_names"))
        })
        .unwrap_or_default();
    let legacy: Vec<&str> = legacy.split_whitespace().collect();
    vec![
        Finding {
            name: "nft".to_owned(),
            ok: nft.is_some(),
            text: nft.map_or_else(
                || "the nft program is not found, in PATH or elsewhere: rules of nf_tables cannot be listed, nor traced".to_owned(),
                |path| path.display().to_string(),
            ),
        },
        Finding {
            name: "legacy tables".to_owned(),
            ok: !legacy.is_empty(),
            text: if legacy.is_empty() {
                "iptables-legacy is not in use".to_owned()
            } else {
                legacy.join(" ")
            },
        },
    ]
}
