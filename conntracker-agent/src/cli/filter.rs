//! The filters, the same everywhere.

use clap::Args;
use conntracker::flow::{
    Status,
    filter::{AnyOf, Family, Filter, Mark, RulePlace, Term},
};
use ipnet::IpNet;

use super::values::{self, Ports};

/// Repeated values of one filter are alternatives, different filters must all hold, a leading `!`
/// excludes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters (repeat for alternatives; `!VALUE` excludes)")]
pub struct FilterArgs {
    /// Protocol, by name or number.
    #[arg(short = 'p', long, value_name = "PROTO", value_parser = values::proto)]
    proto: Vec<Term<u8>>,
    /// Source address or network, original direction.
    #[arg(short = 's', long, value_name = "CIDR", value_parser = values::network)]
    src: Vec<Term<IpNet>>,
    /// Destination address or network, original direction.
    #[arg(long, value_name = "CIDR", value_parser = values::network)]
    dst: Vec<Term<IpNet>>,
    /// Source port: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    sport: Vec<Ports>,
    /// Destination port: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    dport: Vec<Ports>,
    /// Source address or network, reply direction (the server behind DNAT).
    #[arg(long, value_name = "CIDR", value_parser = values::network)]
    reply_src: Vec<Term<IpNet>>,
    /// Destination address or network, reply direction (the address that SNAT gave).
    #[arg(long, value_name = "CIDR", value_parser = values::network)]
    reply_dst: Vec<Term<IpNet>>,
    /// Source port, reply direction: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    reply_sport: Vec<Ports>,
    /// Destination port, reply direction: number, service, range or list.
    #[arg(long, value_name = "PORTS", value_parser = values::ports)]
    reply_dport: Vec<Ports>,
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
    nat: Vec<Term<Option<IpNet>>>,
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
    src_nat: Vec<Term<Option<IpNet>>>,
    /// Only flows whose destination is translated, or translated to this address or network.
    #[arg(
        long,
        value_name = "CIDR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "any",
        value_parser = translated,
    )]
    dst_nat: Vec<Term<Option<IpNet>>>,
    /// Protocol state, such as ESTABLISHED.
    #[arg(long, value_name = "STATE", value_parser = values::text)]
    state: Vec<Term<String>>,
    /// Conntrack status bit, such as assured or seen_reply.
    #[arg(long, value_name = "STATUS", value_parser = values::status)]
    status: Vec<Term<Status>>,
    /// Connmark, under a mask if given.
    #[arg(short = 'm', long, value_name = "VALUE[/MASK]", value_parser = values::mark)]
    mark: Vec<Term<Mark>>,
    /// Label, by number or by its name in /etc/xtables/connlabel.conf.
    #[arg(short = 'l', long, value_name = "LABEL", value_parser = values::label)]
    label: Vec<Term<u16>>,
    /// Connection tracking helper, such as ftp.
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    helper: Vec<Term<String>>,
    /// Conntrack zone.
    #[arg(short = 'w', long, value_name = "ZONE", value_parser = values::zone)]
    zone: Vec<Term<u16>>,
    /// Address family.
    #[arg(long, value_name = "ipv4|ipv6", value_parser = family)]
    family: Vec<Term<Family>>,
    /// Input interface.
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    iif: Vec<Term<String>>,
    /// Output interface.
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    oif: Vec<Term<String>>,
    /// Only flows of which netfilter dropped packets, or another part of the kernel.
    #[arg(long)]
    dropped: bool,
    /// Only flows that met this chain, or this rule of it: handle of nft, position in iptables-legacy.
    #[arg(long, value_name = "TABLE/CHAIN[/HANDLE]", value_parser = rule)]
    rule: Vec<Term<RulePlace>>,
}

fn family(text: &str) -> Result<Term<Family>, String> {
    values::term(text, |t| match t {
        "ipv4" | "4" | "inet" => Ok(Family::Ipv4),
        "ipv6" | "6" | "inet6" => Ok(Family::Ipv6),
        _ => Err(format!("unknown family `{t}`; ipv4 or ipv6")),
    })
}

/// An address or network, or `any`.
fn translated(text: &str) -> Result<Term<Option<IpNet>>, String> {
    match text {
        "any" => Ok(Term { negated: false, value: None }),
        "!any" => Ok(Term { negated: true, value: None }),
        text => values::network(text)
            .map(|Term { negated, value }| Term { negated, value: Some(value) }),
    }
}

fn rule(text: &str) -> Result<Term<RulePlace>, String> {
    values::term(text, |t| {
        RulePlace::parse(t).ok_or_else(|| {
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
            mut nat,
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
        let ports = |all: Vec<Ports>| AnyOf(all.into_iter().flat_map(|ports| ports.0).collect());
        nat.extend(no_nat.then_some(Term { negated: true, value: None }));
        let filter = Filter {
            proto: AnyOf(proto),
            src: AnyOf(src),
            dst: AnyOf(dst),
            sport: ports(sport),
            dport: ports(dport),
            reply_src: AnyOf(reply_src),
            reply_dst: AnyOf(reply_dst),
            reply_sport: ports(reply_sport),
            reply_dport: ports(reply_dport),
            nat: AnyOf(nat),
            src_nat: AnyOf(src_nat),
            dst_nat: AnyOf(dst_nat),
            state: AnyOf(state),
            status: AnyOf(status),
            mark: AnyOf(mark),
            label: AnyOf(label),
            helper: AnyOf(helper),
            zone: AnyOf(zone),
            family: AnyOf(family),
            iif: AnyOf(iif),
            oif: AnyOf(oif),
            dropped,
            rule: AnyOf(rule),
        };
        let text = filter.describe();
        (filter, text)
    }
}
