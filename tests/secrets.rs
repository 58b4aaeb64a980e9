//! Secrets do not stay in memory that was given back: the allocator looks for them in each block before it frees it. What a
//! library keeps in a heap of its own is not seen.
#![allow(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use ringgate::config::{Config, Running, dev_certificate};

struct Looking;

/// What must be wiped before it is freed: a name, and bytes.
static SECRETS: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();

/// Blocks freed with each of them in it.
static FOUND: [AtomicUsize; 9] = [const { AtomicUsize::new(0) }; 9];

// SAFETY: every call goes to the system's allocator unchanged; a block is read before it is freed. A block that grows is a
// new one, to which the old one is copied before that is freed: what `GlobalAlloc` does by itself.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by our caller. Zeroed, because what is not written is read as well.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        for ((_, secret), found) in SECRETS.get().into_iter().flatten().zip(&FOUND) {
            // SAFETY: the block is still ours, so large, and was initialised when it was allocated.
            let block = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
            if block.windows(secret.len()).any(|window| window == secret) {
                found.fetch_add(1, Ordering::Relaxed);
            }
        }
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

#[test]
fn configuration_was_read_then_no_freed_memory_holds_a_secret() {
    const INLINE: &str = "an inline secret of thirty-two bytes, and a few more";
    const OF_REDIS: &str = "the password of Redis, which stands in the configuration";
    const IN_FILE: &str = "a secret of thirty-two bytes in a file, and a few more";
    let folder = std::env::temp_dir().join(format!("ringgate-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = dev_certificate().unwrap();
    let path = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(path("certificate.pem"), certificate).unwrap();
    // What stands around a section may be in any encoding.
    std::fs::write(path("key.pem"), [b"caf\xe9\n", key.as_bytes()].concat()).unwrap();
    std::fs::write(path("secret"), IN_FILE).unwrap();
    let in_base64 =
        base64::engine::general_purpose::STANDARD.encode([b"0123456789abcdef".as_slice(), &[0xa5; 32]].concat());
    std::fs::write(path("base64"), &in_base64).unwrap();
    let json = "{\"k\": \"a secret that is written as JSON, for whatever reason\"}";
    std::fs::write(path("json"), json).unwrap();
    let text = format!(
        "[node]\nnumber = 1\n[log]\nengine = \"redis\"\n[redis]\naddress = \"127.0.0.1:6379\"\npassword = \"{OF_REDIS}\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\ntls = true\n[tls]\ncertificate = {:?}\nkey = {:?}\n\
         [[token.keys]]\nkid = \"1\"\nalgorithm = \"HS256\"\nsecret = \"{INLINE}\"\n\
         [[token.keys]]\nkid = \"2\"\nalgorithm = \"HS256\"\nsecret_file = {:?}\n\
         [[token.keys]]\nkid = \"3\"\nalgorithm = \"HS256\"\nsecret_file = {:?}\n\
         [[token.keys]]\nkid = \"4\"\nalgorithm = \"HS256\"\nsecret_file = {:?}\n",
        path("certificate.pem"),
        path("key.pem"),
        path("secret"),
        path("base64"),
        path("json")
    );
    std::fs::write(path("ringgate.toml"), text).unwrap();
    // The private number of a P-256 key begins at its 36th byte; of its base64, what is on one line.
    let line = key.lines().nth(1).unwrap();
    let der = base64::engine::general_purpose::STANDARD.decode(line).unwrap();
    let secrets = [
        ("secret", INLINE.as_bytes()),
        ("secret_file", IN_FILE.as_bytes()),
        ("a secret in base64", in_base64.as_bytes()),
        ("what that means", &[0xa5; 32]),
        ("a secret in JSON", b"that is written as JSON, for"),
        ("redis.password", OF_REDIS.as_bytes()),
        ("the private key in base64", &line.as_bytes()[50..]),
        ("the private key", &der[37..]),
    ];
    let secrets = SECRETS.get_or_init(|| secrets.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect());
    let config = Config::load_for_doctor(&path("ringgate.toml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.keys.len(), 4);
    // Compared with itself, as when it is read again.
    let again = Config::load_for_doctor(&path("ringgate.toml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(Running::of(&config).needs_restart(&again), [""; 0]);
    let found: Vec<_> = FOUND.iter().map(|found| found.load(Ordering::Relaxed)).collect();
    for ((name, _), times) in secrets.iter().zip(&found) {
        assert_eq!(*times, 0, "{name} is in {times} freed blocks; all: {found:?}");
    }
    // That it is looked at all.
    drop(std::hint::black_box(INLINE.to_owned()));
    assert_eq!(FOUND[0].load(Ordering::Relaxed), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}
