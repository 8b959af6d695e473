//! The choice on the kernels of the fixtures, and on kernels that lack functions.

use super::*;
use crate::bpf::btf::fixtures::{KERNELS, kernel, kernel_without};

/// /proc/kallsyms that has every function but these.
fn without(absent: &'static [&str]) -> impl Fn(&str) -> bool {
    |name| !absent.contains(&name)
}

fn resolve(btf: &KernelBtf, absent: &'static [&str], avoid: &[&str]) -> Points {
    let avoid: Vec<String> = avoid.iter().map(|&name| name.to_owned()).collect();
    Points::resolve(Search { btf, exists: &without(absent), avoid: &avoid })
}

/// (function, module, positions of arguments) of what was chosen.
fn chosen(choice: &Result<Choice, NoPoint>) -> Vec<(&str, Option<&str>, &[u8])> {
    let points = choice.as_ref().unwrap().points.iter();
    points.map(|point| (&*point.function, point.module.as_deref(), &*point.args)).collect()
}

#[test]
fn every_kernel_has_a_function_for_each_purpose() {
    for name in KERNELS {
        let points = resolve(&kernel(name), &[], &[]);
        let built_in = name.starts_with("builtin");
        let in_module = |module: &'static str| (!built_in).then_some(module);
        let (nf_tables, conntrack) = (in_module("nf_tables"), in_module("nf_conntrack"));
        let (ip_tables, ip6_tables) = (in_module("ip_tables"), in_module("ip6_tables"));
        let old = name.contains("5.15");
        let table: &[u8] = if old { &[0, 1, 2] } else { &[1, 2, 0] };
        let destroy =
            if name == "ubuntu-5.15.0-25" { "destroy_conntrack" } else { "nf_ct_destroy" };
        let packet: &[u8] = &[1, 2];
        let confirm = if old || name == "debian-6.1" {
            vec![("ipv4_confirm", conntrack, packet), ("ipv6_confirm", conntrack, packet)]
        } else {
            vec![("nf_confirm", conntrack, packet)]
        };
        let expected = [
            (&points.hook, vec![("nf_hook_slow", None, &[0u8, 1][..])]),
            (&points.nft_chain, vec![("nft_do_chain", nf_tables, &[0, 1])]),
            (&points.ip_table, vec![("ipt_do_table", ip_tables, table)]),
            (&points.ip6_table, vec![("ip6t_do_table", ip6_tables, table)]),
            (&points.confirm, confirm),
            (&points.delete, vec![("nf_ct_delete", conntrack, &[0])]),
            (&points.destroy, vec![(destroy, conntrack, &[0])]),
        ];
        for (found, expected) in expected {
            assert_eq!(chosen(found), expected, "{name}");
        }
    }
}

#[test]
fn evaluators_are_found_in_the_modules_that_have_them() {
    for name in KERNELS {
        let btf = kernel(name);
        let counter = if name.contains("5.15") { "nft_counter" } else { "nf_tables" };
        for (function, module) in [
            ("nft_immediate_eval", "nf_tables"),
            ("nft_lookup_eval", "nf_tables"),
            ("nft_counter_eval", counter),
            ("nft_reject_inet_eval", "nft_reject_inet"),
            ("nft_nat_eval", "nft_nat"),
            ("nft_target_eval_xt", "nft_compat"),
        ] {
            let point = everywhere(&btf).evaluator(function).unwrap();
            let module = (!name.starts_with("builtin")).then_some(module);
            assert_eq!((point.module.as_deref(), &*point.args), (module, &[0, 1, 2][..]), "{name}");
        }
    }
    let error = everywhere(&kernel("debian-6.12")).evaluator("nft_new_eval").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no function of this kernel evaluates the expression: `nft_new_eval` is not in the kernel's BTF"
    );
}

fn everywhere(btf: &KernelBtf) -> Search<'_> {
    Search { btf, exists: &|_| true, avoid: &[] }
}

#[test]
fn what_the_user_wants_to_be_left_alone_is_passed_over() {
    let btf = kernel("debian-6.12");
    let confirm = resolve(&btf, &[], &["nf_confirm"]).confirm.unwrap();
    assert_eq!(confirm.points[0].function, "__nf_conntrack_confirm");
    assert_eq!(confirm.passed_over[0], "`nf_confirm` is to be avoided");
    let hook = resolve(&btf, &[], &["nf_hook_slow"]).hook.unwrap_err();
    assert_eq!(
        hook.to_string(),
        "no function of this kernel evaluates hooks: `nf_hook_slow` is to be avoided"
    );
    let avoid = ["nft_immediate_eval".to_owned()];
    let search = Search { avoid: &avoid, ..everywhere(&btf) };
    assert!(search.evaluator("nft_immediate_eval").is_err());
    assert!(search.evaluator("nft_lookup_eval").is_ok());
}

/// The BTF of a function and the type id for attaching come from the same blob.
#[test]
fn type_ids_are_those_of_the_modules_own_btf() {
    let btf = kernel("debian-6.12");
    let points = resolve(&btf, &[], &[]);
    let point = &points.confirm.unwrap().points[0];
    let function = btf.function("nf_confirm").unwrap();
    assert_eq!((point.btf_id, &point.module), (function.id, &function.module));
    let names: Vec<&str> = function.parameters.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["priv", "skb", "state"]);
}

#[test]
fn what_has_other_arguments_is_passed_over() {
    let points = resolve(&kernel("debian-6.1"), &[], &[]);
    assert_eq!(
        points.confirm.unwrap().passed_over,
        ["`nf_confirm` has no argument of type nf_hook_state"]
    );
    let points = resolve(&kernel("debian-6.12"), &[], &[]);
    assert!(points.confirm.unwrap().passed_over.is_empty());
}

#[test]
fn what_the_compiler_has_changed_has_an_alternative() {
    let gone = &["nf_confirm", "ipv6_confirm"];
    let points = resolve(&kernel("debian-6.12"), gone, &[]);
    let confirm = points.confirm.unwrap();
    assert_eq!(
        confirm.passed_over,
        ["`nf_confirm` is not in /proc/kallsyms", "`ipv4_confirm` is not in the kernel's BTF",]
    );
    let point = &confirm.points[0];
    assert_eq!((&*point.function, &*point.args), ("__nf_conntrack_confirm", &[0][..]));

    // Both families or none.
    let points = resolve(&kernel("debian-6.1"), gone, &[]);
    let confirm = points.confirm.unwrap();
    assert_eq!(confirm.points.len(), 1);
    assert_eq!(confirm.passed_over[1], "`ipv6_confirm` is not in /proc/kallsyms");
}

#[test]
fn where_nothing_is_left_all_that_was_tried_is_named() {
    let btf = kernel_without("debian-6.12", &["nf_conntrack"]);
    let points = resolve(&btf, &["nf_ct_destroy", "destroy_conntrack"], &[]);
    assert_eq!(
        points.destroy.unwrap_err().to_string(),
        "no function of this kernel destroys flows: `nf_ct_destroy` is neither in the kernel's BTF \
         nor in /proc/kallsyms; `destroy_conntrack` is neither in the kernel's BTF nor in \
         /proc/kallsyms"
    );
    let tried = points.confirm.unwrap_err().tried;
    assert_eq!(tried.len(), 3);
    assert_eq!(tried[2], "`__nf_conntrack_confirm` is not in the kernel's BTF");
    // The rest does not suffer.
    assert!(points.hook.is_ok() && points.nft_chain.is_ok());
}
