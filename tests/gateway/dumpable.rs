//! Whether other programs of the gateway's user may read its memory, which holds keys.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::{LISTENERS, Process, TempFolder};

const KEY: &str = "[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
/// The kernel gives root what it hides from others, so the gateway must be somebody else's to see it.
const NOBODY: u32 = 65_534;

#[test]
fn gateway_serves_then_its_memory_is_its_own_unless_asked() {
    let is_root = rustix::process::getuid().is_root();
    let user = if is_root { NOBODY } else { rustix::process::getuid().as_raw() };
    let folder = TempFolder::new();
    // Where it was built, nobody else may come.
    let program = folder.path("ringgate");
    std::fs::copy(env!("CARGO_BIN_EXE_ringgate"), &program).unwrap();
    // What shows of a process belongs to root where it is not dumpable, and to its user where it is.
    for (setting, owner) in [("", 0), ("dumpable = false\n", 0), ("dumpable = true\n", user)] {
        let text = format!("{LISTENERS}{KEY}[admin]\nenabled = false\n[runtime]\nshards = 1\n{setting}");
        let file = folder.write("ringgate.toml", text);
        // Files of tests are their owner's alone.
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let mut command = Command::new(&program);
        command.args(["serve", "--config", file.to_str().unwrap()]).current_dir(&folder);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let gateway = Process::of(command);
        gateway.line("ready", |line| line.starts_with("ready: "));
        let memory = std::fs::metadata(format!("/proc/{}/mem", gateway.id())).unwrap();
        assert_eq!(memory.uid(), owner, "with {setting:?}");
    }
}
