//! Questions to the routing tables: the expression `fib` (net/ipv4/netfilter/nft_fib_ipv4.c and its twin).

use super::{
    context::Context,
    effect::Effect,
    interface::{IFNAMSIZ, Interface},
    packet::{Packet, Side},
    registers::Registers,
    routes::{RouteQuery, RouteType},
    unknown::{Attr, Attribute, Unknown},
};
use crate::{
    model::hook::Hook,
    netlink::nftables::{expression::Register, key::fib},
};

/// Loads the kind of an address, or the interface of the route to it.
pub(super) fn load(
    packet: &Packet,
    (result, flags): (u32, u32),
    to: Register,
    registers: &mut Registers,
    context: &Context<'_>,
) -> Effect {
    let present = flags & fib::PRESENT != 0;
    match result {
        fib::ADDRTYPE => {
            let kind = address_type(packet, flags, context).map(|kind| (kind as u32).to_ne_bytes());
            registers.attr(to, kind);
        }
        fib::OIF | fib::OIFNAME if present => {
            let found = interface(packet, flags, context).map(|found| [u8::from(found.is_some())]);
            registers.attr(to, found);
        }
        fib::OIF => {
            let index = interface(packet, flags, context)
                .and_then(|found| found.map_or(Ok(0), |interface| interface.index));
            registers.attr(to, index.map(u32::to_ne_bytes));
        }
        fib::OIFNAME => {
            let found = interface(packet, flags, context);
            registers.attr(to, found.map(|found| found.map_or([0; IFNAMSIZ], |own| own.name)));
        }
        _ => registers.store_unknown(to, IFNAMSIZ, Unknown::Expression.into()),
    }
    Effect::Next
}

/// The address that is asked about.
fn side(flags: u32) -> Side {
    if flags & fib::SADDR != 0 { Side::Source } else { Side::Destination }
}

fn address_type(packet: &Packet, flags: u32, context: &Context<'_>) -> Attr<RouteType> {
    let mut query = RouteQuery::to(packet.address(side(flags))?);
    let device = if flags & fib::IIF != 0 {
        &packet.input
    } else if flags & fib::OIF_FLAG != 0 {
        &packet.output
    } else {
        &Ok(None)
    };
    query.output = device.as_ref().map_err(|why| *why)?.as_ref();
    context.routes.address_type(&query)
}

fn interface(packet: &Packet, flags: u32, context: &Context<'_>) -> Attr<Option<Interface>> {
    const LOOPBACK: &[u8] = b"lo\0";
    let input = packet.input.as_ref().map_err(|why| *why)?.as_ref();
    let looped = input.is_some_and(|input| input.name.starts_with(LOOPBACK));
    if looped && matches!(context.hook, Hook::Prerouting | Hook::Ingress | Hook::Input) {
        return Ok(input.cloned());
    }
    let side = side(flags);
    let mut query = RouteQuery::to(packet.address(side)?);
    if side == Side::Source {
        query.from = Some(packet.address(Side::Destination)?);
    }
    if flags & fib::MARK != 0 {
        query.mark = packet.mark.get()?;
    }
    if flags & fib::IIF != 0 {
        query.output = input;
    } else if flags & fib::OIF_FLAG != 0 {
        query.output = packet.output.as_ref().map_err(|why| *why)?.as_ref();
    }
    let wanted = query.output;
    let route = context.routes.route(&query)?;
    if route.kind != RouteType::Unicast {
        return Ok(None);
    }
    let Some(interface) = route.interface else { return Err(Attribute::Routes.into()) };
    Ok((wanted.is_none_or(|wanted| wanted.name == interface.name)).then_some(interface))
}
