//! Lists the flows in conntrack's table: protocol, client, server, status.
//!
//! `cargo run --no-default-features --example list` (CAP_NET_ADMIN)

use conntracker::conntrack::{Conntrack, Error};

fn main() -> Result<(), Error> {
    let mut conntrack = Conntrack::connect()?;
    let mut dump = conntrack.dump()?;
    while let Some(entry) = dump.next()? {
        let orig = &entry.orig;
        println!("{} {} {} {:?}", orig.proto, orig.src, orig.dst, orig.l4);
    }
    Ok(())
}
