//! Which Linux this is, and since when it does what ringgate would like.

/// Major and minor number.
pub(crate) type Version = (u32, u32);

/// The oldest that ringgate runs on: from here on a ring has deferred task work.
pub(crate) const OLDEST: Version = (6, 1);
/// Direct descriptors are used from here on: before, an armed request on any slot kept every slot that was closed
/// after it alive inside the kernel (liburing issue 1192).
pub(crate) const DIRECT_DESCRIPTORS: Version = (6, 13);
/// Receives take several buffers at once from here on. Kernels can since 6.10, but up to 6.15 a bundle could have a gap
/// (liburing issues 1409 and 1423).
pub(crate) const RECEIVE_BUNDLES: Version = (6, 17);

/// As the kernel names itself, "6.12.9-amd64"; empty when that cannot be read.
pub(crate) fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// None if it does not begin with two numbers.
pub(crate) fn version_of(release: &str) -> Option<Version> {
    let mut numbers = release.trim().split(['.', '-']).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Whether this kernel is at least so new. One that does not say is not.
pub(crate) fn is_at_least(version: Version) -> bool {
    version_of(&release()) >= Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        let releases = ["6.18.44-fc-v657", "6.1.0-18-amd64\n", "6.12", "5.15.0+", "linux", ""];
        let versions = [Some((6, 18)), Some((6, 1)), Some((6, 12)), Some((5, 15)), None, None];
        assert_eq!(releases.map(version_of), versions);
        assert!(is_at_least(OLDEST) && !is_at_least((u32::MAX, 0)));
    }
}
