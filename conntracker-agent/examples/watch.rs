//! Tells of flows that begin and end, for so many seconds: `watch SECONDS`.
//!
//! `cargo run --no-default-features --example watch -- 10` (CAP_NET_ADMIN)

use std::error::Error;
use std::time::{Duration, Instant};

use conntracker::conntrack::{Conntrack, EventOptions, Item};

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).ok_or("usage: watch SECONDS")?.parse()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut events = Conntrack::connect()?.into_events(&EventOptions::default())?;
    eprintln!("listening");
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        match events.next_within(left)? {
            Some(Item::Event { kind, entry, .. }) => {
                println!("{kind:?} {} {} {:?}", entry.orig.src, entry.orig.dst, entry.orig.l4);
            }
            // The receive buffer was full. The table is read anew: what it shows comes as `Item::Resync`.
            Some(Item::Gap(gap)) => eprintln!("{} events were lost", gap.lost.unwrap_or_default()),
            Some(_) | None => {}
        }
    }
}
