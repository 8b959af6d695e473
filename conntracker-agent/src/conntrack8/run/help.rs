//! The help, and the version.

use super::Session;
use crate::conntrack8::VERSION;
use crate::conntrack8::protocols;

const HELP: &str = "\
Usage: conntrack COMMAND [TABLE] [OPTION]...
       conntracker conntrack COMMAND [TABLE] [OPTION]...

Commands:
  -L, --dump [TABLE]      list entries, or expectations
  -G, --get [TABLE]       show one entry, or expectation
  -D, --delete [TABLE]    remove the entries that match, or one expectation
  -I, --create [TABLE]    make an entry, or an expectation
  -A, --add               make an entry unless there is one
  -U, --update            change the entries that match
  -E, --event [TABLE]     show events until interrupted
  -F, --flush [TABLE]     remove everything
  -C, --count [TABLE]     show the number of entries
  -S, --stats [TABLE]     show what each CPU has counted
  -R, --load-file FILE    run the commands of a file, - for standard input
  -h, --help              show this, and the options of the protocol of -p
  -V, --version           show the version

Tables: conntrack (default), expect, dying, unconfirmed

Which entries:
  -s, --src, --orig-src ADDRESS[/N]   source, original direction
  -d, --dst, --orig-dst ADDRESS[/N]   destination, original direction
      --mask-src, --mask-dst MASK     bits of these that count
  -r, --reply-src ADDRESS             source, reply direction
  -q, --reply-dst ADDRESS             destination, reply direction
  -p, --proto PROTOCOL                name or number; it has options of its own
  -f, --family ipv4|ipv6
  -n, --src-nat [ADDRESS[:PORT]]      translated source
  -g, --dst-nat [ADDRESS[:PORT]]      translated destination
  -j, --any-nat [ADDRESS[:PORT]]      either
  -m, --mark MARK[/MASK]
  -c, --secmark MARK
  -l, --label LABEL[,...]             by name (/etc/xtables/connlabel.conf) or number
  -u, --status STATUS[,...]           ASSURED, SEEN_REPLY, UNREPLIED, FIXED_TIMEOUT, EXPECTED,
                                      OFFLOAD, HW_OFFLOAD
  -w, --zone ZONE                     zone of both directions
      --orig-zone, --reply-zone ZONE  zone of one direction
  -t, --timeout SECONDS               (-D)
  -i, --id ID                         (-G, -D, -U)

What they get (-I, -A, -U):
  -t, --timeout SECONDS      -m, --mark MARK[/MASK]     -u, --status STATUS[,...]
      --label-add LABEL[,...], --label-del [LABEL[,...]]
      --helper NAME (-I, -A; not of conntrack itself)
  -n, -g ADDRESS[:PORT], -w, --orig-zone, --reply-zone (-I, -A)

Expectations:
  -s, -d, -p and ports       the flow that expects
      --tuple-src, --tuple-dst ADDRESS, --mask-src, --mask-dst MASK

Other options:
  -o, --output FORMAT[,...]  xml, save; extended, id, timestamp, ktimestamp, labels, userspace
  -e, --event-mask EVENT[,...]  ALL, NEW, UPDATES, DESTROY
  -b, --buffer-size BYTES    receive buffer of -E
  -z, --zero                 set counters back while listing
  -M, --labelmap PATH        names of labels, in the place of /etc/xtables/connlabel.conf
";

impl Session {
    pub(super) fn help(&mut self, proto: Option<u8>) {
        let out = self.printer.lines();
        out.extend_from_slice(
            format!(
                "Command line interface for the connection tracking system. Version {VERSION}\n\
                 (conntracker {}, in the place of conntrack)\n{HELP}",
                crate::live::assemble::VERSION
            )
            .as_bytes(),
        );
        if let Some(proto) = proto {
            out.extend_from_slice(format!("\nOptions of protocol {proto}:\n").as_bytes());
            for definition in protocols::definitions(proto).iter().flat_map(|some| some.iter()) {
                let names: Vec<String> =
                    definition.long.iter().map(|name| format!("--{name}")).collect();
                out.extend_from_slice(format!("  {}\n", names.join(", ")).as_bytes());
            }
        }
    }

    pub(super) fn version(&mut self) {
        let line = format!("conntrack v{VERSION} (conntrack-tools)\n");
        self.printer.lines().extend_from_slice(line.as_bytes());
    }
}
