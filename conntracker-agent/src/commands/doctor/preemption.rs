//! The kernel's preemption model. With some models another task may run between two links of a packet that a process
//! sends.

use std::fs;

use super::Finding;

/// File with the model in use (needs debugfs).
const MODE: &str = "/sys/kernel/debug/sched/preempt";

/// The finding. `noticed`: the programs can detect that a task was switched out.
pub(super) fn finding(noticed: bool) -> Finding {
    let version = nix::sys::utsname::uname()
        .map(|uname| uname.version().to_string_lossy().into_owned())
        .unwrap_or_default();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mode = fs::read_to_string(MODE).ok();
    let model = model(&version, &command_line, mode.as_deref());
    let text = match (may_preempt(&model), noticed) {
        (false, _) => format!("{model}: no other task runs between two links of a packet"),
        (true, true) => format!(
            "{model}: another task may run between two links of a packet that a process sends; the packet is then known by its chains only"
        ),
        (true, false) => format!(
            "{model}: another task may run between two links of a packet that a process sends, and BTF does not tell how to notice it: rules at OUTPUT may be another packet's"
        ),
    };
    Finding { name: "preemption".to_owned(), ok: noticed || !may_preempt(&model), text }
}

/// The model, by `uname -v`, the kernel's command line, and debugfs where it is mounted.
fn model(version: &str, command_line: &str, mode: Option<&str>) -> String {
    let words: Vec<&str> = version.split_whitespace().collect();
    if words.contains(&"PREEMPT_RT") {
        return "PREEMPT_RT".to_owned();
    }
    if words.contains(&"PREEMPT") {
        return "full".to_owned();
    }
    if !words.contains(&"PREEMPT_DYNAMIC") {
        return "none or voluntary".to_owned();
    }
    let chosen = mode.and_then(|mode| Some(mode.split_once('(')?.1.split_once(')')?.0));
    let asked = || command_line.split_whitespace().rev().find_map(|w| w.strip_prefix("preempt="));
    match chosen.or_else(asked) {
        Some(mode) => mode.to_owned(),
        None => format!("dynamic, with the kernel's default (see {MODE})"),
    }
}

fn may_preempt(model: &str) -> bool {
    !matches!(model, "none" | "voluntary" | "none or voluntary")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_told_by_what_the_kernel_says() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)";
        assert_eq!(model("#1 SMP PREEMPT_RT Debian", "", None), "PREEMPT_RT");
        assert_eq!(model("#1 SMP PREEMPT Thu", "", None), "full");
        assert_eq!(model("#1 SMP Debian 5.10", "preempt=full", None), "none or voluntary");
        assert_eq!(model(debian, "quiet preempt=full x", None), "full");
        assert_eq!(
            model(debian, "preempt=full", Some("none (voluntary) full lazy\n")),
            "voluntary"
        );
        let unknown = model(debian, "quiet", None);
        assert!(unknown.starts_with("dynamic") && may_preempt(&unknown), "{unknown}");
        assert!(!may_preempt("voluntary"));
    }
}
