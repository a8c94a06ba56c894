//! The system's allocator, told to keep what is freed.
//!
//! glibc maps blocks of more than 128 KiB to 32 MiB afresh, and gives the top of its heap back to the kernel as soon as
//! some of it is free. The activations of one operation are freed when the next has read them, so that operations would
//! pay for their pages over and over: an evaluation spends a quarter of its time there (`mdlm bench --task evaluate`, with
//! and without). Other systems' allocators are left alone.

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
