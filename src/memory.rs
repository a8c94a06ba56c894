//! Settings of the system's allocator, which keeps freed memory, and prefetching for the processor.
//!
//! glibc maps blocks of more than 128 KiB to 32 MiB afresh, and gives the top of its heap back to the kernel as soon as
//! some of it is free. The activations of one operation are freed when the next has read them, so that operations would
//! pay for their pages over and over: an evaluation spends a quarter of its time there (`mdlm bench --task evaluate`, with
//! and without). Other systems' allocators are left alone.

use std::sync::atomic::AtomicU64;

/// Largest block that comes from the heap, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FROM_HEAP: libc::c_int = 1 << 30;
/// The same for versions of glibc that take no more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FROM_HEAP_AT_LEAST: libc::c_int = 1 << 25;

/// Keeps freed memory for the next allocation. The program calls it as it starts.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two numbers and answers whether it took them; what it refuses stays as it was.
    unsafe {
        if libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_HEAP) == 0 {
            libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_HEAP_AT_LEAST);
        }
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// That many numbers, all 0. Where the system has memory that is 0 already, no page is touched before it is used.
#[must_use]
pub fn zeroed(count: usize) -> Box<[AtomicU64]> {
    const { assert!(align_of::<AtomicU64>() == align_of::<u64>()) };
    let numbers = Box::into_raw(vec![0_u64; count].into_boxed_slice());
    // SAFETY: an atomic number lies in memory as the number does, and is aligned like it (above); the box was just made and
    // has no other owner.
    unsafe { Box::from_raw(numbers as *mut [AtomicU64]) }
}

/// Has the processor fetch the cache line in which a value begins, if it knows how.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor knows the instruction, which reads nothing that a program could see.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks the system for large pages below a slice, where it gives them to those who ask: a table that is read at random
/// has then few pages to be looked up.
pub fn in_huge_pages<T>(slice: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 1 << 12;
        let range = slice.as_mut_ptr_range();
        let start = range.start.addr().next_multiple_of(PAGE);
        let end = range.end.addr() & !(PAGE - 1);
        if start < end {
            let pages = range.start.with_addr(start);
            // SAFETY: the pages lie within the slice, and the advice changes nothing that they hold.
            unsafe { libc::madvise(pages.cast(), end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = slice;
}
