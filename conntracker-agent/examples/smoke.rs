use conntracker::kernel::{bpf::{links::Links, object::{Programs, Sizes}, offsets::Layout, record::Record, ring::RecordRing}, netns::Netns};
#[tokio::main(flavor="current_thread")]
async fn main() -> anyhow::Result<()> {
    let name = std::env::args().nth(1).unwrap();
    conntracker::kernel::bpf::links::probe()?;
    let layout = Layout::of_running_kernel()?;
    println!("{layout:?}");
    let mut p = Programs::load(&layout, Sizes::default())?;
    let ns = Netns::named(&name)?;
    println!("{ns:?}");
    p.trace_netns(ns.cookie.unwrap())?;
    p.attach_drops()?;
    let l = Links::attach(p.flow_end(), &ns)?;
    println!("{l:?}");
    let mut ring = RecordRing::new(p.take_ring()?)?;
    for _ in 0..60 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        ring.drain(|b| println!("{:?}", Record::decode(b)));
    }
    println!("{:?}", p.counters()?);
    Ok(())
}
