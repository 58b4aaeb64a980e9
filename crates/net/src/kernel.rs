//! Which Linux this is, since when it does what ringgate would like, and what its errors mean for who operates it.

use std::io;

/// Major and minor number.
pub type Version = (u32, u32);

/// The oldest that ringgate runs on: from here on a ring has deferred task work.
pub const OLDEST: Version = (6, 1);
/// Direct descriptors are used from here on: before, an armed request on any slot kept every slot that was closed
/// after it alive inside the kernel (liburing issue 1192).
pub const DIRECT_DESCRIPTORS: Version = (6, 13);
/// Receives take several buffers at once from here on. Kernels can since 6.10, but up to 6.15 a bundle could have a gap
/// (liburing issues 1409 and 1423).
pub const RECEIVE_BUNDLES: Version = (6, 17);

/// As the kernel names itself, "6.12.9-amd64"; empty when that cannot be read.
pub fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// None if it does not begin with two numbers.
pub fn version_of(release: &str) -> Option<Version> {
    let mut numbers = release.trim().split(['.', '-']).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Whether this kernel is at least so new. One that does not say is not.
pub fn is_at_least(version: Version) -> bool {
    version_of(&release()) >= Some(version)
}

/// A call that failed, with its error and, where that is known, the limit or setting that is in the way.
pub fn explain(call: &str, error: &io::Error) -> String {
    match hint(call, error) {
        Some(hint) => format!("{call}: {error} ({hint})"),
        None => format!("{call}: {error}"),
    }
}

/// What would help against this error of this call; calls of io_uring begin with `io_uring_`.
fn hint(call: &str, error: &io::Error) -> Option<&'static str> {
    let of_a_ring = call.starts_with("io_uring_");
    Some(match error.raw_os_error()? {
        libc::EPERM if of_a_ring => {
            let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            match disabled.trim() {
                "1" => "kernel.io_uring_disabled is 1: set it to 0, or put this user into kernel.io_uring_group",
                "2" => "kernel.io_uring_disabled is 2: set it to 0 with sysctl",
                _ => {
                    "a seccomp profile forbids it: in a container, allow io_uring_setup, io_uring_enter and \
                     io_uring_register"
                }
            }
        }
        libc::ENOSYS if of_a_ring => "the kernel has no io_uring, or a seccomp profile hides it",
        libc::EINVAL if of_a_ring => "the kernel is older than 6.1, which this program needs",
        libc::ENOMEM | libc::EAGAIN if of_a_ring => {
            "not enough memory may be locked or used: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=) or the control \
             group's limit (MemoryMax=)"
        }
        libc::ENOMEM => "no memory is left: raise the control group's limit (MemoryMax=) or RLIMIT_AS (ulimit -v)",
        libc::EAGAIN => {
            "no thread may be added: raise the limit of tasks (ulimit -u, TasksMax=, pids.max of the control group)"
        }
        libc::EMFILE => "no descriptor is left: raise the limit of open files (ulimit -n, LimitNOFILE=)",
        libc::ENFILE => "the host has no descriptor left: raise fs.file-max with sysctl",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_limits_then_the_limit_is_named() {
        for (call, code, says) in [
            ("io_uring_setup", libc::ENOMEM, "LimitMEMLOCK="),
            ("io_uring_register(PBUF_RING)", libc::EAGAIN, "LimitMEMLOCK="),
            ("io_uring_register(EVENTFD)", libc::EMFILE, "LimitNOFILE="),
            ("mmap of receive buffers", libc::ENOMEM, "MemoryMax="),
            ("eventfd", libc::EMFILE, "LimitNOFILE="),
            ("eventfd", libc::ENFILE, "fs.file-max"),
            ("thread 3 of shards", libc::EAGAIN, "TasksMax="),
            ("io_uring_enter", libc::ENOSYS, "seccomp"),
        ] {
            let error = io::Error::from_raw_os_error(code);
            let text = explain(call, &error);
            assert!(text.starts_with(&format!("{call}: {error} (")) && text.contains(says), "{says} not in {text}");
        }
        let unknown = io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(explain("eventfd", &unknown), format!("eventfd: {unknown}"));
        // Of no call of the system.
        assert_eq!(explain("eventfd", &io::Error::other("odd")), "eventfd: odd");
    }

    #[test]
    fn releases_are_read() {
        let releases = ["6.18.44-fc-v657", "6.1.0-18-amd64\n", "6.12", "5.15.0+", "linux", ""];
        let versions = [Some((6, 18)), Some((6, 1)), Some((6, 12)), Some((5, 15)), None, None];
        assert_eq!(releases.map(version_of), versions);
        assert!(is_at_least(OLDEST) && !is_at_least((u32::MAX, 0)));
    }
}
