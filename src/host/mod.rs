//! The files of a host that checks read: /proc and /sys under a root, which in tests is a folder.
//!
//! A file that cannot be read is an error with a reason; no check may take it for a value.

pub(crate) mod groups;
pub(crate) mod memory;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cores::numbered;

/// See the module.
pub(crate) struct Host {
    root: PathBuf,
}

/// Soft and hard limit of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

impl Host {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Host {
        Host { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The text of a file, without blanks around it; `path` is relative to the root.
    pub(crate) fn read(&self, path: &str) -> Result<String, String> {
        match std::fs::read_to_string(self.root.join(path)) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(format!("/{path} cannot be read: {}", reason(&error))),
        }
    }

    /// The numbers of a file, at least one.
    pub(crate) fn numbers(&self, path: &str) -> Result<Vec<u64>, String> {
        let text = self.read(path)?;
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|part| part.parse().ok()).collect();
        numbers.filter(|numbers| !numbers.is_empty()).ok_or_else(|| format!("/{path} holds {text:?}, not numbers"))
    }

    /// The number at a place of a file.
    pub(crate) fn number_at(&self, path: &str, index: usize) -> Result<u64, String> {
        let numbers = self.numbers(path)?;
        numbers.get(index).copied().ok_or_else(|| format!("/{path} holds {} numbers only", numbers.len()))
    }

    /// The one number of a file.
    pub(crate) fn number<T: FromStr>(&self, path: &str) -> Result<T, String> {
        let text = self.read(path)?;
        text.parse().map_err(|_| format!("/{path} holds {text:?}, not a number"))
    }

    /// The value of a line `name: value` of a file.
    pub(crate) fn field(&self, path: &str, name: &str) -> Result<String, String> {
        let text = self.read(path)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned()).ok_or_else(|| format!("/{path} has no line {name}"))
    }

    /// A resource limit of this process, by its name in /proc/self/limits.
    pub(crate) fn limit(&self, name: &str) -> Result<Limit, String> {
        const PATH: &str = "proc/self/limits";
        let text = self.read(PATH)?;
        let values = text.lines().find_map(|line| line.strip_prefix(name));
        let mut values = values.unwrap_or_default().split_whitespace().map(|value| match value {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        match (values.next().flatten(), values.next().flatten()) {
            (Some(soft), Some(hard)) => Ok(Limit { soft, hard }),
            _ => Err(format!("/{PATH} has no line \"{name}\"")),
        }
    }

    /// The word in brackets, as in "always [madvise] never".
    pub(crate) fn chosen(&self, path: &str) -> Result<String, String> {
        let text = self.read(path)?;
        let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        chosen.map(|(word, _)| word.to_owned()).ok_or_else(|| format!("/{path} holds {text:?}, nothing in brackets"))
    }

    /// The names in a folder, in order.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let entries = std::fs::read_dir(self.root.join(path))
            .map_err(|error| format!("/{path} cannot be read: {}", reason(&error)))?;
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The numbers N of the entries `{prefix}N` of a folder.
    pub(crate) fn numbered(&self, path: &str, prefix: &str) -> Vec<usize> {
        numbered(&self.root.join(path), prefix)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Whether nobody may write a file, not even root: so the kernel marks what it keeps to itself.
    pub(crate) fn is_read_only(&self, path: &str) -> bool {
        std::fs::metadata(self.root.join(path)).is_ok_and(|file| file.permissions().readonly())
    }

    /// Whether this process has a capability, by its number in capabilities(7).
    pub(crate) fn has_capability(&self, number: u32) -> Result<bool, String> {
        let mask = self.field("proc/self/status", "CapEff")?;
        let mask = u64::from_str_radix(&mask, 16).map_err(|_| format!("CapEff {mask:?} is not a mask"))?;
        Ok(mask >> number & 1 == 1)
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it is not there".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A host made of files in a folder that goes away with it.
    pub(crate) struct FakeHost {
        pub(crate) host: Host,
    }

    impl FakeHost {
        pub(crate) fn new(files: &[(&str, &str)]) -> FakeHost {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("ringgate-host-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&root).unwrap();
            let fake = FakeHost { host: Host::new(root) };
            for (path, text) in files {
                fake.set(path, text);
            }
            fake
        }

        pub(crate) fn set(&self, path: &str, text: &str) {
            let path = self.host.root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        pub(crate) fn make_read_only(&self, path: &str) {
            let path = self.host.root.join(path);
            let mut permissions = std::fs::metadata(&path).unwrap().permissions();
            permissions.set_readonly(true);
            std::fs::set_permissions(path, permissions).unwrap();
        }
    }

    impl Drop for FakeHost {
        fn drop(&mut self) {
            // What cannot be removed is left to the system's own cleaning.
            let _ = std::fs::remove_dir_all(&self.host.root);
        }
    }

    #[test]
    fn file_is_missing_or_not_understood_then_an_error_with_a_reason() {
        let fake = FakeHost::new(&[
            ("number", "12\n"),
            ("numbers", "1\t2 3\n"),
            ("word", "twelve\n"),
            ("empty", ""),
            ("choice", "always [madvise] never\n"),
            ("proc/self/limits", "Limit  Soft Limit\nMax open files   1024   unlimited  files\nMax nice   x\n"),
            ("proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n"),
        ]);
        let host = &fake.host;
        assert_eq!(host.number::<u64>("number"), Ok(12));
        assert_eq!(host.number_at("numbers", 2), Ok(3));
        assert_eq!(host.chosen("choice"), Ok("madvise".to_owned()));
        assert_eq!(host.limit("Max open files"), Ok(Limit { soft: 1024, hard: u64::MAX }));
        assert_eq!((host.has_capability(14), host.has_capability(13)), (Ok(true), Ok(false)));
        assert_eq!(host.number::<u64>("none"), Err("/none cannot be read: it is not there".to_owned()));
        for wrong in [
            host.number::<u64>("word").unwrap_err(),
            host.number_at("numbers", 3).unwrap_err(),
            host.numbers("empty").unwrap_err(),
            host.chosen("word").unwrap_err(),
            host.limit("Max nice").unwrap_err(),
            host.limit("Max locked memory").unwrap_err(),
            host.field("proc/self/status", "Seccomp").unwrap_err(),
            host.names("nowhere").unwrap_err(),
        ] {
            assert!(wrong.starts_with('/'), "{wrong}");
        }
    }
}
