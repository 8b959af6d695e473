//! The kernel's virtual server (IPVS): it gives connections other tuples than NAT does, at other hook points.

use std::path::Path;

/// Its sysctls, which each namespace has while the module is loaded.
const SYSCTLS: &str = "/proc/sys/net/ipv4/vs";

/// Whether it is loaded.
pub(super) fn is_loaded() -> bool {
    Path::new(SYSCTLS).exists()
}
