//! Filters as text.

use std::ops::RangeInclusive;

use super::Filter;
use crate::model::protocol;

impl Filter {
    /// The filter as options of the command line, for the header of a report.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
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
        let mut all = Vec::new();
        let mut option = |name: &str, terms: Vec<String>| {
            all.extend(terms.into_iter().map(|term| format!("--{name} {term}")));
        };
        let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low}-{high}"),
        };
        option("proto", proto.texts(|p| protocol::name(*p).map_or(p.to_string(), str::to_owned)));
        option("src", src.texts(ToString::to_string));
        option("dst", dst.texts(ToString::to_string));
        option("sport", sport.texts(range));
        option("dport", dport.texts(range));
        option("reply-src", reply_src.texts(ToString::to_string));
        option("reply-dst", reply_dst.texts(ToString::to_string));
        option("reply-sport", reply_sport.texts(range));
        option("reply-dport", reply_dport.texts(range));
        option("host", host.texts(ToString::to_string));
        option("port", port.texts(range));
        option("state", state.texts(Clone::clone));
        option("status", status.texts(ToString::to_string));
        option("mark", mark.texts(|m| format!("{:#x}/{:#x}", m.value, m.mask)));
        option("label", label.texts(ToString::to_string));
        option("helper", helper.texts(Clone::clone));
        option("zone", zone.texts(ToString::to_string));
        option("family", family.texts(|f| format!("{f:?}").to_lowercase()));
        option("iif", iif.texts(Clone::clone));
        option("oif", oif.texts(Clone::clone));
        option("rule", rule.texts(|place| place.0.clone()));
        for (name, terms) in [("nat", nat), ("src-nat", src_nat), ("dst-nat", dst_nat)] {
            // An optional value follows an equals sign.
            all.extend(
                terms.texts(|net| net.map_or(String::new(), |net| net.to_string())).iter().map(
                    |term| match term.as_str() {
                        "" => format!("--{name}"),
                        "!" if name == "nat" => "--no-nat".to_owned(),
                        "!" => format!("--{name}=!any"),
                        term => format!("--{name}={term}"),
                    },
                ),
            );
        }
        if *dropped {
            all.push("--dropped".to_owned());
        }
        all
    }
}
