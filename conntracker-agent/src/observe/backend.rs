//! Which source of live flows: the most exact one that works here.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::{
    Config, Intake, Tally,
    events::EventsSource,
    packets::{Eyes, PacketsSource},
    rules::RuleTracer,
};
use crate::{
    flow::{FlowTable, filter::Filter},
    kernel::{
        bpf::{activity::Activity, object::Counters, probes::Method},
        netns::Netns,
    },
};

/// What the `links` backend needs of the kernel.
pub const LINKS_NEED: &str = "they need Linux 6.4 with CONFIG_NETFILTER_BPF_LINK, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// What the `probes` backend needs of the kernel.
pub const PROBES_NEED: &str =
    "they need Linux 5.15 with BTF, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// `--backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The most exact one that works.
    #[default]
    Auto,
    /// Netfilter BPF links (Linux 6.4+).
    Links,
    /// Probes in functions of the kernel.
    Probes,
    /// Conntrack dumps and events.
    Netlink,
}

/// A started backend.
pub(crate) enum Backend {
    Packets(Eyes, Box<PacketsSource>),
    Netlink(EventsSource),
}

/// Starts the backend that the user chose, or the best; says why.
pub(super) fn start(config: &Config, namespaces: &[Arc<Netns>]) -> Result<(Backend, String)> {
    let packets = |eyes| {
        let rules = config.rules;
        PacketsSource::start(eyes, config.sizes, config.folds_at_once(), rules, namespaces)
            .map(|source| Backend::Packets(eyes, Box::new(source)))
    };
    let links = || {
        packets(Eyes::Links)
            .with_context(|| format!("backend `links` does not work here ({LINKS_NEED})"))
    };
    let probes = || -> Result<(Backend, String)> {
        let by = |method| {
            packets(Eyes::Probes(method)).with_context(|| {
                format!("backend `probes` does not work here by {method} ({PROBES_NEED})")
            })
        };
        if let Some(method) = config.attach {
            return Ok((by(method)?, format!("{method}, as asked for")));
        }
        match by(Method::Fentry) {
            Ok(backend) => Ok((backend, Method::Fentry.to_string())),
            Err(error) => match by(Method::Kprobe) {
                Ok(backend) => Ok((backend, format!("kprobe, for {error:#}"))),
                Err(second) => Err(second.context(format!("{error:#}"))),
            },
        }
    };
    let netlink = || {
        Ok::<_, anyhow::Error>(Backend::Netlink(EventsSource::start(
            config.event_buffer,
            namespaces,
        )?))
    };
    let (backend, reason) = match config.backend {
        BackendChoice::Links => (links()?, "asked for".to_owned()),
        BackendChoice::Probes => {
            let (backend, how) = probes()?;
            (backend, format!("asked for; {how}"))
        }
        BackendChoice::Netlink => (netlink()?, "asked for".to_owned()),
        BackendChoice::Auto => match probes() {
            Ok((backend, how)) => (backend, format!("the most exact one that works here; {how}")),
            Err(no_probes) => match links() {
                Ok(backend) => {
                    (backend, format!("the most exact one that works here; {no_probes:#}"))
                }
                Err(no_links) => (netlink()?, format!("{no_links:#}; {no_probes:#}")),
            },
        },
    };
    let unanswerable = config.filter.of_packets();
    if !backend.sees_drops() && !unanswerable.is_empty() {
        bail!(
            "{} cannot be answered by the netlink backend ({reason}): conntrack knows neither interfaces nor drops",
            unanswerable.join(", ")
        );
    }
    if !config.filter.rule.is_empty() && backend.rules().is_none() {
        bail!("--rule needs rules to be traced, and they are not: {}", backend.without_rules());
    }
    Ok((backend, reason))
}

impl Backend {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Packets(Eyes::Links, _) => "links",
            Self::Packets(Eyes::Probes(_), _) => "probes",
            Self::Netlink(_) => "netlink",
        }
    }

    /// Whether drops are seen.
    pub fn sees_drops(&self) -> bool {
        matches!(self, Self::Packets(..))
    }

    /// Whether the kernel counts flows of a folded key by itself.
    pub fn counts_in_kernel(&self) -> bool {
        matches!(self, Self::Packets(..))
    }

    pub fn fold_from_now_on(&mut self) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.fold_from_now_on(),
            Self::Netlink(_) => Ok(()),
        }
    }

    /// Waits until there is something to drain.
    pub async fn ready(&mut self) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.ready().await,
            Self::Netlink(source) => Ok(source.ready().await?),
        }
    }

    /// Looks whether the rules have changed.
    pub fn watch_rules(&mut self) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.watch_rules(),
            Self::Netlink(_) => Ok(()),
        }
    }

    /// Why rules are not traced although they could be with another kernel or other rights.
    pub fn without_rules(&self) -> &str {
        match self {
            Self::Packets(_, source) => source.without_rules().unwrap_or("declined"),
            Self::Netlink(_) => "the netlink backend does not see packets",
        }
    }

    /// The tracer of rules, if rules are traced.
    pub fn rules(&self) -> Option<&RuleTracer> {
        match self {
            Self::Packets(_, source) => source.rules(),
            Self::Netlink(_) => None,
        }
    }

    /// Takes a batch; true if there may be more.
    pub fn drain(&mut self, intake: &mut Intake<'_>) -> Result<bool> {
        match self {
            Self::Packets(_, source) => Ok(source.drain(intake)),
            Self::Netlink(source) => source.drain(intake),
        }
    }

    /// Merges what the kernel has counted.
    pub fn settle(
        &self,
        table: &mut FlowTable,
        filter: &Filter,
        of_kernel: impl Fn(u64) -> u64,
    ) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.settle(table, filter, of_kernel),
            Self::Netlink(_) => Ok(()),
        }
    }

    /// Whether conntrack is active in a namespace; `None` if this backend cannot tell.
    pub fn activity(&mut self, netns: &Netns) -> Option<Result<Activity>> {
        match self {
            Self::Packets(_, source) => Some(source.activity(netns)),
            Self::Netlink(_) => None,
        }
    }

    /// The BPF programs' counters.
    pub fn counters(&self) -> Result<Option<Counters>> {
        match self {
            Self::Packets(_, source) => source.counters().map(Some),
            Self::Netlink(_) => Ok(None),
        }
    }

    /// Records lost, or times that events were.
    pub fn lost(&self, tally: &Tally) -> Result<u64> {
        match self {
            Self::Packets(_, source) => source.lost(),
            Self::Netlink(_) => Ok(tally.event_overruns),
        }
    }
}
