//! Lines that conntrack(8) 1.4.7 printed of such entries, without its defects.

use super::*;
use crate::conntrack::{Counters, CpuStats, Entry, ExpectCpuStats, Expectation, Kind, ProtoState};
use crate::model::{L4, Mark, Status, Tuple, Zone};

/// Wed Nov 25 23:25:36 2026.
const START: u64 = 1_795_649_136;

fn tuple(proto: u8, src: &str, dst: &str, l4: L4) -> Tuple {
    Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto, l4 }
}

fn ports(proto: u8, src: u16, dst: u16) -> Tuple {
    tuple(proto, "192.0.2.1", "198.51.100.2", L4::Ports { src, dst })
}

fn entry(orig: Tuple) -> Entry<'static> {
    Entry {
        family: if orig.is_ipv4() { 2 } else { 10 },
        orig,
        reply: orig.inverted(),
        master: None,
        zone: Zone::DEFAULT,
        zone_orig: None,
        zone_reply: None,
        status: Status::CONFIRMED,
        timeout: Some(99),
        mark: Some(Mark(0)),
        secmark: None,
        secctx: None,
        id: Some(4_138_404_893),
        use_count: Some(1),
        counters: [None; 2],
        start: None,
        stop: None,
        timestamp_event: None,
        helper: None,
        helper_info: None,
        labels: None,
        state: None,
        seqadj: [None; 2],
        synproxy: None,
        unknown: 0,
        raw: &[],
    }
}

fn tcp(state: u8) -> ProtoState {
    ProtoState::Tcp { state, wscale: [None; 2], flags: [None; 2] }
}

/// One with everything.
fn rich() -> Entry<'static> {
    Entry {
        status: Status(Status::CONFIRMED.0 | Status::SEEN_REPLY.0 | Status::ASSURED.0),
        state: Some(tcp(3)),
        timeout: Some(431_999),
        mark: Some(Mark(4660)),
        zone: Zone(5),
        counters: [
            Some(Counters { packets: 3, bytes: 164 }),
            Some(Counters { packets: 1, bytes: 60 }),
        ],
        start: Some(START * 1_000_000_000 + 900_000_000),
        stop: Some((START + 1) * 1_000_000_000 + 100_000_000),
        helper: Some(b"ftp"),
        secctx: Some(b"a<b"),
        labels: Some(&[0x22, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80]),
        ..entry(ports(6, 1000, 443))
    }
}

fn printed(format: Format, options: Options<'_>, entry: &Entry<'_>) -> String {
    let mut out = Vec::new();
    Renderer { format, options, now: START + 9 }.entry(&mut out, entry);
    String::from_utf8(out).unwrap().trim_end_matches('\n').to_owned()
}

fn plain(entry: &Entry<'_>) -> String {
    printed(Format::Plain, Options::new(&Calendar::utc()), entry)
}

fn save(entry: &Entry<'_>) -> String {
    printed(Format::Save, Options::new(&Calendar::utc()), entry)
}

#[test]
fn each_protocol_has_its_fields() {
    let v6 = |proto, l4| tuple(proto, "2001:db8::1", "2001:db8::2", l4);
    let v4 = |proto, l4| tuple(proto, "192.0.2.1", "198.51.100.2", l4);
    for (entry, line) in [
        (
            Entry {
                state: Some(tcp(9)),
                zone: Zone(6),
                zone_orig: Some(Zone(6)),
                ..entry(ports(6, 1005, 443))
            },
            "tcp      6 99 SYN_SENT2 src=192.0.2.1 dst=198.51.100.2 sport=1005 dport=443 zone-orig=6 \
             [UNREPLIED] src=198.51.100.2 dst=192.0.2.1 sport=443 dport=1005 mark=0 use=1",
        ),
        (
            Entry {
                mark: Some(Mark(7)),
                zone: Zone(7),
                zone_reply: Some(Zone(7)),
                ..entry(v6(17, L4::Ports { src: 1000, dst: 53 }))
            },
            "udp      17 99 src=2001:db8::1 dst=2001:db8::2 sport=1000 dport=53 [UNREPLIED] \
             src=2001:db8::2 dst=2001:db8::1 sport=53 dport=1000 zone-reply=7 mark=7 use=1",
        ),
        (
            entry(v4(1, L4::Icmp { kind: 8, code: 0, id: 77 })),
            "icmp     1 99 src=192.0.2.1 dst=198.51.100.2 type=8 code=0 id=77 [UNREPLIED] \
             src=198.51.100.2 dst=192.0.2.1 type=0 code=0 id=77 mark=0 use=1",
        ),
        (
            entry(v6(58, L4::Icmp { kind: 128, code: 0, id: 78 })),
            "icmpv6   58 99 src=2001:db8::1 dst=2001:db8::2 type=128 code=0 id=78 [UNREPLIED] \
             src=2001:db8::2 dst=2001:db8::1 type=129 code=0 id=78 mark=0 use=1",
        ),
        (
            entry(v4(47, L4::Gre { src: 16, dst: 17 })),
            "gre      47 99 src=192.0.2.1 dst=198.51.100.2 srckey=0x10 dstkey=0x11 [UNREPLIED] \
             src=198.51.100.2 dst=192.0.2.1 srckey=0x11 dstkey=0x10 mark=0 use=1",
        ),
        (
            Entry {
                timeout: None,
                status: Status(Status::CONFIRMED.0 | Status::OFFLOAD.0),
                ..entry(v4(50, L4::None))
            },
            "unknown  50 src=192.0.2.1 dst=198.51.100.2 [UNREPLIED] src=198.51.100.2 \
             dst=192.0.2.1 [OFFLOAD] mark=0 use=1",
        ),
        (
            Entry { mark: None, use_count: None, ..entry(ports(136, 1, 2)) },
            "udplite  136 99 src=192.0.2.1 dst=198.51.100.2 sport=1 dport=2 [UNREPLIED] \
             src=198.51.100.2 dst=192.0.2.1 sport=2 dport=1",
        ),
    ] {
        assert_eq!(plain(&entry), line);
    }
}

#[test]
fn options_add_to_the_line() {
    let calendar = Calendar::utc();
    let names = LabelMap::parse("1 foo\n5 bar baz\n127 last\n");
    assert_eq!(
        plain(&rich()),
        "tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=198.51.100.2 sport=1000 dport=443 packets=3 \
         bytes=164 src=198.51.100.2 dst=192.0.2.1 sport=443 dport=1000 packets=1 bytes=60 [ASSURED] \
         mark=4660 secctx=a<b zone=5 delta-time=1 helper=ftp use=1"
    );
    let options = Options {
        extended: true,
        id: true,
        ktimestamp: true,
        labels: Some(&names),
        calendar: &calendar,
    };
    assert_eq!(
        printed(Format::Plain, options, &rich()),
        "ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=198.51.100.2 sport=1000 dport=443 \
         packets=3 bytes=164 src=198.51.100.2 dst=192.0.2.1 sport=443 dport=1000 packets=1 bytes=60 \
         [ASSURED] mark=4660 secctx=a<b zone=5 delta-time=1 [start=Wed Nov 25 23:25:36 2026] \
         [stop=Wed Nov 25 23:25:37 2026] helper=ftp use=1 id=4138404893 labels=foo,bar baz,64,last"
    );
    // Still running.
    assert!(plain(&Entry { stop: None, ..rich() }).contains(" delta-time=9 "));
}

#[test]
fn xml_escapes_text_and_has_what_icmp_has_for_ports() {
    let calendar = Calendar::utc();
    let names = LabelMap::parse("1 f&o\n");
    let options = Options { ktimestamp: true, labels: Some(&names), ..Options::new(&calendar) };
    assert_eq!(
        printed(Format::Xml, options, &rich()),
        "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>192.0.2.1\
         </src><dst>198.51.100.2</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>1000\
         </sport><dport>443</dport></layer4><counters><packets>3</packets><bytes>164</bytes>\
         </counters></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\">\
         <src>198.51.100.2</src><dst>192.0.2.1</dst></layer3><layer4 protonum=\"6\" \
         protoname=\"tcp\"><sport>443</sport><dport>1000</dport></layer4><counters>\
         <packets>1</packets><bytes>60</bytes></counters></meta><meta direction=\"independent\">\
         <state>ESTABLISHED</state><timeout>431999</timeout><mark>4660</mark><labels>\
         <label>f&amp;o</label><label>5</label><label>64</label><label>127</label></labels>\
         <secctx>a&lt;b</secctx><zone>5</zone><use>1</use><id>4138404893</id><assured/>\
         <timestamp><start>1795649136900000000</start><stop>1795649137100000000</stop></timestamp>\
         <deltatime>0</deltatime></meta><helper>ftp</helper></flow>"
    );
    let icmp = tuple(58, "2001:db8::1", "2001:db8::2", L4::Icmp { kind: 128, code: 0, id: 78 });
    let line = printed(Format::Xml, Options::new(&calendar), &entry(icmp));
    assert!(line.contains(
        "<layer4 protonum=\"58\" protoname=\"icmpv6\"><type>129</type><code>0</code><id>78</id></layer4>"
    ));
    let sctp = Some(ProtoState::Sctp { state: 4, vtag: [None; 2] });
    let sctp =
        Entry { state: sctp, zone: Zone(3), zone_orig: Some(Zone(3)), ..entry(ports(132, 5, 6)) };
    let line = printed(Format::Xml, Options::new(&calendar), &sctp);
    assert!(line.contains("</layer4><zone>3</zone></meta><meta direction=\"reply\">"), "{line}");
    assert!(line.contains("<state>ESTABLISHED</state>"), "{line}");
}

#[test]
fn saved_entries_are_arguments() {
    let sctp =
        Some(ProtoState::Sctp { state: 4, vtag: [Some(1_234_567_u32.to_be()), Some(u32::MAX)] });
    let nat = |bits: u32| Status(Status::CONFIRMED.0 | bits);
    let translated = tuple(6, "203.0.113.9", "192.0.2.1", L4::Ports { src: 7777, dst: 1003 });
    for (entry, line) in [
        (
            Entry { zone: Zone(6), zone_orig: Some(Zone(6)), ..entry(ports(17, 1, 53)) },
            "-A -t 99 -u UNSET --orig-zone 6 -s 192.0.2.1 -d 198.51.100.2 -r 198.51.100.2 \
             -q 192.0.2.1 -p udp --sport 1 --dport 53 --reply-port-src 53 --reply-port-dst 1",
        ),
        (
            Entry {
                state: Some(tcp(7)),
                reply: Some(translated),
                status: nat(0x20),
                ..entry(ports(6, 1003, 443))
            },
            "-A -t 99 -u UNSET -s 192.0.2.1 -d 198.51.100.2 -g 203.0.113.9 -q 192.0.2.1 -p tcp \
             --sport 1003 --dport 443 --reply-port-src 7777 --reply-port-dst 1003 --state TIME_WAIT",
        ),
        (
            Entry { state: sctp, status: nat(0x401), ..entry(ports(132, 5, 6)) },
            "-A -t 99 -u FIXED_TIMEOUT -s 192.0.2.1 -d 198.51.100.2 -r 198.51.100.2 -q 192.0.2.1 \
             -p sctp --sport 5 --dport 6 --reply-port-src 6 --reply-port-dst 5 --state ESTABLISHED \
             --orig-vtag 1234567 --reply-vtag 4294967295",
        ),
        (
            entry(tuple(1, "192.0.2.1", "198.51.100.2", L4::Icmp { kind: 8, code: 0, id: 77 })),
            "-A -t 99 -u UNSET -s 192.0.2.1 -d 198.51.100.2 -r 198.51.100.2 -q 192.0.2.1 -p icmp \
             --icmp-type 8 --icmp-code 0 --icmp-id 77",
        ),
        (
            entry(tuple(47, "192.0.2.1", "198.51.100.2", L4::Gre { src: 20, dst: 48 })),
            "-A -t 99 -u UNSET -s 192.0.2.1 -d 198.51.100.2 -r 198.51.100.2 -q 192.0.2.1 -p gre \
             --srckey 20 --dstkey 48 --reply-key-src 48 --reply-key-dst 20",
        ),
        (
            entry(tuple(253, "192.0.2.1", "198.51.100.2", L4::None)),
            "-A -t 99 -u UNSET -s 192.0.2.1 -d 198.51.100.2 -r 198.51.100.2 -q 192.0.2.1 -p 253",
        ),
        (
            Entry {
                status: nat(0x20),
                reply: Some(tuple(17, "2001:db8::2", "2001:db8::1", L4::Ports { src: 7, dst: 1 })),
                ..entry(tuple(17, "2001:db8::1", "2001:db8::2", L4::Ports { src: 1, dst: 53 }))
            },
            "-A -t 99 -u UNSET -s 2001:db8::1 -d 2001:db8::2 -g [2001:db8::2]:7 -q 2001:db8::1 -p udp \
             --sport 1 --dport 53 --reply-port-src 53 --reply-port-dst 1",
        ),
        (
            rich(),
            "-A -t 431999 -u SEEN_REPLY,ASSURED -w 5 -s 192.0.2.1 -d 198.51.100.2 \
             -r 198.51.100.2 -q 192.0.2.1 -p tcp --sport 1000 --dport 443 --reply-port-src 443 \
             --reply-port-dst 1000 --state ESTABLISHED -m 4660 --label-add 1,5,64,127 --helper ftp",
        ),
    ] {
        assert_eq!(save(&entry), line);
    }
    // A helper in user space may have any name.
    for (helper, end) in [
        (&b"a b"[..], " --helper \"a b\""),
        (b"a\"b", " --label-add 1,5,64,127"),
        (b"a\x1bb", " --label-add 1,5,64,127"),
        (b"\xff", " --label-add 1,5,64,127"),
    ] {
        let line = save(&Entry { helper: Some(helper), ..rich() });
        assert!(line.ends_with(end), "{line}");
    }
    let mut out = Vec::new();
    let names = LabelMap::parse("1 foo\n5 bar baz\n64 a,b\n127 last\n");
    save::entry(&mut out, Kind::Destroy, &rich(), Some(&names));
    let line = String::from_utf8(out).unwrap();
    assert!(line.starts_with("-D ") && line.ends_with(" -m 4660 -l foo,5,64,last"), "{line}");
}

#[test]
fn events_say_what_happened_when_and_by_whom() {
    let calendar = Calendar::utc();
    let entry = Entry { mark: None, use_count: None, ..entry(ports(17, 1000, 53)) };
    let event = |format, happening: EventInfo<'_>| {
        let mut out = Vec::new();
        let options = Options::new(&calendar);
        Renderer { format, options, now: START }.event(&mut out, &happening, &entry);
        String::from_utf8(out).unwrap()
    };
    let by = Some(Origin { portid: 6611, program: Some(b"conntrack") });
    let new = EventInfo { kind: Kind::New, at: None, by };
    assert_eq!(
        event(Format::Plain, new),
        "    [NEW] udp      17 99 src=192.0.2.1 dst=198.51.100.2 sport=1000 dport=53 [UNREPLIED] \
         src=198.51.100.2 dst=192.0.2.1 sport=53 dport=1000 [USERSPACE] portid=6611 \
         progname=conntrack\n"
    );
    let at = Some(Timestamp { seconds: START, micros: 5 });
    let by = Some(Origin { portid: 3_295_721_501, program: None });
    let gone = EventInfo { kind: Kind::Destroy, at, by };
    assert_eq!(
        event(Format::Plain, gone),
        "[1795649136.000005]\t[DESTROY] udp      17 99 src=192.0.2.1 dst=198.51.100.2 sport=1000 \
         dport=53 [UNREPLIED] src=198.51.100.2 dst=192.0.2.1 sport=53 dport=1000 [USERSPACE] \
         portid=3295721501\n"
    );
    let xml = event(Format::Xml, EventInfo { kind: Kind::Update, at, by: None });
    assert!(xml.starts_with("<flow type=\"update\"><meta direction=\"original\">"), "{xml}");
    assert!(xml.contains("<unreplied/></meta><when><hour>23</hour><min>25</min>"), "{xml}");
    assert!(xml.ends_with("<year>2026</year></when></flow>\n"), "{xml}");
    assert!(event(Format::Save, gone).starts_with("-D -t 99 -u UNSET -s 192.0.2.1 "));
    assert!(
        event(Format::Save, gone)
            .ends_with(" --reply-port-dst 1000 [USERSPACE] portid=3295721501\n")
    );
}

#[test]
fn documents_have_a_beginning_and_an_end() {
    let calendar = Calendar::utc();
    let document = |format| {
        let renderer = Renderer { format, options: Options::new(&calendar), now: 0 };
        let mut out = Vec::new();
        renderer.begin(&mut out);
        renderer.end(&mut out);
        renderer.begin_expectations(&mut out);
        renderer.end_expectations(&mut out);
        String::from_utf8(out).unwrap()
    };
    let declaration = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
    assert_eq!(
        document(Format::Xml),
        format!("{declaration}<conntrack>\n</conntrack>\n{declaration}<expect>\n</expect>\n")
    );
    assert_eq!(document(Format::Plain) + &document(Format::Save), "");
}

fn expectation() -> Expectation<'static> {
    Expectation {
        family: 2,
        tuple: tuple(136, "5.5.5.5", "6.6.6.5", L4::Ports { src: 5, dst: 1005 }),
        mask: Some(tuple(
            136,
            "255.255.0.255",
            "255.255.255.255",
            L4::Ports { src: 255, dst: 65535 },
        )),
        master: Some(tuple(6, "127.0.0.1", "127.0.0.1", L4::Ports { src: 33724, dst: 21 })),
        nat: None,
        timeout: Some(300),
        id: Some(1),
        zone: None,
        flags: Some(3),
        class: Some(0),
        helper: Some(b"ftp"),
        function: None,
        unknown: 0,
        raw: &[],
    }
}

#[test]
fn expectations_have_three_tuples() {
    let calendar = Calendar::utc();
    let line = |format, expectation: &Expectation<'_>| {
        let mut out = Vec::new();
        let renderer = Renderer { format, options: Options::new(&calendar), now: 0 };
        renderer.expectation(&mut out, None, expectation);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        line(Format::Plain, &expectation()),
        "300 proto=136 src=5.5.5.5 dst=6.6.6.5 sport=5 dport=1005 mask-src=255.255.0.255 \
         mask-dst=255.255.255.255 sport=255 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 \
         sport=33724 dport=21 PERMANENT,INACTIVE class=0 helper=ftp\n"
    );
    let bare = Expectation { flags: Some(0), helper: None, ..expectation() };
    assert!(line(Format::Plain, &bare).ends_with(" dport=21 class=0\n"));
    assert_eq!(
        line(Format::Xml, &expectation()),
        "<flow><layer3 protonum=\"2\" protoname=\"ipv4\"><expected><src>5.5.5.5</src><dst>6.6.6.5</dst>\
         </expected><mask><src>255.255.0.255</src><dst>255.255.255.255</dst></mask><master>\
         <src>127.0.0.1</src><dst>127.0.0.1</dst></master></layer3><layer4 protonum=\"136\" \
         protoname=\"udplite\"><expected><sport>5</sport><dport>1005</dport></expected><mask>\
         <sport>255</sport><dport>65535</dport></mask><master><sport>33724</sport>\
         <dport>21</dport></master></layer4><meta><helper-name>ftp</helper-name>\
         <timeout>300</timeout><class>0</class><permanent/><inactive/></meta></flow>\n"
    );
    let mut out = Vec::new();
    let happening = EventInfo {
        kind: Kind::New,
        at: Some(Timestamp { seconds: START, micros: 175_340 }),
        by: None,
    };
    let renderer = Renderer { format: Format::Plain, options: Options::new(&calendar), now: 0 };
    renderer.expectation_event(&mut out, &happening, &bare);
    assert!(out.starts_with(b"[1795649136.175340]\t    [NEW] 300 proto=136 src=5.5.5.5 "));
}

#[test]
fn counters_of_a_cpu_stand_in_a_line() {
    let mut out = Vec::new();
    let expectations = ExpectCpuStats { cpu: 1, new: Some(0), create: Some(2), delete: Some(1) };
    stats::expect_cpu(&mut out, &expectations);
    let some =
        CpuStats { cpu: 12345, found: Some(7), chain_toolong: Some(1), ..CpuStats::default() };
    stats::cpu(&mut out, &some);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "cpu=1   \texpect_new=0 expect_create=2 expect_delete=1 \ncpu=12345\tfound=7 chaintoolong=1 \n"
    );
}

/// Found by fuzzing: a helper in user space chooses its name, a program its own.
#[test]
fn text_of_others_does_not_end_a_line() {
    let entry = Entry { helper: Some(b"a\nb\x7f"), secctx: Some(b"\r"), ..entry(ports(17, 1, 2)) };
    let line = plain(&entry);
    assert!(line.contains(" secctx=? ") && line.contains(" helper=a?b? "), "{line}");
    let calendar = Calendar::utc();
    let renderer = Renderer { format: Format::Plain, options: Options::new(&calendar), now: 0 };
    let by = Some(Origin { portid: 7, program: Some(b"x\n[NEW]") });
    let mut out = Vec::new();
    renderer.event(&mut out, &EventInfo { kind: Kind::New, at: None, by }, &entry);
    let line = String::from_utf8(out).unwrap();
    assert!(line.ends_with(" progname=x?[NEW]\n") && line.lines().count() == 1, "{line}");
}

/// Found by fuzzing: `-A` without a timeout is refused, and with it the whole file.
#[test]
fn entries_in_a_flowtable_are_saved_with_a_timeout() {
    let offloaded = Entry { timeout: None, state: Some(tcp(3)), ..entry(ports(6, 1, 2)) };
    assert!(
        save(&offloaded).starts_with("-A -t 30 -u UNSET -s 192.0.2.1 "),
        "{}",
        save(&offloaded)
    );
}
