//! Rules of iptables-nft as iptables-nft-save writes them. nft has no text for extensions of xtables: its listing
//! lacks their arguments, comments among them, and older versions leave out even their names. iptables-nft-save has
//! no handles, but it lists the same rules in the same order. So positions join the listings, if the generation of
//! nf_tables did not change, each chain has the same number of rules in both, and both agree about each rule.

use std::collections::HashMap;

use crate::{
    firewall::{
        Skipped,
        action::Action,
        legacy::save,
        model::{Chain, Rule, Table},
        program::{self, Limits},
    },
    model::table::Family,
};

/// The listings of iptables-nft-save and ip6tables-nft-save.
#[derive(Debug, Default)]
pub(in crate::firewall) struct Saved {
    listings: Vec<(Family, String)>,
    /// Notes about what could not be listed, and why.
    notes: Vec<String>,
}

/// Lists the tables of iptables-nft in the calling thread's namespace; `None` if nft's texts lack nothing.
pub(super) fn load(tables: &[Table], limits: &Limits) -> Option<Saved> {
    let mut saved = None;
    for family in [Family::Ip, Family::Ip6] {
        let lacks = |table: &&Table| table.iptables && table.family == family;
        let chains = tables.iter().filter(lacks).flat_map(|table| &table.chains);
        if chains.flat_map(|chain| &chain.rules).any(lacks_text) {
            let Saved { listings, notes } = saved.get_or_insert_default();
            match list(family, limits) {
                Ok(listing) => listings.push((family, listing)),
                Err(why) => notes.push(format!(
                    "rules of iptables-nft ({}) are shown without comments and arguments of xt matches and targets: {why}",
                    family.name()
                )),
            }
        }
    }
    saved
}

fn list(family: Family, limits: &Limits) -> Result<String, String> {
    let names = match family {
        // Some distributions have iptables-nft under iptables' plain name.
        Family::Ip6 => ["ip6tables-nft-save", "ip6tables-save"],
        _ => ["iptables-nft-save", "iptables-save"],
    };
    for program in names.into_iter().filter_map(program::find) {
        let listing =
            program::output(&program, &[], limits).map_err(|error| format!("{error:#}"))?;
        if save::is_of_nf_tables(&listing) {
            return Ok(listing);
        }
    }
    Err(format!("{} is not found, in PATH or elsewhere", names[0]))
}

impl Saved {
    /// Adds what one of them wrote.
    pub fn add(&mut self, family: Family, listing: &str) {
        self.listings.push((family, listing.to_owned()));
    }

    /// Gives rules their texts, if the ruleset is still the one that was listed. Returns notes about what is missing.
    pub fn give_to(self, tables: &mut [Table]) -> Vec<String> {
        let Self { listings, mut notes } = self;
        let different: usize =
            listings.iter().map(|(family, listing)| give(tables, *family, listing)).sum();
        if different > 0 {
            notes.push(format!(
                "nft and iptables-nft-save do not agree on the rules of {different} chains: they are shown without comments and arguments of xt matches and targets"
            ));
        }
        notes
    }
}

/// Whether nft prints less than the rule says.
fn lacks_text(rule: &Rule) -> bool {
    rule.kinds.iter().any(|kind| kind.starts_with("xt"))
}

/// Gives the tables of one family their texts. Returns the number of chains on which the listings do not
/// agree.
fn give(tables: &mut [Table], family: Family, listing: &str) -> usize {
    let saved = save::parse(family, listing, &mut Skipped::new());
    let saved: HashMap<(&str, &str), &Chain> = saved
        .iter()
        .flat_map(|table| table.chains.iter().map(|chain| ((&*table.name, &*chain.name), chain)))
        .collect();
    let mut different = 0;
    let tables = tables.iter_mut().filter(|table| table.iptables && table.family == family);
    for Table { name: table, chains, .. } in tables {
        for Chain { name, rules, .. } in chains {
            if !rules.iter().any(lacks_text) {
                continue;
            }
            let Some(saved) = saved.get(&(table.as_str(), name.as_str())).filter(|saved| {
                let mut pairs = rules.iter().zip(&saved.rules);
                saved.rules.len() == rules.len() && pairs.all(|(rule, saved)| agree(rule, saved))
            }) else {
                different += 1;
                continue;
            };
            for (rule, saved) in rules.iter_mut().zip(&saved.rules) {
                if lacks_text(rule) {
                    rule.text.clone_from(&saved.text);
                }
            }
        }
    }
    different
}

/// Whether two listings may be of the same rule: they agree in its action, its target and the plain conditions that
/// both have.
fn agree(nft: &Rule, saved: &Rule) -> bool {
    let known =
        !nft.actions.contains(&Action::Unknown) && !saved.actions.contains(&Action::Unknown);
    (!known || nft.actions == saved.actions)
        && nft.targets == saved.targets
        && plain_of_nft(&nft.text).into_iter().zip(plain_of_saved(&saved.text)).all(
            |(nft_says, saved_says)| match (nft_says, saved_says) {
                (Some(Some(a)), Some(Some(b))) => a == b,
                (Some(_), Some(_)) | (None, None) => true,
                (None, Some(_)) => false,
                // nft may have translated an extension into a native expression.
                (Some(_), None) => lacks_text(nft),
            },
        )
}

/// Addresses and interfaces in a rule's conditions: for each kind, whether the rule has it, and its value if both
/// programs write it alike.
type Plain<'a> = [Option<Option<&'a str>>; 4];

fn plain_of_nft(text: &str) -> Plain<'_> {
    let words: Vec<&str> = text.split(' ').collect();
    ["saddr", "daddr", "iifname", "oifname"].map(|wanted| {
        let at = words.iter().position(|word| *word == wanted)?;
        let value = words.get(at + 1..)?;
        let value = value.iter().find(|word| **word != "!=").copied();
        Some(value.and_then(plain))
    })
}

fn plain_of_saved(text: &str) -> Plain<'_> {
    let words: Vec<&str> = text.split(' ').collect();
    // Behind the first match any text may follow.
    let header = words.iter().position(|word| ["-m", "-j", "-g"].contains(word));
    let header = &words[..header.unwrap_or(words.len())];
    ["-s", "-d", "-i", "-o"].map(|wanted| {
        let at = header.iter().position(|word| *word == wanted)?;
        Some(header.get(at + 1).copied().and_then(plain))
    })
}

/// A value that both programs write alike, apart from quotes, the wildcard of interfaces and the prefix length of a
/// whole address; `None` for others.
fn plain(value: &str) -> Option<&str> {
    let value = value.trim_matches('"').trim_end_matches(['+', '*']);
    let value = value.strip_suffix("/32").or(value.strip_suffix("/128")).unwrap_or(value);
    let odd = |c: char| !c.is_ascii_alphanumeric() && !".:/-_@".contains(c);
    // A mask that is no prefix.
    let masked = value.split_once('/').is_some_and(|(_, mask)| mask.contains(['.', ':']));
    (!value.is_empty() && !value.contains(odd) && !masked).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::nft::{Listing, Texts, join};

    const JSON: &str = include_str!("../fixtures/iptables-nft.json");
    const TEXT: &str = include_str!("../fixtures/iptables-nft.txt");
    const SAVED: &str = include_str!("../fixtures/iptables-nft.save");

    fn loaded() -> Vec<Table> {
        join(Listing::parse(JSON).unwrap(), Texts::parse(TEXT)).tables
    }

    /// Texts of rules with xt expressions, and those of all others, by table, chain and position.
    fn texts(tables: &[Table]) -> (Vec<String>, Vec<String>) {
        let mut found = (Vec::new(), Vec::new());
        for table in tables.iter().filter(|table| table.family == Family::Ip) {
            for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
                let list = if lacks_text(rule) { &mut found.0 } else { &mut found.1 };
                list.push(rule.text.clone());
            }
        }
        found
    }

    #[test]
    fn rules_with_extensions_have_the_text_of_iptables_and_others_keep_that_of_nft() {
        let mut tables = loaded();
        let (_, plain) = texts(&tables);
        assert_eq!(give(&mut tables, Family::Ip, SAVED), 0);
        let (extended, others) = texts(&tables);
        assert_eq!(others, plain);
        let saved: Vec<&str> = SAVED
            .lines()
            .filter_map(|line| Some(line.split_once("] ")?.1).filter(|rule| rule.starts_with("-A")))
            .collect();
        assert!(extended.len() > 3, "{extended:?}");
        for text in &extended {
            assert!(saved.contains(&text.as_str()), "{text}");
        }
        assert!(extended.iter().any(|text| text.contains("--clamp-mss-to-pmtu")));
        assert!(extended.iter().any(|text| text.contains(r#"--comment "hi \"there\" # handle 9"#)));
    }

    #[test]
    fn chains_that_differ_keep_what_nft_says() {
        let before = texts(&loaded());
        let differs = |saved: String| {
            let mut tables = loaded();
            let different = give(&mut tables, Family::Ip, &saved);
            let kept = texts(&tables).1 == before.1;
            assert!(kept);
            different
        };
        assert_eq!(differs(SAVED.to_owned()), 0);
        assert!(differs(String::new()) > 1, "nothing was listed");
        // A rule more, a rule less, another order.
        let mss = "[0:0] -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n";
        assert_eq!(differs(SAVED.replacen(mss, &format!("{mss}{mss}"), 1)), 1);
        assert_eq!(differs(SAVED.replacen(mss, "", 1)), 1);
        assert_eq!(differs(SAVED.replacen("-j level1", "-j level2", 2)), 1);
    }

    #[test]
    fn plain_conditions_are_compared_and_others_are_not() {
        let rule = |text: &str, kinds: &[&str]| Rule {
            position: 1,
            handle: None,
            text: text.to_owned(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            counter: None,
            nat_family: None,
            counts_matches: true,
            actions: Vec::new(),
            targets: Vec::new(),
            clauses: Vec::new(),
        };
        let same = |nft: &str, saved: &str| agree(&rule(nft, &[]), &rule(saved, &[]));
        assert!(same(
            "ip saddr 10.0.0.1 counter",
            "-A x -s 10.0.0.1/32 -m comment --comment \"-d 1\""
        ));
        assert!(same("ip saddr != 10.0.0.0/8 counter", "-A x ! -s 10.0.0.0/8 -j ACCEPT"));
        assert!(same("iifname \"eth*\" oifname \"a\" counter", "-A x -i eth+ -o a -j ACCEPT"));
        assert!(same("ip6 daddr fe80::/64 counter", "-A x -d fe80::/64"));
        let mask = "-A x -s 10.0.0.0/255.0.255.0 -j ACCEPT";
        assert!(same("ip saddr & 255.0.255.0 == 10.0.0.0 counter", mask));
        assert!(!same("ip saddr 10.0.0.1 counter", "-A x -s 10.0.0.2/32"));
        assert!(!same("ip saddr 10.0.0.1 counter", "-A x -d 10.0.0.1/32"));
        assert!(!same("iifname \"a\" counter", "-A x -i b"));
        assert!(!same("counter", "-A x -i b -j ACCEPT"));
        // nft translates some extensions.
        let local = "-A x -m addrtype --dst-type LOCAL -j ACCEPT";
        assert!(agree(
            &rule("fib daddr type local counter", &["xt match addrtype"]),
            &rule(local, &[])
        ));
        assert!(!same("iifname \"a\" counter", "-A x -m comment --comment \"x -i a\""));
    }
}
