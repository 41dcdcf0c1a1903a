//! What the kernel says of this process, under the names every Prometheus client has for it.
//!
//! In: /proc. Out: samples of `/metrics`; what cannot be read is left out.

use std::fmt::Write;

use procfs::WithCurrentSystemInfo;
use procfs::process::{LimitValue, Process};

/// Text of `/metrics`.
pub fn text() -> String {
    let mut text = String::new();
    let mut sample = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    };
    let Ok(own) = Process::myself() else { return text };
    let stat = own.stat().ok();
    let ticks = procfs::ticks_per_second() as f64;
    let cpu = stat.as_ref().map(|stat| (stat.utime + stat.stime) as f64 / ticks);
    sample("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu);
    let resident = stat.as_ref().map(|stat| stat.rss_bytes().get() as f64);
    sample("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
    let virtual_bytes = stat.as_ref().map(|stat| stat.vsize as f64);
    sample("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", virtual_bytes);
    let booted = procfs::boot_time_secs().ok();
    let started =
        stat.as_ref().zip(booted).map(|(stat, booted)| booted as f64 + stat.starttime as f64 / ticks);
    sample(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        started,
    );
    let open = own.fd_count().ok().map(|count| count as f64);
    sample("process_open_fds", "gauge", "Number of open file descriptors.", open);
    let most = own.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(most) => Some(most as f64),
        LimitValue::Unlimited => None,
    });
    sample("process_max_fds", "gauge", "Maximum number of open file descriptors.", most);
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_is_told_of() {
        let text = super::text();
        for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            assert!(text.contains(&format!("\n{name} ")), "{text}");
        }
    }
}
