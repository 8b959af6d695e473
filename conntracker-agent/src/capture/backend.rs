//! Chooses the source of live flows: the most exact one that works here.

use std::{io, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    Config, Hurry, Intake, Tally,
    events::EventsSource,
    kernel::Kernel,
    owners::Owners,
    packets::{FlowOptions, PacketBackend, PacketsSource},
    tracing::RuleTracer,
};
use crate::{
    bpf::{
        activity::Activity,
        counts::Counters,
        probes::{self, Method},
    },
    capture::BackendChoice,
    model::NetnsId,
    os::netns::Netns,
    recording::statement,
};

/// What the `links` backend needs of the kernel.
pub const LINKS_NEED: &str = "they need Linux 6.4 with CONFIG_NETFILTER_BPF_LINK, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// What the `probes` backend needs of the kernel.
pub const PROBES_NEED: &str =
    "they need Linux 5.15 with BTF, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// A started backend.
pub(crate) enum Backend {
    Packets(PacketBackend, Box<PacketsSource>),
    Netlink(EventsSource),
}

/// Why a backend was taken.
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    /// In a clause, for reports.
    pub short: String,
    /// The reason, with the kernel's errors of the other backends.
    pub full: String,
}

impl From<String> for Reason {
    fn from(reason: String) -> Self {
        Self { short: reason.clone(), full: reason }
    }
}

/// Why a backend was not taken.
struct Without {
    clause: &'static str,
    full: String,
}

impl From<anyhow::Error> for Without {
    fn from(error: anyhow::Error) -> Self {
        let refused = |cause: &(dyn std::error::Error + 'static)| {
            let refusal = cause.downcast_ref::<io::Error>();
            refusal.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        let clause =
            if error.chain().any(refused) { "not permitted here" } else { "not possible here" };
        Self { clause, full: format!("{error:#}") }
    }
}

/// What tells the rest of a [`Reason`].
const SEE: &str = "see conntracker doctor";

/// Starts backends.
struct Starter<'a> {
    config: &'a Config,
    namespaces: &'a [Arc<Netns>],
    kernel: Result<Kernel>,
    hurry: &'a Hurry,
}

impl Starter<'_> {
    async fn packets(&self, eyes: PacketBackend) -> Result<Backend> {
        let Self { config, namespaces, kernel, hurry } = self;
        let kernel = kernel.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        if let PacketBackend::Probes(method) = eyes {
            probes::check(&kernel.points, method)?;
        }
        let flows =
            FlowOptions { sizes: config.sizes, fold: config.folds_at_once(), lost: config.lost };
        let source =
            PacketsSource::start(kernel, eyes, flows, config.rules, namespaces, hurry).await?;
        Ok(Backend::Packets(eyes, Box::new(source)))
    }

    async fn links(&self) -> Result<Backend> {
        let context = || format!("backend `links` does not work here ({LINKS_NEED})");
        self.packets(PacketBackend::Links).await.with_context(context)
    }

    /// Probes by the method that was asked for, or by the first one that works.
    async fn probes(&self) -> Result<(Backend, String), Without> {
        let by = async |method| {
            let context =
                || format!("backend `probes` does not work here by {method} ({PROBES_NEED})");
            self.packets(PacketBackend::Probes(method)).await.with_context(context)
        };
        if let Some(method) = self.config.attach {
            return Ok((by(method).await?, format!("by {method}, as asked for")));
        }
        let no_fentry = match by(Method::Fentry).await {
            Ok(backend) => return Ok((backend, "by fentry".to_owned())),
            Err(error) => error,
        };
        match by(Method::Kprobe).await {
            Ok(backend) => {
                log::debug!("{no_fentry:#}");
                Ok((backend, "by kprobe".to_owned()))
            }
            Err(no_kprobe) => {
                let Without { clause, full } = no_fentry.into();
                Err(Without { clause, full: format!("{full}; {no_kprobe:#}") })
            }
        }
    }

    fn netlink(&self) -> Result<Backend> {
        Ok(Backend::Netlink(EventsSource::start(self.config.event_buffer, self.namespaces)?))
    }

    /// The most exact one: probes see rules without counters, links cost less than kprobes.
    async fn best(&self) -> Result<(Backend, Reason)> {
        let (no_probes, blind) = match self.probes().await {
            Ok((backend, how)) if self.sees_rules(&backend) => return Ok((backend, how.into())),
            Ok((backend, how)) => {
                let full = format!("probes cannot trace rules: {}", backend.without_rules());
                (Without { clause: "cannot trace rules here", full }, Some((backend, how)))
            }
            Err(without) => (without, None),
        };
        let links = |backend| {
            let Without { clause, full } = &no_probes;
            (backend, Reason { short: format!("probes: {clause}; {SEE}"), full: full.clone() })
        };
        match (self.links().await, blind) {
            (Ok(backend), None) => Ok(links(backend)),
            (Ok(backend), Some(_)) if self.sees_rules(&backend) => Ok(links(backend)),
            (_, Some((backend, how))) => Ok((backend, how.into())),
            (Err(no_links), None) => {
                let no_links = Without::from(no_links);
                let reason = Reason {
                    short: format!(
                        "links: {}, probes: {}; {SEE}",
                        no_links.clause, no_probes.clause
                    ),
                    full: format!("{}; {}", no_links.full, no_probes.full),
                };
                Ok((self.netlink()?, reason))
            }
        }
    }

    /// Whether a backend traces rules, if rules are wanted.
    fn sees_rules(&self, backend: &Backend) -> bool {
        self.config.rules.is_none() || backend.rules().is_some()
    }
}

/// Starts the backend that the user chose, or the best one; returns it with the reason.
pub(crate) async fn start(
    config: &Config,
    namespaces: &[Arc<Netns>],
    hurry: &Hurry,
) -> Result<(Backend, Reason)> {
    let kernel = match config.backend {
        BackendChoice::Netlink => Err(anyhow!("not looked at")),
        _ => Kernel::running(&config.avoid),
    };
    let starter = Starter { config, namespaces, kernel, hurry };
    let asked_for = || Reason::from("asked for".to_owned());
    let (backend, reason) = match config.backend {
        BackendChoice::Links => (starter.links().await?, asked_for()),
        BackendChoice::Probes => {
            let (backend, how) = starter.probes().await.map_err(|without| anyhow!(without.full))?;
            (backend, format!("asked for, {how}").into())
        }
        BackendChoice::Netlink => (starter.netlink()?, asked_for()),
        BackendChoice::Auto => starter.best().await?,
    };
    let unanswerable = config.filter.of_packets();
    if !backend.sees_drops() && !unanswerable.is_empty() {
        bail!(
            "{} cannot be answered by the netlink backend ({}): conntrack knows neither interfaces nor drops",
            unanswerable.join(", "),
            reason.full
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
            Self::Packets(PacketBackend::Links, _) => "links",
            Self::Packets(PacketBackend::Probes(_), _) => "probes",
            Self::Netlink(_) => "netlink",
        }
    }

    /// Whether drops are seen.
    pub fn sees_drops(&self) -> bool {
        matches!(self, Self::Packets(..))
    }

    /// Whether the programs count flows of a folded key.
    pub fn counts_in_kernel(&self) -> bool {
        matches!(self, Self::Packets(..))
    }

    /// Observes one more namespace.
    pub fn observe(&mut self, id: NetnsId, netns: &Arc<Netns>) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.observe(id, netns),
            Self::Netlink(source) => source.observe(id, netns),
        }
    }

    /// A namespace is gone.
    pub fn forget(&mut self, id: NetnsId, netns: &Netns) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.forget(id, netns),
            Self::Netlink(source) => {
                source.forget(id);
                Ok(())
            }
        }
    }

    /// Reads the rules of the observed namespaces that were not read yet.
    pub async fn read_rules(&mut self, hurry: &Hurry) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.read_rules(hurry).await,
            Self::Netlink(_) => Ok(()),
        }
    }

    /// Forgets a namespace that has ended.
    pub fn forget_all_of(&mut self, id: NetnsId) {
        match self {
            Self::Packets(_, source) => source.forget_all_of(id),
            Self::Netlink(_) => {}
        }
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
    pub fn watch_rules(&mut self) {
        match self {
            Self::Packets(_, source) => source.watch_rules(),
            Self::Netlink(_) => {}
        }
    }

    /// Why rules are not traced, if another kernel or more privileges would allow it.
    pub fn without_rules(&self) -> &str {
        match self {
            Self::Packets(_, source) => source.without_rules().unwrap_or("declined"),
            Self::Netlink(_) => "the netlink backend does not see packets",
        }
    }

    /// Who has the sockets at the ends of flows; `None` if the backend does not see it.
    pub fn owners(&mut self) -> Option<&mut Owners> {
        match self {
            Self::Packets(_, source) => Some(source.owners()),
            Self::Netlink(_) => None,
        }
    }

    /// Whether ends of flows are records.
    pub fn sees_ends(&self) -> bool {
        matches!(self, Self::Packets(PacketBackend::Probes(_), source) if source.without_ends().is_none())
    }

    /// Why this backend sees no ends of flows, if another kernel would allow it.
    pub fn without_ends(&self) -> Option<&str> {
        match self {
            Self::Packets(PacketBackend::Probes(_), source) => source.without_ends(),
            Self::Packets(PacketBackend::Links, _) | Self::Netlink(_) => None,
        }
    }

    /// The tracer of rules, if rules are traced.
    pub fn rules(&self) -> Option<&RuleTracer> {
        match self {
            Self::Packets(_, source) => source.rules(),
            Self::Netlink(_) => None,
        }
    }

    /// Rulesets of epochs that have begun since the last call, if they are recorded.
    pub fn take_rulesets(&mut self) -> Vec<statement::Ruleset> {
        match self {
            Self::Packets(_, source) => source.take_rulesets(),
            Self::Netlink(_) => Vec::new(),
        }
    }

    /// Takes a batch; true if there may be more.
    pub fn drain(&mut self, intake: &mut Intake<'_>) -> Result<bool> {
        match self {
            Self::Packets(_, source) => Ok(source.drain(intake)),
            Self::Netlink(source) => source.drain(intake),
        }
    }

    /// Takes the programs' counts of dropped packets: all, or only if their map is nearly full.
    pub fn take_drops(&mut self, intake: &mut Intake<'_>, all: bool) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.take_drops(intake, all),
            Self::Netlink(_) => Ok(()),
        }
    }

    /// Merges the flows that the kernel has counted.
    pub fn take_flow_counts(&self, intake: &mut Intake<'_>) -> Result<()> {
        match self {
            Self::Packets(_, source) => source.take_flow_counts(intake),
            Self::Netlink(_) => Ok(()),
        }
    }

    /// Whether conntrack is active in a namespace; `None` if this backend cannot find out.
    pub fn activity(&mut self, netns: &Netns) -> Option<Result<Activity>> {
        match self {
            Self::Packets(_, source) => Some(source.activity(netns)),
            Self::Netlink(_) => None,
        }
    }

    /// Why hooks, interfaces and replies of new flows are not seen; `None` if they are.
    pub fn without_hooks(&self) -> Option<&str> {
        match self {
            Self::Packets(_, source) => source.without_hooks(),
            Self::Netlink(_) => None,
        }
    }

    /// Runs of probes that the kernel skipped; `None` without probes.
    pub fn missed(&self) -> Result<Option<u64>> {
        match self {
            Self::Packets(_, source) => source.missed(),
            Self::Netlink(_) => Ok(None),
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

    /// Those of them that a dump mends.
    pub fn lost_flows(&self, tally: &Tally) -> Result<u64> {
        match self {
            Self::Packets(_, source) => source.lost_flows(),
            Self::Netlink(_) => Ok(tally.event_overruns),
        }
    }
}
