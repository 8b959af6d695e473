//! Whether the kernel calls the right callback functions of programs.
//!
//! Linux 5.13 to 5.15 number the functions of a program while they discover them, and store the number of a callback
//! at once. If they later discover a function in front of it, the number means another function; if it exceeds all of
//! them, the kernel reads beyond an array. Linux 5.16 fixed that by commit 3990ed4c4266 ("bpf: Stop caching subprog
//! index in the bpf_pseudo_func insn"), which 5.15.55 has too. Only an attempt shows the error: the verifier refuses
//! this program if it takes the wrong function.

use std::os::fd::AsFd;

use aya_obj::generated::{bpf_func_info, bpf_insn};

use super::sys::{self, Code};

/// BPF_JMP | BPF_CALL, BPF_JMP | BPF_EXIT, BPF_LD | BPF_IMM | BPF_DW, BPF_ALU64 | BPF_MOV | BPF_K.
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD: u8 = 0x18;
const MOVE: u8 = 0xb7;

/// Values of `src_reg` (include/uapi/linux/bpf.h): the instruction calls, or loads the address of, a function of the
/// program.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;

/// Type ids in [`btf`]: a static function, which may be called back, and a global one, which may not.
const STATIC: u32 = 3;
const GLOBAL: u32 = 4;

/// The start and type of each function. The callback is the last one, and its address is loaded before the kernel
/// discovers the one in front of it: a kernel with the error takes that one for the callback.
const FUNCTIONS: [(u32, u32); 4] = [(0, STATIC), (6, STATIC), (8, GLOBAL), (10, STATIC)];

/// Whether it does.
#[must_use]
pub fn work() -> bool {
    let functions = FUNCTIONS.map(|(insn_off, type_id)| bpf_func_info { insn_off, type_id });
    let loaded = sys::load_btf(&btf()).map_err(anyhow::Error::from).and_then(|btf| {
        let code =
            Code { instructions: &instructions(), functions: Some((btf.as_fd(), &functions)) };
        Ok(sys::load_syscall("ct_callbacks", code)?)
    });
    loaded
        .inspect_err(|error| {
            log::debug!("callback functions of BPF programs do not work: {error:#}");
        })
        .is_ok()
}

fn instructions() -> [bpf_insn; 12] {
    // The code, the destination and source registers, and the immediate value; for functions it is the distance from
    // the next instruction.
    [
        (CALL, 0, PSEUDO_CALL, 5),
        (LOAD, 1, PSEUDO_FUNC, 8),
        (0, 0, 0, 0),
        // The verifier refuses functions that are never called.
        (CALL, 0, PSEUDO_CALL, 6),
        (MOVE, 0, 0, 0),
        (EXIT, 0, 0, 0),
        // 6
        (CALL, 0, PSEUDO_CALL, 1),
        (EXIT, 0, 0, 0),
        // 8
        (MOVE, 0, 0, 0),
        (EXIT, 0, 0, 0),
        // 10
        (MOVE, 0, 0, 0),
        (EXIT, 0, 0, 0),
    ]
    .map(|(code, target, source, imm)| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(target, source),
        off: 0,
        imm,
    })
}

/// `int f(void)`, static and global (Documentation/bpf/btf.rst).
fn btf() -> Vec<u8> {
    const STRINGS: &[u8] = b"\0int\0f\0g\0";
    const FUNC: u32 = 12 << 24;
    let types = [
        // 1: int, of 4 bytes: 32 bits, signed.
        [1, 1 << 24, 4, 1 << 24 | 32].as_slice(),
        // 2: a function without parameters that returns it.
        &[0, 13 << 24, 1],
        // 3 and 4.
        &[5, FUNC, 2],
        &[7, FUNC | 1, 2],
    ]
    .concat();
    let (types_len, strings_len) = (types.len() as u32 * 4, STRINGS.len() as u32);
    let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
    bytes.extend([1, 0]);
    let header = [24, 0, types_len, types_len, strings_len];
    bytes.extend(header.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
    bytes.extend(STRINGS);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::Btf;

    #[test]
    fn functions_are_where_they_are_said_to_be_and_called() {
        let code = instructions();
        let called: Vec<(u32, u32)> = (0..)
            .zip(&code)
            .filter(|(_, insn)| matches!(insn.code, CALL | LOAD))
            .map(|(at, insn)| (at, at + 1 + insn.imm.cast_unsigned()))
            .collect();
        let [_, first, global, callback] = FUNCTIONS.map(|(begin, _)| begin);
        assert_eq!(called, [(0, first), (1, callback), (3, callback), (6, global)]);
        for begin in [first, global, callback] {
            assert_eq!(code[begin as usize - 1].code, EXIT);
        }
    }

    #[test]
    fn types_are_what_they_are_said_to_be() {
        let btf = Btf::parse(btf(), None).unwrap();
        assert_eq!((btf.function("f"), btf.function("g")), (Some(STATIC), Some(GLOBAL)));
        assert_eq!(btf.parameters(GLOBAL).unwrap(), []);
    }
}
