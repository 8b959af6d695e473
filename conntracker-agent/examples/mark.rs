//! Gives the UDP flow of a client's port to a server's port a connmark: `mark CLIENT PORT SERVER PORT MARK`.
//!
//! `cargo run --no-default-features --example mark -- 192.0.2.1 1000 198.51.100.2 53 7` (CAP_NET_ADMIN)

use std::error::Error;

use conntracker::conntrack::{Change, Conntrack, EntryKey, MarkChange};
use conntracker::model::{L4, Mark, Tuple};

const UDP: u8 = 17;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [client, sport, server, dport, mark] = &words[..] else {
        return Err("usage: mark CLIENT PORT SERVER PORT MARK".into());
    };
    let key = EntryKey::orig(Tuple {
        src: client.parse()?,
        dst: server.parse()?,
        proto: UDP,
        l4: L4::Ports { src: sport.parse()?, dst: dport.parse()? },
    });
    let change = Change::default().mark(MarkChange::to(Mark(mark.parse()?)));
    let mut conntrack = Conntrack::connect()?;
    conntrack.update(&key, &change)?;
    let entry = conntrack.get(&key)?.ok_or("the flow has ended meanwhile")?;
    println!("{} {}", entry.orig.src, entry.mark.unwrap_or_default());
    Ok(())
}
