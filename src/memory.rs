//! The allocator of the `mdlm` program: large blocks are kept and used again.
//!
//! A training step allocates and frees the same few hundred megabytes of activations over and over. The system's
//! allocator gives such blocks back to the kernel, and every step then pays for their pages again (about a tenth of its
//! time). Here a freed block goes to a list of its size class and stays; blocks are carved from mappings that ask for
//! huge pages. Small blocks go to the system's allocator.
//!
//! Nothing is returned to the kernel: the process keeps its peak, as a training run does anyway.

#![expect(clippy::cast_ptr_alignment, reason = "blocks are page-aligned")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Blocks from this size on are kept: below, the system's allocator keeps them itself.
const LARGE: usize = 1 << 18;
/// Classes per doubling of the size: a block is at most an eighth larger than asked for.
const STEPS: usize = 8;
/// Classes in all: sizes up to 2^48.
const CLASSES: usize = (48 - 18) * STEPS;
/// A mapping that blocks are carved from. Larger blocks have one of their own.
const ARENA: usize = 1 << 25;
/// Alignment of the blocks: a page. Layouts that ask for more go to the system.
const ALIGNMENT: usize = 1 << 12;

/// The allocator; its state is the process's.
pub struct Pool;

/// A list of free blocks of one class, linked through their first word.
struct Free(*mut u8);

// SAFETY: the blocks of a list belong to nobody else; the list is reached through its mutex alone.
unsafe impl Send for Free {}

/// What is left of the arena in use.
struct Arena {
    next: *mut u8,
    left: usize,
}

// SAFETY: as for `Free`.
unsafe impl Send for Arena {}

static FREE: [Mutex<Free>; CLASSES] = [const { Mutex::new(Free(null_mut())) }; CLASSES];
static CURRENT: Mutex<Arena> = Mutex::new(Arena {
    next: null_mut(),
    left: 0,
});
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Bytes that large blocks have taken from the kernel so far; they stay.
#[must_use]
pub fn mapped() -> usize {
    MAPPED.load(Relaxed)
}

/// The class of a size of at least [`LARGE`], and the class's size: STEPS sizes between powers of two.
fn class(size: usize) -> (usize, usize) {
    let exponent = size.ilog2() as usize;
    let step = 1 << (exponent - STEPS.ilog2() as usize);
    let rounded = size.next_multiple_of(step);
    let exponent_after = rounded.ilog2() as usize;
    let step_after = 1 << (exponent_after - STEPS.ilog2() as usize);
    let index = (exponent_after - LARGE.ilog2() as usize) * STEPS + (rounded / step_after - STEPS);
    (index, rounded)
}

fn is_ours(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.size() < 1 << 47 && layout.align() <= ALIGNMENT
}

/// Fresh zeroed memory from the kernel, page-aligned; null when there is none.
fn map(size: usize) -> *mut u8 {
    let Ok(mut mapping) = memmap2::MmapMut::map_anon(size) else {
        return null_mut();
    };
    // A kernel without huge pages answers with an error; the memory works all the same.
    #[cfg(target_os = "linux")]
    let _ = mapping.advise(memmap2::Advice::HugePage);
    MAPPED.fetch_add(size, Relaxed);
    let start = mapping.as_mut_ptr();
    std::mem::forget(mapping);
    start
}

/// A block of a class, and whether it is known to be zero; null when memory has run out.
fn take(layout: Layout) -> (*mut u8, bool) {
    let (index, size) = class(layout.size());
    {
        let mut free = FREE[index]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let block = free.0;
        if !block.is_null() {
            // SAFETY: a block on the list is free, of at least LARGE bytes, page-aligned, and holds the link that `give`
            // wrote into its first word.
            free.0 = unsafe { block.cast::<*mut u8>().read() };
            return (block, false);
        }
    }
    let size = size.next_multiple_of(ALIGNMENT);
    if size > ARENA / 4 {
        return (map(size), true);
    }
    let mut arena = CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if arena.left < size {
        let start = map(ARENA);
        if start.is_null() {
            return (null_mut(), false);
        }
        // What was left of the old one, a quarter at most, is never used.
        *arena = Arena {
            next: start,
            left: ARENA,
        };
    }
    let block = arena.next;
    // SAFETY: `left` bytes from `next` on belong to the arena, and `size` is not more.
    arena.next = unsafe { block.add(size) };
    arena.left -= size;
    (block, true)
}

// SAFETY: `alloc` hands out blocks that are carved from mappings once and then either held by one owner or on one list,
// each at least as large as its class and page-aligned, which `is_ours` has checked to be enough; `dealloc` and `realloc`
// are told the same layout, so they find the same class, or the system's allocator, again. Nothing here unwinds: there is
// no panic on these paths, and a poisoned lock is opened.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_ours(layout) {
            take(layout).0
        } else {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_ours(layout) {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        let (block, zero) = take(layout);
        if !block.is_null() && !zero {
            // SAFETY: the block is at least `layout.size()` bytes, and ours alone until it is returned.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_ours(layout) {
            let mut free = FREE[class(layout.size()).0]
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // SAFETY: the caller gives the block up; it is page-aligned and large enough for a link.
            unsafe { block.cast::<*mut u8>().write(free.0) };
            free.0 = block;
        } else {
            // SAFETY: the caller's promise is passed on; the block came from System, having the same layout.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has checked size and alignment (GlobalAlloc::realloc's contract).
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_ours(layout), is_ours(wanted)) {
            // SAFETY: the caller's promise is passed on; both layouts are the system's.
            (false, false) => unsafe { System.realloc(block, layout, size) },
            (true, true) if class(layout.size()).0 == class(size).0 => block,
            _ => {
                // SAFETY: the new block is fresh, so it does not overlap the old one; the smaller of both sizes is valid in
                // both; the old one is given up as the caller has given it to us.
                unsafe {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    #[test]
    fn classes_are_in_order_and_waste_an_eighth_at_most() {
        let mut before = (0, 0);
        for size in (LARGE..LARGE * 9)
            .step_by(4099)
            .chain([(1 << 40) + 1, (1 << 47) - 1])
        {
            let (index, rounded) = class(size);
            assert!(
                rounded >= size && rounded - size <= size / STEPS,
                "{size} to {rounded}"
            );
            assert!((index, rounded) >= before && index < CLASSES, "{size}: {index}");
            assert_eq!(class(rounded), (index, rounded), "a class's size is in the class");
            assert!(
                index > before.0 || rounded == before.1 || before.1 == 0,
                "two sizes in class {index}"
            );
            before = (index, rounded);
        }
    }

    #[test]
    fn a_freed_block_comes_back_and_zeroed_means_zero() {
        // A size that no other test of this binary frees.
        let layout = layout(LARGE * 3 + 12_345);
        // SAFETY: the layouts are the same for each block, and writes stay inside.
        unsafe {
            let first = Pool.alloc_zeroed(layout);
            assert!((0..layout.size()).all(|i| first.add(i).read() == 0));
            first.write_bytes(7, layout.size());
            let other = Pool.alloc(layout);
            assert_ne!(first, other);
            Pool.dealloc(first, layout);
            let again = Pool.alloc_zeroed(layout);
            assert_eq!(first, again);
            assert!((0..layout.size()).all(|i| again.add(i).read() == 0));
            Pool.dealloc(again, layout);
            Pool.dealloc(other, layout);
        }
        assert!(mapped() >= 2 * layout.size());
    }

    #[test]
    fn growing_and_shrinking_keeps_the_contents() {
        let sizes = [100, LARGE - 1, LARGE, LARGE + 1, LARGE * 20, ARENA * 2, LARGE, 50];
        // SAFETY: each layout is the one that the block has; writes and reads stay inside.
        unsafe {
            let mut block = Pool.alloc(layout(sizes[0]));
            block.write_bytes(3, 50);
            for pair in sizes.windows(2) {
                block = Pool.realloc(block, layout(pair[0]), pair[1]);
                assert!((0..50).all(|i| block.add(i).read() == 3), "{pair:?}");
            }
            Pool.dealloc(block, layout(50));
        }
    }
}
