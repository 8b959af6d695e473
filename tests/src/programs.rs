//! Debian's programs that write rulesets: each runs in the network namespace of the lab's router and in a mount
//! namespace of its own, by a script of `tests/tests/firewalls/programs/`.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::rulesets::tracing;

/// A program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name, and that of its script.
    pub name: &'static str,
    /// What is installed if it is.
    binary: &'static str,
    /// Tried in CI as well.
    pub quick: bool,
}

/// All of them.
#[rustfmt::skip]
pub const PROGRAMS: [Program; 5] = [
    Program { name: "ufw", binary: "ufw", quick: true },
    Program { name: "ferm", binary: "ferm", quick: true },
    Program { name: "fail2ban", binary: "fail2ban-server", quick: true },
    Program { name: "shorewall", binary: "shorewall", quick: false },
    Program { name: "firewalld", binary: "firewalld", quick: false },
];

impl Program {
    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PROGRAMS.into_iter().find(|program| program.name == name)
    }

    /// Whether it is installed.
    #[must_use]
    pub fn is_installed(self) -> bool {
        ["/usr/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(self.binary).exists())
    }

    /// Lets it replace whatever the router has, then adds what makes the kernel trace. `banned`: addresses that
    /// fail2ban is told of.
    pub fn load(self, lab: &Lab, banned: &[String]) -> Result<()> {
        let router = &lab.router;
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/firewalls/programs");
        let script = scripts.join(self.name).with_extension("sh");
        let unshare = ["unshare", "--mount", "--propagation", "private", "sh"].map(OsString::from);
        let words = unshare.into_iter().chain([script.into()]);
        router
            .run(words.chain(banned.iter().map(OsString::from)))
            .context("the program's script")?;
        let loaded = router.run(["nft", "list", "ruleset"])?;
        ensure!(loaded.contains("hook forward"), "{} has loaded nothing:\n{loaded}", self.name);
        router.nft(&tracing())
    }
}

/// Two addresses of clients that flows come from, for fail2ban.
#[must_use]
pub fn banned(flows: &[crate::burst::Planned]) -> Vec<String> {
    let mut clients: Vec<String> = flows.iter().map(|flow| flow.from.ip().to_string()).collect();
    clients.retain(|address| address.starts_with("10.78."));
    clients.dedup();
    clients.truncate(2);
    clients
}
