//! A status as text: `key: value`, a line for each fact.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use crate::{
    live::status::{AgentStatus, State},
    model::harmless::OneLine,
};

/// An agent publishes each second: if it has not for this long, something is wrong with it.
const QUIET: Duration = Duration::from_secs(10);

/// Writes it. Agents are other programs: what they say stays in its line.
pub(super) fn write(status: &AgentStatus, out: &mut dyn Write) -> io::Result<()> {
    let AgentStatus {
        state,
        version,
        pid,
        published: _,
        age_ms,
        start,
        backend,
        namespaces,
        flows,
        max_flows,
        records,
        losses,
        lost,
        untold,
        rules,
        filters,
        report,
        memory,
    } = status;
    let mut say = |key: &str, value: &dyn fmt::Display| writeln!(out, "{key}: {value}");
    let quiet = age_ms.map(Duration::from_millis).filter(|age| *age >= QUIET);
    say(
        "state",
        &fmt::from_fn(|f| {
            f.write_str(name(*state))?;
            quiet.map_or(Ok(()), |age| {
                write!(f, ", but it has not said anything new for {} seconds", age.as_secs())
            })
        }),
    )?;
    say("version", &OneLine(version))?;
    say("process", pid)?;
    if let Some(start) = start {
        say("since", &OneLine(start))?;
    }
    if let Some(backend) = backend {
        say("backend", &format_args!("{} ({})", OneLine(&backend.name), OneLine(&backend.reason)))?;
    }
    say("namespaces", &list(namespaces, ", "))?;
    say("flows", &format_args!("{flows} of at most {max_flows}"))?;
    say("records", records)?;
    let named = losses.iter().map(|(name, count)| format!("{name}={count}"));
    let named: Vec<String> = named.collect();
    say(
        "lost",
        &fmt::from_fn(|f| {
            write!(f, "{lost}")?;
            if named.is_empty() { Ok(()) } else { write!(f, " ({})", list(&named, " ")) }
        }),
    )?;
    for why in untold {
        say("missing", &OneLine(why))?;
    }
    if let Some(rules) = rules {
        match (&rules.not_traced, &rules.last_began) {
            (Some(why), _) => say("epochs", &format_args!("none: {}", OneLine(why)))?,
            (None, Some(began)) => {
                say(
                    "epochs",
                    &format_args!("{}, the last began {}", rules.epochs, OneLine(began)),
                )?;
            }
            (None, None) => say("epochs", &rules.epochs)?,
        }
    }
    say("filters", &list(filters, " "))?;
    say(
        "report",
        &fmt::from_fn(|f| {
            write!(f, "{}, ", OneLine(&report.destination))?;
            match (&report.last_written, report.last_flows) {
                (Some(written), Some(flows)) => {
                    write!(f, "last written {} ({flows} lines)", OneLine(written))
                }
                _ => f.write_str("not written yet"),
            }
        }),
    )?;
    if let Some(memory) = memory {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (now, most) = (mebibytes(memory.resident_bytes), mebibytes(memory.peak_bytes));
        say("memory", &format_args!("{now:.1} MiB, at most {most:.1} MiB so far"))?;
    }
    Ok(())
}

fn name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Observing => "observing",
        State::Finishing => "finishing",
        State::Unknown => "unknown",
    }
}

/// Values side by side, `-` for none.
fn list(values: &[String], separator: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let Some((first, rest)) = values.split_first() else { return f.write_str("-") };
        write!(f, "{}", OneLine(first))?;
        rest.iter().try_for_each(|value| write!(f, "{separator}{}", OneLine(value)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(status: serde_json::Value) -> String {
        let mut out = Vec::new();
        write(&serde_json::from_value(status).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_fact_has_a_line() {
        let said = text(json!({
            "state": "observing", "version": "0.2.0", "pid": 4711,
            "published": "2026-01-01T00:00:01Z", "age_ms": 400, "start": "2026-01-01T00:00:00Z",
            "backend": {"name": "probes", "reason": "by fentry"},
            "namespaces": ["-", "evil\nname"], "flows": 2, "max_flows": 1000, "records": 12,
            "losses": {"path_races": 1, "new_flow_records_lost": 2}, "lost": 3,
            "untold": ["one namespace is not observed"],
            "rules": {"epochs": 4, "last_began": "2026-01-01T00:00:00.5Z"},
            "filters": ["-p tcp"],
            "report": {"destination": "/var/log/c.log", "last_written": "2026-01-01T00:00:00Z", "last_flows": 2},
            "memory": {"resident_bytes": 3_145_728, "peak_bytes": 4_194_304},
        }));
        assert_eq!(
            said,
            "state: observing\n\
             version: 0.2.0\n\
             process: 4711\n\
             since: 2026-01-01T00:00:00Z\n\
             backend: probes (by fentry)\n\
             namespaces: -, evil\\nname\n\
             flows: 2 of at most 1000\n\
             records: 12\n\
             lost: 3 (new_flow_records_lost=2 path_races=1)\n\
             missing: one namespace is not observed\n\
             epochs: 4, the last began 2026-01-01T00:00:00.5Z\n\
             filters: -p tcp\n\
             report: /var/log/c.log, last written 2026-01-01T00:00:00Z (2 lines)\n\
             memory: 3.0 MiB, at most 4.0 MiB so far\n"
        );
    }

    #[test]
    fn an_agent_that_hangs_or_starts_is_told() {
        let starting = json!({"state": "starting", "version": "0.2.0", "pid": 1, "report": {"destination": "standard output"}});
        let said = text(starting.clone());
        assert!(
            said.starts_with("state: starting\n")
                && said.contains("report: standard output, not written yet")
        );
        let mut hung = starting;
        hung["state"] = "observing".into();
        hung["age_ms"] = 35_100.into();
        let said = text(hung);
        assert!(
            said.contains("observing, but it has not said anything new for 35 seconds"),
            "{said}"
        );
    }
}
