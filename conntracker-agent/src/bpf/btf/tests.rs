//! The reader on BTF that was written by hand, and on the running kernel's.

use proptest::prelude::*;

use super::{
    fixtures::{KERNELS, kernel, kernel_without},
    *,
};

/// Writes BTF by hand, a type at a time.
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    first_string: u32,
}

impl Builder {
    fn new(first_string: u32) -> Self {
        // The first string of a base blob is empty; split BTF has no empty string of its own.
        let strings = if first_string == 0 { vec![0] } else { Vec::new() };
        Self { types: Vec::new(), strings, first_string }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.first_string + self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
    }

    fn strukt(&mut self, name: &str, kind: u8, size: u32, members: &[(&str, u32, u32)]) {
        let name = self.name(name);
        self.words(&[name, u32::from(kind) << 24 | members.len() as u32, size]);
        for &(member, ty, bits) in members {
            let member = self.name(member);
            self.words(&[member, ty, bits]);
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(self.types);
        out.extend(self.strings);
        out
    }
}

fn base() -> Vec<u8> {
    let mut b = Builder::new(0);
    let int = b.name("int");
    b.words(&[int, u32::from(KIND_INT) << 24, 4, 32]); // 1
    b.strukt("pair", KIND_STRUCT, 8, &[("a", 1, 0), ("b", 1, 32)]); // 2
    b.words(&[0, u32::from(KIND_ARRAY) << 24, 0, 2, 1, 2]); // 3: pair[2]
    b.strukt("", KIND_UNION, 8, &[("x", 1, 0), ("y", 2, 0)]); // 4
    b.strukt("outer", KIND_STRUCT, 40, &[("n", 1, 0), ("", 4, 64), ("pairs", 3, 128)]); // 5
    let reason = b.name("reason");
    let (first, second) = (b.name("R_FIRST"), b.name("R_SECOND"));
    b.words(&[reason, u32::from(KIND_ENUM) << 24 | 2, 4, first, 7, second, 9]); // 6
    let (large, only) = (b.name("large"), b.name("L_ONLY"));
    b.words(&[large, u32::from(KIND_ENUM64) << 24 | 1, 8, only, 11, 1]); // 7
    b.words(&[0, u32::from(KIND_CONST) << 24, 5]); // 8: const struct outer
    b.words(&[0, u32::from(KIND_PTR) << 24, 8]); // 9: const struct outer *
    let outer_t = b.name("outer_t");
    b.words(&[outer_t, u32::from(KIND_TYPEDEF) << 24, 9]); // 10: its typedef
    b.words(&[0, u32::from(KIND_PTR) << 24, 0]); // 11: void *
    let (one, two, three) = (b.name("one"), b.name("two"), b.name("three"));
    let proto = u32::from(KIND_FUNC_PROTO) << 24 | 4;
    b.words(&[0, proto, 0, one, 1, two, 10, three, 11, 0, 0]); // 12: (int, outer_t, void *, ...)
    let f = b.name("f");
    b.words(&[f, u32::from(KIND_FUNC) << 24, 12]); // 13
    let tag = b.name("rcu");
    b.words(&[tag, u32::from(KIND_TYPE_TAG) << 24, 5]); // 14
    b.words(&[tag, u32::from(KIND_DECL_TAG) << 24, 13, u32::MAX]); // 15
    // 42 bits and 12 behind 16 bytes; flagged: the size stands above the offset.
    let flags = b.name("flags");
    b.words(&[flags, 1 << 31 | u32::from(KIND_STRUCT) << 24 | 3, 24]); // 16
    let (handle, dlen, tagged) = (b.name("handle"), b.name("dlen"), b.name("tagged"));
    b.words(&[handle, 1, (42 << 24) + 128, dlen, 1, (12 << 24) + 172, tagged, 14, 64]);
    b.finish()
}

#[test]
fn members_are_found_through_anonymous_unions_and_array_elements() {
    let btf = Btf::parse(base(), None).unwrap();
    assert_eq!(btf.member_offset("outer", "n").unwrap(), 0);
    assert_eq!(btf.member_offset("outer", "x").unwrap(), 8);
    assert_eq!(btf.member_offset("outer", "y.b").unwrap(), 12);
    assert_eq!(btf.member_offset("outer", "pairs[1].b").unwrap(), 16 + 8 + 4);
    assert_eq!(btf.member_offset("flags", "tagged.pairs[1].b").unwrap(), 8 + 16 + 8 + 4);
    assert_eq!(btf.enumerator("R_SECOND").unwrap(), 9);
    assert_eq!(btf.enumerator("L_ONLY").unwrap(), 11);
}

#[test]
fn bit_fields_have_a_place_and_no_offset() {
    let btf = Btf::parse(base(), None).unwrap();
    assert_eq!(btf.bit_field("flags", "handle").unwrap(), MemberAt { bit: 128, bits: 42 });
    assert_eq!(btf.bit_field("flags", "dlen").unwrap(), MemberAt { bit: 172, bits: 12 });
    assert!(btf.bit_field("flags", "tagged").is_err());
    assert!(btf.member_offset("flags", "handle").is_err());
}

#[test]
fn parameters_are_known_by_name_and_by_what_they_point_to() {
    let btf = Btf::parse(base(), None).unwrap();
    let id = btf.function("f").unwrap();
    let found = btf.parameters(id).unwrap();
    let found: Vec<_> = found.iter().map(|p| (p.name.as_str(), &p.kind)).collect();
    let outer = ParameterKind::Pointer("outer".to_owned());
    assert_eq!(
        found,
        [
            ("one", &ParameterKind::Other),
            ("two", &outer),
            ("three", &ParameterKind::Void),
            ("", &ParameterKind::Other),
        ]
    );
    assert_eq!(btf.function("g"), None);
    assert!(btf.parameters(1).is_err());
}

#[test]
fn what_is_missing_is_named() {
    let btf = Btf::parse(base(), None).unwrap();
    let text = |e: Result<u32, BtfError>| e.unwrap_err().to_string();
    assert_eq!(
        text(btf.member_offset("outer", "z")),
        "the kernel's `struct outer` has no member `z`"
    );
    assert_eq!(text(btf.member_offset("none", "z")), "the kernel's BTF has no `struct none`");
    assert_eq!(text(btf.enumerator("R_THIRD")), "the kernel's BTF has no enumerator `R_THIRD`");
}

#[test]
fn split_btf_refers_to_types_and_strings_of_its_base() {
    let base = Arc::new(Btf::parse(base(), None).unwrap());
    let mut b = Builder::new(base.strings.1 as u32);
    b.strukt("mine", KIND_STRUCT, 16, &[("before", 1, 0), ("theirs", 5, 64)]);
    let split = Btf::parse(b.finish(), Some(base)).unwrap();
    assert_eq!(split.member_offset("mine", "theirs.y.b").unwrap(), 8 + 12);
}

/// Pointers and bit fields that the kernel's own compiler has laid out.
#[test]
fn rules_have_their_handle_where_each_kernel_puts_it() {
    for name in KERNELS {
        let btf = kernel(name);
        let place = |strukt, member| btf.bit_field(strukt, member).map(|p| (p.bit, p.bits)).ok();
        assert_eq!(place("nft_rule", "handle"), Some((128, 42)), "{name}");
        assert_eq!(place("nft_rule", "dlen"), Some((172, 12)), "{name}");
        // Since Linux 5.17.
        let blobs = !name.contains("5.15");
        assert_eq!(place("nft_rule_dp", "handle"), blobs.then_some((13, 42)), "{name}");
        assert_eq!(place("nft_rule_dp", "dlen"), blobs.then_some((1, 12)), "{name}");
    }
}

/// Members that probes on flows need, which all kernels have under the same name.
#[test]
fn flows_sockets_and_tasks_have_the_same_members_everywhere() {
    for name in KERNELS {
        let btf = kernel(name);
        for (strukt, members) in [
            ("nft_pktinfo", "skb state"),
            ("nft_regs", "verdict.code verdict.chain"),
            ("nf_conn", "ext proto.tcp.state timeout ct_general"),
            ("nf_ct_ext", "offset offset[0]"),
            ("nf_conn_acct", "counter"),
            ("nf_conn_counter", "packets bytes"),
            ("nf_conn_tstamp", "start stop"),
            ("sock", "sk_uid sk_socket sk_cgrp_data.cgroup"),
            ("socket_alloc", "socket vfs_inode"),
            ("inode", "i_ino"),
            ("cgroup", "kn"),
            ("kernfs_node", "id"),
            ("task_struct", "stack flags tgid comm group_leader"),
        ] {
            for member in members.split(' ') {
                btf.member_offset(strukt, member).unwrap();
            }
        }
        assert_eq!(btf.enumerator("NF_CT_EXT_ACCT").unwrap(), 3, "{name}");
        assert_eq!(btf.enumerator("NF_CT_EXT_TSTAMP").unwrap(), 5, "{name}");
    }
}

#[test]
fn structures_of_a_module_that_is_not_loaded_are_told() {
    let btf = kernel_without("debian-6.12", &["nf_tables"]);
    assert_eq!(
        btf.member_offset("nft_rule_dp", "data").unwrap_err().to_string(),
        "the kernel's BTF has no `struct nft_rule_dp`: module nf_tables is not loaded, or has no BTF"
    );
    let btf = kernel("debian-6.12");
    assert_eq!(
        btf.member_offset("nft_table", "lost").unwrap_err().to_string(),
        "the kernel's `struct nft_table` has no member `lost`"
    );
    assert_eq!(
        btf.member_offset("nft_lost", "chains").unwrap_err().to_string(),
        "the kernel's BTF has no `struct nft_lost`"
    );
}

#[test]
fn the_running_kernel_is_read() {
    // Some kernels have no BTF; the lab's test of offsets covers the others.
    let Ok(btf) = Btf::vmlinux() else { return };
    assert_eq!(btf.member_offset("list_head", "prev").unwrap(), 8);
    assert!(btf.function("nf_hook_slow").is_some());
}

proptest! {
    #[test]
    fn damaged_btf_is_an_error_never_a_panic(
        cut in 0usize..700,
        flips in prop::collection::vec((0usize..700, any::<u8>()), 0..8),
    ) {
        let mut bytes = base();
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(btf) = Btf::parse(bytes, None) {
            let _ = btf.member_offset("outer", "pairs[1].b");
            let _ = btf.enumerator("R_SECOND");
            let _ = btf.bit_field("flags", "dlen");
            for id in 0..20 {
                let _ = btf.parameters(id);
            }
            let _ = btf.function("f");
        }
    }
}
