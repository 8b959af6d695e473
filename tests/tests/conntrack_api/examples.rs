//! The examples of the library, each in a namespace.

use std::path::PathBuf;

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::traffic::udp_through;

/// What an example prints there. Cargo builds them beside the tests, unless a single test program was asked for.
fn printed(host: &Host, example: &str, args: &[&str]) -> Option<String> {
    let deps = std::env::current_exe().unwrap();
    let program: PathBuf = deps.parent().unwrap().parent().unwrap().join("examples").join(example);
    if !program.exists() {
        println!("skipped: {example} was not built: `cargo test --workspace` does");
        return None;
    }
    let words = [program.to_str().unwrap()].into_iter().chain(args.iter().copied());
    Some(host.run(words).unwrap())
}

#[test]
fn flows_are_listed_and_marked() {
    let lab = Lab::tracking().unwrap();
    udp_through(&lab, 40_000).unwrap();
    let Some(listed) = printed(&lab.router, "list", &[]) else { return };
    let line = "17 10.77.1.2 10.77.2.2 Ports { src: 40000, dst: 7 }\n";
    assert!(listed.contains(line), "{listed}");
    let args = ["10.77.1.2", "40000", "10.77.2.2", "7", "77"];
    assert_eq!(printed(&lab.router, "mark", &args).unwrap(), "10.77.1.2 77\n");
    let told = lab.router.run(["conntrack", "-L", "-m", "77"]).unwrap();
    assert!(told.contains("sport=40000 dport=7"), "{told}");
}

#[test]
fn who_is_behind_a_port_of_the_router_is_told() {
    let lab = Lab::tracking().unwrap();
    lab.router
        .nft(
            "table ip nat { chain p { type nat hook postrouting priority srcnat;
                oifname toserver meta l4proto udp masquerade to :5555; }; }",
        )
        .unwrap();
    udp_through(&lab, 40_000).unwrap();
    let Some(told) = printed(&lab.router, "nat_port", &["5555"]) else { return };
    assert!(told.starts_with("10.77.1.2 Ports { src: 40000, dst: 7 } as 10.77.2.1 "), "{told}");
    assert_eq!(printed(&lab.router, "nat_port", &["5556"]).unwrap(), "");
}

#[test]
fn flows_that_begin_are_told() {
    let lab = Lab::tracking().unwrap();
    let router = &lab.router;
    let told = std::thread::scope(|scope| {
        let watching = scope.spawn(|| printed(router, "watch", &["3"]));
        std::thread::sleep(std::time::Duration::from_secs(1));
        udp_through(&lab, 40_000).unwrap();
        watching.join().unwrap()
    });
    let Some(told) = told else { return };
    assert!(told.contains("New 10.77.1.2 10.77.2.2 Ports { src: 40000, dst: 7 }"), "{told}");
}
