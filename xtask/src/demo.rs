//! `cargo xtask demo`: a firewall between a client and a server, traffic through it, and the
//! report on the terminal. All of it in namespaces; the machine's own network is not touched.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conntracker_tests::lab::{Guarded, Lab};
use conntracker_tests::traffic::{
    ip_sink, ping4, ping6, raw_ip, sctp_exchange, sctp_server, tcp_echo_server, tcp_exchange,
    udp_echo_server, udp_exchange, udp_send,
};

use crate::{build, cmd, setup};

/// Show conntracker at work in a lab of network namespaces. Takes under a minute.
#[derive(clap::Args)]
pub struct Args {
    /// The binary to show, already built (how the demo calls itself through sudo).
    #[arg(long, hide = true)]
    binary: Option<PathBuf>,
}

const SECONDS: u64 = 8;

/// How long a fresh trace may take until it sees packets.
const START: Duration = Duration::from_millis(1500);

const FIREWALL: &str = r#"
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related counter accept
        ct state invalid counter drop
        ip saddr 10.78.0.0/16 counter drop comment "not from there"
        udp dport 9999 counter drop comment "never to this port"
        iifname "toclient" counter jump from_client
        meta l4proto { icmp, ipv6-icmp } counter accept
    }
    chain from_client {
        tcp dport { 80, 443 } counter accept comment "web"
        udp dport 53 counter accept comment "names"
        sctp dport 3868 counter accept comment "diameter"
    }
}
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        ip daddr 10.77.1.1 tcp dport 8080 counter dnat to 10.77.2.2:80
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "toserver" meta l4proto tcp counter masquerade
    }
}
"#;

pub fn main(args: &Args) -> Result<ExitCode> {
    let binary = if let Some(binary) = &args.binary {
        binary.clone()
    } else {
        setup::ensure()?;
        build::build(false)?
    };
    if !cmd::is_root() {
        let mut again = cmd::as_root(std::env::current_exe()?);
        let error = again.arg("demo").arg("--binary").arg(binary).exec();
        return Err(error).context("sudo");
    }
    let lab = Lab::new()?;
    lab.router.nft(FIREWALL)?;
    eprintln!(
        "demo: client {} - router {} - server {}, firewall:",
        lab.client.v4(),
        lab.router.name,
        lab.server.v4()
    );
    eprintln!("{FIREWALL}");
    let command =
        ["trace", "--netns", &lab.router.name, "--duration", &SECONDS.to_string(), "-o", "-"]
            .map(str::to_owned);
    eprintln!("demo: conntracker {}", command.join(" "));
    let mut tracer = Guarded::spawn(Command::new(binary).args(command).stdin(Stdio::null()))?;
    let start = Instant::now();
    thread::sleep(START);
    traffic(&lab, start + Duration::from_secs(SECONDS - 1))?;
    let status = tracer.wait(Duration::from_secs(30))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn traffic(lab: &Lab, until: Instant) -> Result<()> {
    let Lab { client, router, server } = lab;
    let _servers = [
        tcp_echo_server(server, server.at(80))?,
        tcp_echo_server(server, server.at6(443))?,
        udp_echo_server(server, server.at(53))?,
        udp_echo_server(server, server.at6(53))?,
        sctp_server(server, server.at(3868))?,
        ip_sink(server, 47, server.v4().into())?,
    ];
    for round in 0_u16.. {
        // What the firewall lets through, with NAT …
        tcp_exchange(client, client.at(0), server.at(80), b"GET /")?;
        tcp_exchange(client, client.at(0), router.at(8080), b"GET / by way of the router")?;
        tcp_exchange(client, client.at6(0), server.at6(443), b"hello")?;
        udp_exchange(client, client.at(0), server.at(53), b"who is who?")?;
        udp_exchange(client, client.at6(0), server.at6(53), b"who is who?")?;
        sctp_exchange(client, client.at(30_000 + round), server.at(3868))?;
        ping4(client, server.v4().into(), 100, 1)?;
        ping6(client, server.v6().into(), 100, 1)?;
        // … and what it drops.
        udp_send(client, client.at(0), server.at(9999), b"to be dropped", 1)?;
        udp_send(client, "10.78.0.1:0".parse()?, server.at(53), b"to be dropped", 1)?;
        raw_ip(client, 47, server.v4().into(), &[0; 8])?;
        if Instant::now() > until {
            break;
        }
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}
