//! What ARCHITECTURE.md and CONTRIBUTING.md say of the sources: which layer imports from which, and where `unsafe` stands.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file of the crate, by its path within the repository, without comments and tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                sources.push((path.strip_prefix(root()).unwrap().to_owned(), code.join("\n")));
            }
        }
    }
    sources
}

/// The layer of each module, 0 for A, as the table of ARCHITECTURE.md has it.
fn layers() -> HashMap<String, usize> {
    let text = read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut layers = HashMap::new();
    for (layer, letter) in ('A'..='F').enumerate() {
        let row = text.lines().find(|line| line.starts_with(&format!("| {letter} "))).expect("a row for each layer");
        let modules = row.split('|').nth(2).expect("a column of modules");
        layers.extend(modules.split('`').skip(1).step_by(2).map(|module| (module.to_owned(), layer)));
    }
    layers
}

#[test]
fn module_imports_then_from_its_own_layer_or_those_above() {
    let layers = layers();
    let mut imports = 0;
    for (path, code) in sources() {
        let name = path.components().nth(1).unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        // The library's root imports nothing, and a program may import all of it.
        if name == "lib" {
            continue;
        }
        let own = *layers.get(&name).unwrap_or_else(|| panic!("{name} has no layer in ARCHITECTURE.md"));
        for imported in code.split("crate::").skip(1) {
            let imported = imported.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap();
            let Some(layer) = layers.get(imported) else { continue };
            assert!(*layer <= own, "{} imports {imported}, which is below it", path.display());
            imports += 1;
        }
    }
    assert!(imports > 200, "{imports} imports were found");
}

#[test]
fn unsafe_code_then_only_where_contributing_says() {
    let allowed = ["src/net", "src/main.rs", "src/prefetch.rs", "src/wire/mod.rs"];
    let text = read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let said =
        text.split("- **unsafe**").nth(1).and_then(|rest| rest.split("\n- **").next()).expect("a line on unsafe");
    let mut found = Vec::new();
    for (path, code) in sources() {
        // What flatc writes is not ours.
        if !code.contains("unsafe {") || path.ends_with("generated.rs") {
            continue;
        }
        let place = allowed.iter().find(|place| path.starts_with(place));
        found.push(*place.unwrap_or_else(|| panic!("{} has unsafe code", path.display())));
    }
    for place in allowed {
        assert!(found.contains(&place), "{place} has none any more");
        assert!(said.contains(&format!("`{place}`")), "CONTRIBUTING.md does not name {place}");
    }
}
