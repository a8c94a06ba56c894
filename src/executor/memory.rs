//! The process's memory, where the system tells (Linux).

use std::fs;

/// Resident memory now, in bytes.
#[must_use]
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// Peak resident memory since [`reset_peak`], in bytes.
#[must_use]
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Lets [`peak`] begin anew. Where the system refuses, the peak is that of the process's whole life.
pub fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5"); // man 5 proc: 5 resets the peak resident set size
}

fn status(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_seen() {
        let before = resident().unwrap();
        let block = vec![1u8; 64 << 20];
        assert!(resident().unwrap() >= before + (32 << 20), "{}", block.len());
        assert!(peak().unwrap() >= resident().unwrap() - (8 << 20));
    }
}
