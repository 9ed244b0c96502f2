//! How much memory a piece of code takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn took(bytes: usize) {
    let held = HELD.get().wrapping_add(bytes);
    HELD.set(held);
    // What one thread took and another gave back wraps below zero.
    if held <= usize::MAX / 2 {
        PEAK.set(PEAK.get().max(held));
    }
}

fn gave(bytes: usize) {
    HELD.set(HELD.get().wrapping_sub(bytes));
}

// SAFETY: every call goes to the system's allocator unchanged. Counting touches
// only thread-local cells, which neither allocate nor are ever dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may exist at the same time.
        took(size);
        gave(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work`; returns what it returned and the most memory it held at once.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = (HELD.replace(0), PEAK.replace(0));
    let result = work();
    let peak = PEAK.get();
    HELD.set(HELD.get().wrapping_add(before.0));
    PEAK.set(before.1.max(before.0.wrapping_add(peak)));
    (result, peak)
}
