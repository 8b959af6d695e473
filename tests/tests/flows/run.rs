//! Carries the packet plan out, in one lab for each backend, with several tracers side by side.

use std::fs;
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};
use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::conntrack::{self, Events};
use conntracker_tests::tracer::report::{Document, Text};
use conntracker_tests::tracer::{Flow, L4, PATIENCE, Tracer, backend};
use conntracker_tests::traffic::{
    Server, gre_packet, ip_sink, ping, raw_ip, sctp_exchange, sctp_init, sctp_server, tcp_connect,
    tcp_echo_server, tcp_exchange, udp_echo_server, udp_exchange, udp_send, udp_sink,
};
use nix::sys::signal::Signal;

use crate::plan::{
    ECHO, GRE, LATE, RULESET, Row, SCTP, SERVER_RULESET, SINK, Traffic, When, plan, sender,
};

/// Timeouts of entries that must be there until all tracers observe: on an emulated CPU that takes
/// its time.
const SHORT_LIVED: [&str; 7] = [
    "gre_timeout",
    "icmp_timeout",
    "icmpv6_timeout",
    "sctp_timeout_closed",
    "sctp_timeout_cookie_wait",
    "tcp_timeout_close",
    "udp_timeout",
];

/// What came of one run.
pub struct Outcome {
    pub backend: &'static str,
    pub plan: Vec<Row>,
    /// `conntrack -L` at the start and `conntrack -E` during the run, merged.
    pub conntrack: Vec<Flow>,
    /// Lines of `conntrack -L` at the end, with accounting.
    pub table: Vec<String>,
    pub json: Document,
    pub json_text: String,
    pub ndjson: Document,
    pub ndjson_text: String,
    /// With `-c`: rules are not traced.
    pub flows_only: Document,
    pub text: Text,
    pub folded_json: Document,
    pub folded_text: Text,
}

/// The run with BPF programs, which see packets.
pub fn packets() -> &'static Outcome {
    static RUN: LazyLock<Result<Outcome, String>> = LazyLock::new(|| outcome(backend()));
    RUN.as_ref().unwrap_or_else(|error| panic!("{}: {error}", backend()))
}

/// The run with dumps and events.
pub fn netlink() -> &'static Outcome {
    static RUN: LazyLock<Result<Outcome, String>> = LazyLock::new(|| outcome("netlink"));
    RUN.as_ref().unwrap_or_else(|error| panic!("netlink: {error}"))
}

/// A failed run fails each of its tests with its reason.
fn outcome(backend: &'static str) -> Result<Outcome, String> {
    run(backend).map_err(|error| format!("{error:#}"))
}

fn run(backend: &'static str) -> Result<Outcome> {
    let lab = Lab::new()?;
    lab.router.nft(RULESET)?;
    lab.router.sysctl("net.netfilter.nf_conntrack_acct", "1")?;
    for entry in SHORT_LIVED {
        lab.router.sysctl(&format!("net.netfilter.nf_conntrack_{entry}"), "120")?;
    }
    lab.server.nft(SERVER_RULESET)?;
    let plan = plan(&lab);
    let servers = serve(&lab)?;
    let mut open = Vec::new();
    for row in plan.iter().filter(|row| row.when == When::Before) {
        send(&lab, row, &mut open)?;
    }

    let mut events = Events::start(&lab.router)?;
    let mut told = conntrack::list(&lab.router)?;
    let directory = tempfile::tempdir()?;
    let formats: [&[&str]; 6] = [
        &["--format", "json", "--no-fold"],
        &["--format", "ndjson", "--no-fold"],
        &["--no-fold", "--explain"],
        &["--format", "json"],
        &[],
        &["--format", "json", "--no-fold", "-c"],
    ];
    let mut tracers = Vec::new();
    for (number, format) in formats.iter().enumerate() {
        let file = directory.path().join(number.to_string());
        let path = file.to_str().context("a path in UTF-8")?;
        let args = [&["-o", path, "--backend", backend], *format].concat();
        tracers.push((Tracer::start(&lab.router, &args)?, file));
    }

    for row in plan.iter().filter(|row| row.when == When::During) {
        send(&lab, row, &mut open)?;
    }
    late(&lab, &plan)?;
    // A report in the middle: the first dump is through then, and nothing else may change by it.
    for (tracer, _) in &mut tracers {
        tracer.process().signal(Signal::SIGUSR1)?;
        tracer.process().wait_for(" written to ", PATIENCE)?;
    }
    for row in plan.iter().filter(|row| row.deleted) {
        delete(&lab, row)?;
    }

    let mut reports = Vec::new();
    for (tracer, file) in tracers {
        tracer.finish()?;
        reports.push(fs::read_to_string(file)?);
    }
    let table = conntrack::lines(&lab.router, &[])?;
    // Of changes to older flows there are no events.
    for line in &table {
        told.push(conntrack::parse(line)?);
    }
    // Events arrive in order: when this one has, all have.
    udp_send(&lab.client, lab.client.at(65_000), lab.server.at(9), b"end", 1)?;
    events.wait_for("sport=65000 dport=9")?;
    told.extend(events.finish()?);
    told.retain(|flow| flow.orig.l4 != L4::Ports(65_000, 9));
    drop((open, servers));

    let [json, ndjson, text, folded_json, folded_text, flows_only] = &reports[..] else {
        unreachable!("one for each format")
    };
    Ok(Outcome {
        backend,
        plan,
        conntrack: conntracker_tests::tracer::merge(told),
        table,
        json: Document::json(json)?,
        json_text: json.clone(),
        ndjson: Document::ndjson(ndjson)?,
        ndjson_text: ndjson.clone(),
        text: Text::parse(text)?,
        folded_json: Document::json(folded_json)?,
        folded_text: Text::parse(folded_text)?,
        flows_only: Document::json(flows_only)?,
    })
}

/// Everything that answers, or at least takes packets without an error.
fn serve(lab: &Lab) -> Result<(Vec<Server>, Vec<std::net::UdpSocket>)> {
    let (s, r) = (&lab.server, &lab.router);
    let mut servers = Vec::new();
    for port in ECHO {
        for at in [s.at(*port), s.at6(*port)] {
            servers.push(tcp_echo_server(s, at)?);
            servers.push(udp_echo_server(s, at)?);
        }
    }
    servers.extend([udp_echo_server(r, r.at(7))?, udp_echo_server(r, r.at6(7))?]);
    servers.extend([sctp_server(s, s.at(3868))?, sctp_server(s, s.at6(3868))?]);
    for address in [s.v4().into(), s.v6().into()] {
        for protocol in [SCTP, GRE, 253] {
            servers.push(ip_sink(s, protocol, address)?);
        }
    }
    let mut sinks = Vec::new();
    for port in SINK {
        sinks.extend([udp_sink(s, s.at(*port))?, udp_sink(s, s.at6(*port))?]);
    }
    Ok((servers, sinks))
}

/// Sends what a row says. Connections that are to stay open are put into `open`.
fn send(lab: &Lab, row: &Row, open: &mut Vec<TcpStream>) -> Result<()> {
    let Row { traffic, from, to, .. } = *row;
    let host = sender(lab, from.ip());
    match traffic {
        Traffic::Tcp => tcp_exchange(host, from, to, b"hello"),
        Traffic::TcpOpen => {
            open.push(tcp_connect(host, from, to, PATIENCE)?);
            Ok(())
        }
        Traffic::TcpSyn => {
            // Shorter than the time until the first retransmission: one packet.
            let connected = tcp_connect(host, from, to, Duration::from_millis(300));
            anyhow::ensure!(connected.is_err(), "{to} answered");
            Ok(())
        }
        Traffic::Udp => udp_exchange(host, from, to, b"hello"),
        Traffic::UdpSend(packets) => {
            // The length of the payload chooses the zone of one row.
            let payload: &[u8] = if row.flow.zone == 7 { b"1" } else { b"hello" };
            for _ in 0..packets {
                let sent = udp_send(host, from, to, payload, 1);
                // A packet that dies on the sender's own hooks is an error of the sender.
                let own = row.dropped.is_some_and(|dropped| dropped.hook == Some("output"));
                anyhow::ensure!(sent.is_err() == own, "{row:?}: {sent:?}");
            }
            Ok(())
        }
        Traffic::UdpTwice => {
            udp_exchange(host, from, to, b"hello")?;
            udp_send(host, from, to, b"again", 1)
        }
        Traffic::UdpLate => {
            let _sink = udp_sink(&lab.server, to)?;
            udp_send(host, from, to, b"hello", 1)
        }
        Traffic::Ping => {
            let answered = ping(host, from.ip(), to.ip(), from.port(), 1)?;
            anyhow::ensure!(answered == 1, "{to} did not answer");
            Ok(())
        }
        Traffic::Sctp => sctp_exchange(host, from, to),
        Traffic::SctpInit => sctp_init(host, from, to),
        Traffic::Ip(GRE) => gre_packet(host, to.ip(), None),
        Traffic::Ip(protocol) => raw_ip(host, protocol, to.ip(), b"hello"),
    }
    .with_context(|| format!("{row:?}"))
}

/// The answers that come late.
fn late(lab: &Lab, plan: &[Row]) -> Result<()> {
    let _server = udp_echo_server(&lab.server, lab.server.at(LATE))?;
    for row in plan.iter().filter(|row| row.traffic == Traffic::UdpLate) {
        udp_exchange(sender(lab, row.from.ip()), row.from, row.to, b"hello")?;
    }
    Ok(())
}

fn delete(lab: &Lab, row: &Row) -> Result<()> {
    let family = if row.from.is_ipv4() { "ipv4" } else { "ipv6" };
    let (source, port) = (row.from.ip().to_string(), row.from.port().to_string());
    let args = ["conntrack", "-D", "-f", family, "-p", "udp", "-s", &source, "--sport", &port];
    lab.router.run(args).map(drop)
}
