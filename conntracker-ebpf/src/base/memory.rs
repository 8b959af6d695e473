//! Reading kernel memory: through typed pointers, and through addresses that the verifier knows
//! nothing about.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as raw_read};

/// Reads a member through a pointer whose type the verifier knows.
///
/// # Safety
/// `base` is a BTF-typed pointer of the program's context, or read through one, and `offset` lies
/// inside its structure. The kernel turns a bad read into zero.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::read_volatile(base.add(offset).cast()) }
}

/// Reads a number; `None` where the address cannot be read.
#[inline(always)]
pub fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails where it cannot be read.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// A number of the program's context.
#[inline(always)]
pub fn at(context: *const u8, offset: u32) -> Option<u64> {
    read(context as u64 + u64::from(offset))
}

/// Copies a structure into place; false where the address cannot be read. An `Option` of a
/// structure would leave bytes undefined that LLVM then spills, which the verifier refuses.
#[inline(always)]
pub fn read_into<T: Copy>(address: u64, to: &mut T) -> bool {
    // SAFETY: `to` is as long as stated, and valid for any bytes (plain numbers throughout).
    unsafe {
        raw_read(core::ptr::from_mut(to).cast(), size_of::<T>() as u32, address as *const _) == 0
    }
}

/// Copies from one map to another. The compiler would load all of it into registers before it stores any, and spill
/// them to the stack, which has no room.
#[inline(always)]
pub fn copy<T: Copy>(from: &T, to: &mut T) {
    let from = core::ptr::from_ref(from).cast();
    // SAFETY: as in `read_into`. It does not fail: values of maps can be read.
    unsafe { raw_read(core::ptr::from_mut(to).cast(), size_of::<T>() as u32, from) };
}

/// A number that the verifier knows nothing of: else it would walk what follows once for each value.
#[inline(always)]
pub fn unknown(value: u64) -> u64 {
    let (stored, mut read) = (value, 0);
    // The stack can be read, so that it does not matter what is returned.
    read_into((&raw const stored) as u64, &mut read);
    read
}

/// Makes the verifier forget what it knows of `value`, which is copied onto itself: what follows it walks once, not
/// once for each way in which the value came about.
#[inline(always)]
pub fn forget<T: Copy>(value: &mut T) {
    let address = (&raw const *value) as u64;
    // The stack can be read, so that it does not matter what is returned.
    read_into(address, value);
}

/// `value & MASK`, by an instruction that the compiler cannot do without: it may know that the value is
/// small enough, verifiers of older kernels do not.
#[inline(always)]
pub fn masked<const MASK: i32>(mut value: usize) -> usize {
    // SAFETY: one instruction that changes nothing but its operand.
    unsafe {
        asm!(
            "{value} &= {mask}",
            value = inout(reg) value,
            mask = const MASK,
            options(pure, nomem, nostack),
        );
    };
    value
}

/// Copies `len` bytes to `to`; false where the address cannot be read.
#[inline(always)]
pub fn read_bytes(address: u64, to: *mut u8, len: usize) -> bool {
    // SAFETY: the verifier checks that `to` has room for `len` bytes.
    unsafe { raw_read(to.cast(), len as u32, address as *const _) == 0 }
}

/// Adds atomically and returns what was there before (BPF_ATOMIC | BPF_FETCH, Linux 5.12+).
/// `core::sync::atomic` has no such operation for the BPF target.
#[inline(always)]
pub fn fetch_add(value: &mut u64, number: u64) -> u64 {
    let mut number = number;
    // SAFETY: `value` is an aligned, live u64.
    unsafe {
        asm!(
            "{number} = atomic_fetch_add((u64 *)({value} + 0), {number})",
            value = in(reg) core::ptr::from_mut(value),
            number = inout(reg) number,
            options(nostack),
        );
    }
    number
}
