//! Buffers that a thread keeps between calls: packed panels, score matrices, tiles of logits.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends a buffer of `count` floats with unspecified (old) contents to `f`. Calls nest.
pub fn with<R>(count: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(|free| {
        // The smallest that fits, else the largest to be grown.
        let fits = (0..free.len())
            .filter(|&i| free[i].len() >= count)
            .min_by_key(|&i| free[i].len());
        let chosen = fits.or_else(|| (0..free.len()).max_by_key(|&i| free[i].len()));
        chosen.map(|i| free.swap_remove(i)).unwrap_or_default()
    });
    if buffer.len() < count {
        buffer = vec![0.0; count];
    }
    let result = f(&mut buffer[..count]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_buffers_are_distinct() {
        with(10, |a| {
            a.fill(1.0);
            with(10, |b| b.fill(2.0));
            assert!(a.iter().all(|&x| x == 1.0));
        });
        with(5, |a| assert_eq!(a.len(), 5));
    }
}
