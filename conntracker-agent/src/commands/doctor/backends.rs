//! Tries the backends that see packets as `trace` would use them.

use anyhow::{Context, Result, anyhow};

use super::{Finding, finding};
use crate::{
    bpf::{
        index::layout::IndexLayout,
        links,
        object::{Programs, Seeing},
        points::{Choice, NoPoint},
        probes::{self, Method, Probes},
        sizes::Sizes,
    },
    capture::kernel::Kernel,
};

/// Small maps: these programs see nothing.
const SIZES: Sizes = Sizes { ring_bytes: 4096, seen_entries: 1, drop_entries: 1, known_flows: 1 };

/// Programs that were loaded, and why those that trace rules were not, if they were refused.
pub(super) struct Loaded {
    pub programs: Programs,
    pub layout: IndexLayout,
    pub without_rules: Option<anyhow::Error>,
}

/// The findings.
pub(super) struct Backends {
    pub findings: Vec<Finding>,
    /// The programs of the backend that would be used.
    pub loaded: Option<Loaded>,
    /// The name of that backend, and what it offers.
    pub chosen: Option<String>,
}

impl Backends {
    /// Tries all of them.
    pub fn of(kernel: Result<&Kernel, &anyhow::Error>) -> Self {
        let kernel = || kernel.map_err(|error| anyhow!("{error:#}"));
        let fentry = kernel().and_then(|kernel| by_probes(kernel, Method::Fentry));
        let kprobe = kernel().and_then(|kernel| by_probes(kernel, Method::Kprobe));
        let links = kernel().and_then(by_links);
        let probes = "probes: flows, their ends, drops, and every rule of nf_tables, with and without counters";
        let chosen = match (&fentry, &kprobe, &links) {
            (Ok(_), ..) => Some(format!("{probes} (by fentry)")),
            (_, Ok(_), _) => Some(format!("{probes} (by kprobe, for fentry does not work)")),
            (.., Ok(_)) => Some(
                "links: flows, drops and rules from BPF programs on netfilter hooks; rules without counters are inferred where they can be"
                    .to_owned(),
            ),
            _ => None,
        };
        let text = |loaded: &Result<Loaded>, what: &str| match loaded {
            Ok(_) => Ok(what.to_owned()),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        let findings = vec![
            finding(
                "links",
                text(&links, "netfilter BPF programs load and attach"),
                "needs Linux 6.4 with CONFIG_NETFILTER_BPF_LINK",
            ),
            finding(
                "fentry",
                text(&fentry, "programs in functions of the kernel load and attach"),
                "needs Linux 5.15 with BTF, of modules too",
            ),
            finding(
                "kprobes",
                text(&kprobe, "programs in functions of the kernel load and attach"),
                "needs CONFIG_KPROBES and CONFIG_KPROBE_EVENTS, and BTF",
            ),
        ];
        let loaded = fentry.or(kprobe).or(links).ok();
        Self { findings, loaded, chosen }
    }
}

/// Loads the programs for links, and tries a link where no packet meets it.
fn by_links(kernel: &Kernel) -> Result<Loaded> {
    links::probe()?;
    let drops = kernel.drops()?;
    let reasons = kernel.reasons();
    let load =
        |rules| Programs::load(&kernel.layout, drops, Some(&reasons), SIZES, rules, Seeing::Links);
    let (programs, without_rules) = match load(true) {
        Ok(programs) => (programs, None),
        Err(error) => (load(false)?, Some(error)),
    };
    Ok(Loaded { programs, layout: kernel.layout.index.clone(), without_rules })
}

/// Loads the programs for functions, attaches them and detaches them. They observe no namespace.
fn by_probes(kernel: &Kernel, method: Method) -> Result<Loaded> {
    let Kernel { btf, layout, points, .. } = kernel;
    probes::check(points, method)?;
    let seeing = probes::seeing(btf, points, method)?;
    let programs =
        Programs::load(layout, kernel.drops()?, Some(&kernel.reasons()), SIZES, true, seeing)?;
    let mut attached = Probes::new(method);
    let mut attach = |choice: &Result<Choice, NoPoint>, hookups| -> Result<()> {
        for point in &choice.as_ref().map_err(NoPoint::clone)?.points {
            attached.attach(&programs, point, hookups)?;
        }
        Ok(())
    };
    attach(&points.confirm, probes::CONFIRM)?;
    attach(&points.hook, probes::HOOK)?;
    // Without nf_tables there are no rules of it to trace.
    let rules = match &points.nft_chain {
        Ok(_) => attach(&points.nft_chain, probes::NFT_CHAIN),
        Err(_) => Ok(()),
    };
    let without_rules = rules.context("rules cannot be traced").err();
    drop(attached);
    Ok(Loaded { programs, layout: layout.index.clone(), without_rules })
}

/// How drops by netfilter are recognised.
pub(super) fn drops(kernel: &Kernel) -> Finding {
    finding(
        "drops",
        kernel.drops().map(|sign| format!("told {sign}")),
        "only the netlink backend works, which does not see drops",
    )
}

/// How the cause of other drops is found.
pub(super) fn lost_packets(kernel: &Kernel) -> Finding {
    let reasons = kernel.reasons();
    let text = match (reasons.any(), kernel.symbols().is_ok()) {
        (true, true) => Ok("told with the kernel's reason, or the function that drops them"),
        (true, false) => {
            Ok("told with the kernel's reason; functions are hidden (kernel.kptr_restrict)")
        }
        (false, true) => Ok("told with the function that drops them: reasons need Linux 5.17"),
        (false, false) => Err(anyhow!(
            "the kernel has no drop reasons (Linux 5.17), and /proc/kallsyms hides functions"
        )),
    };
    finding("lost packets", text.map(str::to_owned), "they are told without a reason")
}

/// The functions that probes use, and why not the preferred ones.
pub(super) fn functions(kernel: &Kernel) -> Vec<Finding> {
    let points = &kernel.points;
    [
        ("hooks", &points.hook),
        ("chains of nf_tables", &points.nft_chain),
        ("tables of ip_tables", &points.ip_table),
        ("tables of ip6_tables", &points.ip6_table),
        ("new flows", &points.confirm),
        ("flows removed", &points.delete),
        ("flows destroyed", &points.destroy),
    ]
    .into_iter()
    .map(|(purpose, choice)| {
        let name = format!("probe of {purpose}");
        match choice {
            Ok(Choice { points, passed_over }) => {
                let names: Vec<&str> = points.iter().map(|point| point.function.as_str()).collect();
                let parts: Vec<String> =
                    std::iter::once(names.join(", ")).chain(passed_over.iter().cloned()).collect();
                Finding { name, ok: true, text: parts.join("; ") }
            }
            Err(error) => Finding { name, ok: false, text: error.to_string() },
        }
    })
    .collect()
}
