//! Who is behind this port of a NAT router? `nat_port PORT` prints the client of each flow that is translated to it.
//!
//! `cargo run --no-default-features --example nat_port -- 40123` (CAP_NET_ADMIN)

use std::error::Error;

use conntracker::conntrack::Conntrack;
use conntracker::model::{L4, Status};

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: nat_port PORT")?.parse()?;
    let mut conntrack = Conntrack::connect()?;
    let mut dump = conntrack.dump()?;
    while let Some(entry) = dump.next()? {
        // Answers come to the address and port that the client was translated to.
        let translated = entry.reply.filter(|_| entry.status.contains(Status::SRC_NAT));
        if let Some(reply) = translated
            && matches!(reply.l4, L4::Ports { dst, .. } if dst == port)
        {
            println!(
                "{} {:?} as {} to {}",
                entry.orig.src, entry.orig.l4, reply.dst, entry.orig.dst
            );
        }
    }
    Ok(())
}
