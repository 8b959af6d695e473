//! Routes where the question itself says which interface packets leave through.

use std::net::IpAddr;

use crate::firewall::evaluate::{
    Attr,
    interface::Interface,
    packet::Layer3,
    routes::{Route, RouteQuery, RouteType, Routes},
    unknown::Attribute,
};

/// Routes through an interface.
pub(super) struct Through<'a> {
    /// Those of the host; `None` if no host is known.
    pub routes: Option<&'a dyn Routes>,
    /// The interface that packets leave through: `None` is this host itself, if no host is known.
    pub output: Option<Interface>,
    /// The source of the packet. The way back to it is the host's.
    pub source: IpAddr,
}

impl Routes for Through<'_> {
    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route> {
        match (self.route_of_all(), self.routes) {
            (Ok(route), _) if query.to != self.source => Ok(route),
            (_, Some(routes)) => routes.route(query),
            (_, None) => Err(Attribute::Routes.into()),
        }
    }

    fn route_of_all(&self) -> Attr<Route> {
        match (&self.output, self.routes) {
            (Some(output), _) => {
                let interface = Some(output.clone());
                Ok(Route { kind: RouteType::Unicast, interface, source: None })
            }
            (None, Some(routes)) => routes.route_of_all(),
            (None, None) => Ok(Route { kind: RouteType::Local, interface: None, source: None }),
        }
    }

    fn depends_on_source(&self) -> bool {
        // The way back to the source is another.
        self.output.is_none() && self.routes.is_some_and(Routes::depends_on_source)
    }

    fn address_type(&self, query: &RouteQuery<'_>) -> Attr<RouteType> {
        match self.routes {
            Some(routes) => routes.address_type(query),
            None if query.to == self.source => Err(Attribute::Routes.into()),
            None if self.output.is_some() => Ok(RouteType::Unicast),
            None => Ok(RouteType::Local),
        }
    }

    fn address_of(
        &self,
        interface: &Interface,
        layer3: Layer3,
        to: Option<IpAddr>,
    ) -> Attr<Option<IpAddr>> {
        match self.routes {
            Some(routes) => routes.address_of(interface, layer3, to),
            None => Err(Attribute::Routes.into()),
        }
    }
}
