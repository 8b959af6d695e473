//! Programs in functions of the kernel: fentry and fexit (Linux 5.11+ for functions of modules), or
//! kprobes where the kernel refuses those.

use std::{
    collections::HashMap,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, anyhow, bail};
use aya_obj::generated::bpf_attach_type::{BPF_TRACE_FENTRY, BPF_TRACE_FEXIT};

use conntracker_common::{
    offsets::NftOffsets,
    probes::{ABSENT, Arguments},
};

use super::{
    btf::KernelBtf,
    links::returning,
    object::{Programs, Seeing},
    points::{Choice, Point, Points, Search},
    sys,
};

/// How programs are attached to functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By BTF, through a trampoline.
    Fentry,
    /// By name, through a breakpoint or ftrace.
    Kprobe,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        })
    }
}

/// A program, and whether it runs at the end of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hookup {
    program: &'static str,
    at_end: bool,
    /// Whether it is needed only with kprobes, whose program at the return has no arguments.
    kprobe_only: bool,
}

const fn begin(program: &'static str) -> Hookup {
    Hookup { program, at_end: false, kprobe_only: false }
}

const fn end(program: &'static str) -> Hookup {
    Hookup { program, at_end: true, kprobe_only: false }
}

const fn for_end(program: &'static str) -> Hookup {
    Hookup { program, at_end: false, kprobe_only: true }
}

/// The programs of a function. The one at its end is attached first, so that every call that was seen to begin is
/// seen to end.
pub type Hookups = &'static [Hookup];

/// `nf_hook_slow`.
pub const HOOK: Hookups = &[end("hook_ends"), for_end("hook_begins")];
/// `nft_do_chain`.
pub const NFT_CHAIN: Hookups = &[end("nft_ends"), begin("nft_begins")];
/// `ipt_do_table` and `ip6t_do_table`.
pub const TABLE: Hookups = &[end("table_ends"), begin("table_begins")];
/// Evaluators of expressions that end no rule.
pub const MATCHES: Hookups = &[begin("rule_matches")];
/// Other evaluators.
pub const EXPRESSION: Hookups = &[end("expression_ends"), for_end("expression_begins")];
/// Targets of xtables.
pub const TARGET: Hookups = &[end("target_ends"), for_end("target_begins")];
/// Programs of the function that packets meet just before they confirm a flow.
pub const CONFIRM: Hookups = &[begin("confirms")];
/// `nf_ct_delete`.
pub const DELETE: Hookups = &[begin("flow_deleted")];
/// `nf_ct_destroy`.
pub const DESTROY: Hookups = &[begin("flow_destroyed")];

/// Programs that are attached. Dropping it detaches them.
pub struct Probes {
    method: Method,
    /// Kprobe programs, each loaded once.
    kprobes: HashMap<&'static str, OwnedFd>,
    /// By function.
    attached: HashMap<String, Vec<Attached>>,
    /// Missed runs of programs that were detached.
    missed_before: u64,
}

/// A program at a function.
struct Attached {
    /// Its own copy of the program, if it has one.
    program: Option<OwnedFd>,
    /// Held only to keep it attached.
    _link: OwnedFd,
}

impl Probes {
    /// None yet.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self { method, kprobes: HashMap::new(), attached: HashMap::new(), missed_before: 0 }
    }

    /// Attaches programs to a function, unless they are attached.
    ///
    /// # Errors The kernel refuses one; then none stays attached to the function.
    pub fn attach(&mut self, programs: &Programs, point: &Point, hookups: Hookups) -> Result<()> {
        if self.attached.contains_key(&point.function) {
            return Ok(());
        }
        let mut links = Vec::new();
        for hookup in hookups {
            if hookup.kprobe_only && self.method == Method::Fentry {
                continue;
            }
            let link = match self.method {
                Method::Fentry => fentry(programs, point, hookup),
                Method::Kprobe => self
                    .kprobe(programs, point, hookup)
                    .map(|link| Attached { program: None, _link: link }),
            };
            links.push(link.with_context(|| {
                format!(
                    "cannot attach to the kernel's function {} by {}",
                    point.function, self.method
                )
            })?);
        }
        self.attached.insert(point.function.clone(), links);
        Ok(())
    }

    /// Detaches from all functions but these.
    ///
    /// # Errors The number of missed runs cannot be read.
    pub fn retain(&mut self, keep: impl Fn(&String) -> bool) -> io::Result<()> {
        let gone = self.attached.extract_if(|function, _| !keep(function));
        let gone: Vec<Attached> = gone.flat_map(|(_, attached)| attached).collect();
        self.missed_before += missed(gone.iter().filter_map(|one| one.program.as_ref()))?;
        Ok(())
    }

    /// Runs that the kernel skipped because the program was running on that CPU already (counted since Linux 5.12,
    /// for kprobes since 6.7).
    ///
    /// # Errors
    /// As those of [`sys::missed_runs`].
    pub fn missed(&self) -> io::Result<u64> {
        let own = self.attached.values().flatten().filter_map(|one| one.program.as_ref());
        Ok(self.missed_before + missed(own.chain(self.kprobes.values()))?)
    }

    fn kprobe(&mut self, programs: &Programs, point: &Point, hookup: &Hookup) -> Result<OwnedFd> {
        let name = hookup.program;
        if !self.kprobes.contains_key(name) {
            self.kprobes.insert(name, programs.load_probe(name, sys::load_kprobe)?);
        }
        let program = self.kprobes.get(name).context("a program was not loaded")?;
        let function = match &point.module {
            Some(module) => format!("{module}:{}", point.function),
            None => point.function.clone(),
        };
        Ok(sys::attach_kprobe(program.as_fd(), &function, hookup.at_end)?)
    }
}

fn missed<'a>(mut programs: impl Iterator<Item = &'a OwnedFd>) -> io::Result<u64> {
    programs.try_fold(0, |sum, program| Ok(sum + sys::missed_runs(program.as_fd())?))
}

fn fentry(programs: &Programs, point: &Point, hookup: &Hookup) -> Result<Attached> {
    let target = target(point)?;
    let kind = if hookup.at_end { BPF_TRACE_FEXIT } else { BPF_TRACE_FENTRY };
    let program = programs.load_probe(hookup.program, |name, code| {
        sys::load_tracing(name, code, kind as u32, target.borrowed())
    })?;
    let link = sys::attach_tracing(program.as_fd())?;
    Ok(Attached { program: Some(program), _link: link })
}

/// Whether the kernel accepts programs in its functions: attaches the smallest one and detaches it.
pub fn check(points: &Points, method: Method) -> Result<()> {
    let hook = points.hook.clone()?;
    let point = hook.points.first().context("no function")?;
    let code = returning(0);
    let refused = || format!("the kernel refused a program in its function {}", point.function);
    match method {
        Method::Fentry => {
            let target = target(point)?;
            let program = sys::load_tracing(
                "ct_probe",
                code[..].into(),
                BPF_TRACE_FEXIT as u32,
                target.borrowed(),
            )?;
            sys::attach_tracing(program.as_fd()).with_context(refused)?;
        }
        Method::Kprobe => {
            let program = sys::load_kprobe("ct_probe", code[..].into())?;
            sys::attach_kprobe(program.as_fd(), &point.function, true).with_context(refused)?;
        }
    }
    Ok(())
}

/// A function as the kernel knows it.
struct OwnedTarget {
    btf_id: u32,
    module: Option<OwnedFd>,
}

impl OwnedTarget {
    fn borrowed(&self) -> sys::Target<'_> {
        sys::Target { btf_id: self.btf_id, module: self.module.as_ref().map(OwnedFd::as_fd) }
    }
}

fn target(point: &Point) -> Result<OwnedTarget> {
    let module = match &point.module {
        Some(name) => {
            let found = sys::module_btf(name)?;
            Some(found.with_context(|| format!("the kernel has no BTF of its module {name}"))?)
        }
        None => None,
    };
    Ok(OwnedTarget { btf_id: point.btf_id, module })
}

/// Where programs find arguments.
///
/// # Errors A function that flows need is missing. Functions that rules need may be missing, because their module may
/// be loaded later.
pub fn seeing(btf: &KernelBtf, points: &Points, method: Method) -> Result<Seeing> {
    let places = ContextOffsets { btf, method };
    let everywhere = Search { btf, exists: &|_| true, avoid: &[] };
    let confirm = points.confirm.clone()?;
    let mut arguments = Arguments::ZERO;
    arguments.kprobes = u32::from(method == Method::Kprobe);
    arguments.blobs = u32::from(btf.member_offset("nft_chain", "blob_gen_0").is_ok());
    [arguments.hook_skb] = places.of(&points.hook.clone()?)?;
    arguments.hook_result = places.result(&points.hook.clone()?)?;
    [arguments.confirm_skb] = places.of(&confirm)?;
    arguments.confirm_state = match places.of(&confirm) {
        Ok([_, state]) => state,
        Err(_) => ABSENT,
    };
    if let Ok(choice) = &points.nft_chain {
        [arguments.nft_pkt, arguments.nft_chain] = places.of(choice)?;
        arguments.nft_result = places.result(choice)?;
    }
    // Before ip_tables is loaded: since Linux 5.16 its functions are hook functions, which all have the same
    // arguments (include/linux/netfilter.h, `nf_hookfn`).
    arguments.xt_table = places.argument(0)?;
    (arguments.xt_skb, arguments.xt_state) = (places.argument(1)?, places.argument(2)?);
    arguments.xt_result = places.result_behind(3)?;
    for choice in [&points.ip_table, &points.ip6_table].into_iter().flatten() {
        [arguments.xt_skb, arguments.xt_state, arguments.xt_table] = places.of(choice)?;
        arguments.xt_result = places.result(choice)?;
    }
    if let Ok(choice) = &points.delete {
        [arguments.delete_ct] = places.of(choice)?;
    }
    if let Ok(choice) = &points.destroy {
        [arguments.destroy_ct] = places.of(choice)?;
    }
    // All evaluators have the arguments of `nft_expr_ops.eval`.
    if let Ok(point) = everywhere.evaluator("nft_immediate_eval") {
        let choice = Choice { points: vec![point], passed_over: Vec::new() };
        [arguments.eval_expr, arguments.eval_regs, arguments.eval_pkt] = places.of(&choice)?;
    }
    // All targets have the arguments of `xt_target.target`. The offset of their data is known before x_tables is
    // loaded: it is the second word, behind the target.
    (arguments.target_skb, arguments.target_par) = (places.argument(0)?, places.argument(1)?);
    arguments.target_result = places.result_behind(2)?;
    arguments.par_targinfo = btf.member_offset("xt_action_param", "targinfo").unwrap_or(8);
    let nft = match points.nft_chain {
        Ok(_) => NftOffsets::from_array(&btf.member_offsets(NftOffsets::MEMBERS)?),
        Err(_) => NftOffsets::ZERO,
    };
    Ok(Seeing::Probes { arguments, nft })
}

/// Registers of arguments and of the result, as members of `struct pt_regs` (System V ABI; AAPCS64).
#[cfg(target_arch = "x86_64")]
const REGISTERS: (&[&str], &str) = (&["di", "si", "dx", "cx", "r8", "r9"], "ax");
#[cfg(target_arch = "aarch64")]
const REGISTERS: (&[&str], &str) = (
    &["regs[0]", "regs[1]", "regs[2]", "regs[3]", "regs[4]", "regs[5]", "regs[6]", "regs[7]"],
    "regs[0]",
);

/// Finds places in the context of programs.
struct ContextOffsets<'a> {
    btf: &'a KernelBtf,
    method: Method,
}

impl ContextOffsets<'_> {
    /// Registers of a purpose's arguments, which are the same in all functions of the purpose.
    fn of<const N: usize>(&self, choice: &Choice) -> Result<[u32; N]> {
        let mut found: Option<[u32; N]> = None;
        for point in &choice.points {
            let places = point.args.iter().take(N).map(|&at| self.argument(at));
            let places: Vec<u32> = places.collect::<Result<_>>()?;
            let function = &point.function;
            let places: [u32; N] =
                places.try_into().map_err(|_| anyhow!("{function} has too few arguments"))?;
            if found.is_some_and(|other| other != places) {
                bail!(
                    "{function} has other arguments than the functions that the programs were loaded for"
                );
            }
            found = Some(places);
        }
        found.context("no function")
    }

    fn argument(&self, at: u8) -> Result<u32> {
        match self.method {
            Method::Fentry => Ok(u32::from(at) * 8),
            Method::Kprobe => {
                let register =
                    REGISTERS.0.get(usize::from(at)).context("an argument on the stack")?;
                Ok(self.btf.member_offset("pt_regs", register)?)
            }
        }
    }

    /// That of the result.
    fn result(&self, choice: &Choice) -> Result<u32> {
        let point = choice.points.first().context("no function")?;
        let function = self.btf.function(&point.function).context("no function")?;
        self.result_behind(function.parameters.len())
    }

    /// Register of the result of a function with this number of arguments.
    fn result_behind(&self, arguments: usize) -> Result<u32> {
        match self.method {
            Method::Fentry => Ok(arguments as u32 * 8),
            Method::Kprobe => Ok(self.btf.member_offset("pt_regs", REGISTERS.1)?),
        }
    }
}
