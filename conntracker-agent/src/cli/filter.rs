//! The filters, the same everywhere.

use clap::Args;
use conntracker::{
    conntrack::ProtoState,
    model::filter::{AnyOf, Family, Filter, MaskedMark, RuleFilter, StatusIs, Term},
};
use ipnet::IpNet;

use super::values::{self, Listed, Ports};
use conntracker::model::Zone;

/// Repeated values of one filter are alternatives, different filters must all hold, a leading `!`
/// excludes.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Filters (repeat, or list with commas, for alternatives; `!VALUE` excludes)"
)]
pub struct FilterArgs {
    /// Protocol, by name or number.
    #[arg(short = 'p', long, value_name = "PROTO", value_parser = values::proto)]
    proto: Vec<Listed<u8>>,
    /// Source address or network, original direction.
    #[arg(short = 's', long, value_name = "CIDR", value_parser = values::networks)]
    src: Vec<Listed<IpNet>>,
    /// Destination address or network, original direction.
    #[arg(long, value_name = "CIDR", value_parser = values::networks)]
    dst: Vec<Listed<IpNet>>,
    /// Source port: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    sport: Vec<Ports>,
    /// Destination port: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    dport: Vec<Ports>,
    /// Source address or network, reply direction (the server behind DNAT).
    #[arg(long, value_name = "CIDR", value_parser = values::networks)]
    reply_src: Vec<Listed<IpNet>>,
    /// Destination address or network, reply direction (the address that SNAT gave).
    #[arg(long, value_name = "CIDR", value_parser = values::networks)]
    reply_dst: Vec<Listed<IpNet>>,
    /// Source port, reply direction: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    reply_sport: Vec<Ports>,
    /// Destination port, reply direction: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    reply_dport: Vec<Ports>,
    /// Address or network of either end, in either direction.
    #[arg(long, value_name = "CIDR", value_parser = values::networks)]
    host: Vec<Listed<IpNet>>,
    /// Port of either end, in either direction: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    port: Vec<Ports>,
    /// Only flows with address translation, or with one to this address or network.
    #[arg(
        long,
        value_name = "CIDR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "any",
        value_parser = translated,
        conflicts_with = "no_nat",
    )]
    nat: Vec<Listed<Option<IpNet>>>,
    /// Only flows without address translation.
    #[arg(long)]
    no_nat: bool,
    /// Only flows whose source is translated, or translated to this address or network.
    #[arg(
        long,
        value_name = "CIDR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "any",
        value_parser = translated,
    )]
    src_nat: Vec<Listed<Option<IpNet>>>,
    /// Only flows whose destination is translated, or translated to this address or network.
    #[arg(
        long,
        value_name = "CIDR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "any",
        value_parser = translated,
    )]
    dst_nat: Vec<Listed<Option<IpNet>>>,
    /// Protocol state, such as ESTABLISHED.
    #[arg(long, value_name = "STATE", value_parser = values::state)]
    state: Vec<Listed<String>>,
    /// Conntrack status, such as assured, seen_reply or unreplied.
    #[arg(long, value_name = "STATUS", value_parser = values::status)]
    status: Vec<Listed<StatusIs>>,
    /// Connmark, under a mask if given.
    #[arg(short = 'm', long, value_name = "VALUE[/MASK]", value_parser = values::mark)]
    mark: Vec<Listed<MaskedMark>>,
    /// Label, by number or by its name in /etc/xtables/connlabel.conf.
    #[arg(short = 'l', long, value_name = "LABEL", value_parser = values::label)]
    label: Vec<Listed<u16>>,
    /// Connection tracking helper, such as ftp.
    #[arg(long, value_name = "NAME", value_parser = values::helper)]
    helper: Vec<Term<String>>,
    /// Conntrack zone.
    #[arg(short = 'w', long, value_name = "ZONE", value_parser = values::zone)]
    zone: Vec<Listed<Zone>>,
    /// Address family.
    #[arg(long, value_name = "ipv4|ipv6", value_parser = family)]
    family: Vec<Listed<Family>>,
    /// Input interface.
    #[arg(long, value_name = "NAME", value_parser = values::interface)]
    iif: Vec<Term<String>>,
    /// Output interface.
    #[arg(long, value_name = "NAME", value_parser = values::interface)]
    oif: Vec<Term<String>>,
    /// Only flows of which netfilter dropped packets, or another part of the kernel.
    #[arg(long)]
    dropped: bool,
    /// Only flows that met this chain, or this rule of it: handle of nft, position in iptables-legacy.
    #[arg(long, value_name = "TABLE/CHAIN[/HANDLE]", value_parser = rule)]
    rule: Vec<Term<RuleFilter>>,
}

fn family(text: &str) -> Result<Listed<Family>, String> {
    values::list(text, |t| match t {
        "ipv4" | "4" | "inet" => Ok(Family::Ipv4),
        "ipv6" | "6" | "inet6" => Ok(Family::Ipv6),
        _ => Err(format!("unknown family `{t}`; ipv4 or ipv6")),
    })
}

/// Addresses or networks, or `any`.
fn translated(text: &str) -> Result<Listed<Option<IpNet>>, String> {
    values::list(text, |t| if t == "any" { Ok(None) } else { values::network(t).map(Some) })
}

fn rule(text: &str) -> Result<Term<RuleFilter>, String> {
    values::term(text, |t| {
        RuleFilter::parse(t).ok_or_else(|| {
            format!("`{t}` is no place; give TABLE/CHAIN or TABLE/CHAIN/HANDLE: `filter/INPUT`, `inet fw4/forward/17`")
        })
    })
}

impl FilterArgs {
    /// The filter, for commands that look at conntrack's table alone.
    pub fn of_table(self) -> Filter {
        self.resolve_for_table().0
    }

    /// As [`Self::resolve`], for commands that look at conntrack's table alone.
    pub fn resolve_for_table(self) -> (Filter, Vec<String>) {
        let (filter, text) = self.resolve();
        let unanswerable = filter.of_packets();
        if !unanswerable.is_empty() {
            super::bad_usage(&format!(
                "{} needs `trace`: conntrack's table knows neither interfaces nor drops nor rules",
                unanswerable.join(", ")
            ));
        }
        (filter, text)
    }

    /// The filter, and its text for the report's header.
    pub fn resolve(self) -> (Filter, Vec<String>) {
        let Self {
            proto,
            src,
            dst,
            sport,
            dport,
            reply_src,
            reply_dst,
            reply_sport,
            reply_dport,
            host,
            port,
            nat,
            no_nat,
            src_nat,
            dst_nat,
            state,
            status,
            mark,
            label,
            helper,
            zone,
            family,
            iif,
            oif,
            dropped,
            rule,
        } = self;
        let mut nat = any_of(nat);
        nat.0.extend(no_nat.then_some(Term { negated: true, value: None }));
        let filter = Filter {
            proto: any_of(proto),
            src: any_of(src),
            dst: any_of(dst),
            sport: any_of(sport),
            dport: any_of(dport),
            reply_src: any_of(reply_src),
            reply_dst: any_of(reply_dst),
            reply_sport: any_of(reply_sport),
            reply_dport: any_of(reply_dport),
            host: any_of(host),
            port: any_of(port),
            nat,
            src_nat: any_of(src_nat),
            dst_nat: any_of(dst_nat),
            state: any_of(state),
            status: any_of(status),
            mark: any_of(mark),
            label: any_of(label),
            helper: AnyOf(helper),
            zone: any_of(zone),
            family: any_of(family),
            iif: AnyOf(iif),
            oif: AnyOf(oif),
            dropped,
            rule: AnyOf(rule),
        };
        if let Some(why) = contradiction(&filter) {
            super::bad_usage(&why);
        }
        let text = filter.describe();
        (filter, text)
    }
}

/// All values of an option, given in one list or in several.
fn any_of<T>(lists: Vec<Listed<T>>) -> AnyOf<T> {
    AnyOf(lists.into_iter().flat_map(|list| list.0).collect())
}

/// Why no flow can pass the filter: two of its options contradict each other.
fn contradiction(filter: &Filter) -> Option<String> {
    let Filter { proto, src, dst, reply_src, reply_dst, host, state, family, .. } = filter;
    // An option allows a family if one of its values does.
    let nets = |of: &AnyOf<IpNet>, v4: bool| {
        let mut plain = of.0.iter().filter(|term| !term.negated).peekable();
        plain.peek().is_none() || plain.any(|term| matches!(term.value, IpNet::V4(_)) == v4)
    };
    let given = [
        ("--src", src),
        ("--dst", dst),
        ("--reply-src", reply_src),
        ("--reply-dst", reply_dst),
        ("--host", host),
    ];
    let against = |v4: bool| {
        let of = if v4 { Family::Ipv4 } else { Family::Ipv6 };
        let excluded = given.iter().position(|(_, nets_of)| !nets(nets_of, v4));
        excluded.or((!family.allows(|wanted| *wanted == of)).then_some(given.len()))
    };
    if let (Some(not_v4), Some(not_v6)) = (against(true), against(false)) {
        let name = |at: usize| given.get(at).map_or("--family", |(name, _)| *name);
        let (first, second) = (name(not_v4.min(not_v6)), name(not_v4.max(not_v6)));
        return Some(if first == second {
            format!("{first} leaves no address family")
        } else {
            format!("{first} and {second} are of different address families: no flow is of both")
        });
    }
    let protos: Vec<u8> =
        proto.0.iter().filter(|term| !term.negated).map(|term| term.value).collect();
    let mut states = state.0.iter().filter(|term| !term.negated).peekable();
    let possible = |name: &String| {
        protos.is_empty() || protos.iter().any(|&of| ProtoState::is_called(Some(of), name))
    };
    if states.peek().is_some() && !states.any(|term| possible(&term.value)) {
        return Some("the protocols of --proto have no such --state".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }

    /// Why options contradict each other, each of which is valid.
    fn why(line: &str) -> Option<String> {
        let words = std::iter::once("filter").chain(line.split(' '));
        let FilterArgs { proto, src, dst, host, state, family, .. } =
            Line::try_parse_from(words).unwrap().filter;
        contradiction(&Filter {
            proto: any_of(proto),
            src: any_of(src),
            dst: any_of(dst),
            host: any_of(host),
            state: any_of(state),
            family: any_of(family),
            ..Filter::default()
        })
    }

    #[test]
    fn options_that_no_flow_can_satisfy_are_told() {
        for (line, what) in [
            ("-s ::1 --family ipv4", "--src and --family"),
            ("-s 192.0.2.1 --dst 2001:db8::1", "--src and --dst"),
            ("--family ipv6 --host 192.0.2.1", "--host and --family"),
            ("--family !ipv4 --family !ipv6", "--family leaves no"),
            ("-p udp --state ESTABLISHED", "no such --state"),
            ("-p tcp --state COOKIE_WAIT", "no such --state"),
        ] {
            let why = why(line);
            assert!(why.as_ref().is_some_and(|why| why.contains(what)), "{line}: {why:?}");
        }
        for line in [
            "-s ::1,192.0.2.1 --family ipv4",
            "-s !::1 --family ipv4",
            "-s 192.0.2.1 --dst 192.0.2.2,::2",
            "--family ipv4,ipv6 -s ::1",
            "-p tcp,udp --state established",
            "-p udp --state !established",
            "--state COOKIE_WAIT",
        ] {
            assert_eq!(why(line), None, "{line}");
        }
    }
}
