//! Namespaces whose lab was killed before it could remove them.

use std::fs;
use std::path::Path;
use std::sync::Once;

use super::exec;

/// How the name of each namespace of a lab starts; the process that owns it follows.
pub(super) const PREFIX: &str = "ct-";

/// Where `ip netns` keeps the namespaces it names.
pub(super) const NAMESPACES: &str = "/run/netns";

/// Removes the labs of processes that no longer exist. Once per process is enough.
pub(super) fn remove_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(entries) = fs::read_dir(NAMESPACES) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if let Some(owner) = name.to_str().and_then(owner)
                && !Path::new("/proc").join(owner.to_string()).exists()
            {
                // Another process may have been faster; then it is gone just the same.
                let _ = exec::ip(["netns".as_ref(), "del".as_ref(), name.as_os_str()]);
            }
        }
    });
}

/// The process that made a namespace, if its name is one of ours: `ct-PID-NUMBER-{c,r,s}`.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, number, host) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || number.parse::<u32>().is_err() || !["c", "r", "s"].contains(&host)
    {
        return None;
    }
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_our_own_names_have_an_owner() {
        assert_eq!(owner("ct-123-0-r"), Some(123));
        for name in ["ct-123-0", "ct-123-0-x", "ct-x-0-r", "ct-1-0-r-s", "123-0-r", "ct--0-r"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}
