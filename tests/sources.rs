//! What ARCHITECTURE.md and CONTRIBUTING.md say of the sources: which layer imports from which, that no modules import each
//! other in a circle, that the two sides of a shard meet in letters only, that no match hides a new kind of frame, and where
//! `unsafe` stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Folders of sources, and the name by which other crates import them.
const CRATES: [(&str, &str); 6] = [
    ("crates/core/src", "ringgate_core"),
    ("crates/sim/src", "ringgate_sim"),
    ("crates/net/src", "ringgate_net"),
    ("crates/auth/src", "ringgate_auth"),
    ("src", "ringgate"),
    ("loadtest/src", "ringgate_loadtest"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file of a folder, by its path within it, without comments and tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let top = root().join(folder);
    let mut folders = vec![top.clone()];
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
                sources.push((path.strip_prefix(&top).unwrap().to_owned(), code.join("\n")));
            }
        }
    }
    sources
}

/// The module at the top of its crate that a file belongs to: `shard` of `shard/publish.rs`; "lib" and "main" for the roots.
fn module_of(path: &Path) -> &str {
    path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
}

/// What follows each `prefix::` in the code: names of modules, or of items of the root.
fn imports<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let begins = |place: usize| !code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let name = |rest: &'a str| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap();
    let prefix = format!("{prefix}::");
    code.match_indices(&prefix).filter(|(at, _)| begins(*at)).map(|(at, _)| name(&code[at + prefix.len()..])).collect()
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

/// The name in ARCHITECTURE.md of a module of a crate. What is not named there belongs to its crate as a whole.
fn in_table<'a>(layers: &HashMap<String, usize>, module: &'a str, crate_name: &'a str) -> &'a str {
    if layers.contains_key(module) { module } else { crate_name.trim_start_matches("ringgate_") }
}

#[test]
fn module_imports_then_from_its_own_layer_or_those_above() {
    let layers = layers();
    let mut seen = 0;
    let has_layers = |name: &str| name != "ringgate_loadtest" && name != "ringgate_sim";
    for (folder, own_name) in CRATES.into_iter().filter(|(_, name)| has_layers(name)) {
        for (path, code) in sources(folder) {
            let module = module_of(&path);
            // The library's root of the gateway imports nothing, and a program may import all of it.
            if folder != "crates/net/src" && folder != "crates/auth/src" && module == "lib" {
                continue;
            }
            let module = in_table(&layers, module, own_name);
            let path = Path::new(folder).join(&path);
            let own =
                *layers.get(module).unwrap_or_else(|| panic!("{} has no layer in ARCHITECTURE.md", path.display()));
            for (prefix, crate_name) in CRATES.iter().map(|(_, name)| (*name, *name)).chain([("crate", own_name)]) {
                for imported in imports(&code, prefix) {
                    let imported = in_table(&layers, imported, crate_name);
                    let Some(layer) = layers.get(imported) else { continue };
                    assert!(*layer <= own, "{} imports {imported}, which is below it", path.display());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 200, "{seen} imports were found");
}

#[test]
fn simulation_then_it_imports_the_core_only_and_no_program_imports_it() {
    let mut seen = 0;
    for (folder, own_name) in CRATES {
        for (path, code) in sources(folder) {
            for (_, imported) in CRATES.iter().filter(|(_, name)| *name != own_name && !imports(&code, name).is_empty())
            {
                let is_allowed = match own_name {
                    "ringgate_sim" => *imported == "ringgate_core",
                    _ => *imported != "ringgate_sim",
                };
                assert!(is_allowed, "{folder}/{} imports {imported}", path.display());
                seen += usize::from(own_name == "ringgate_sim");
            }
        }
    }
    assert!(seen > 4, "{seen} imports of the simulation were found");
}

/// Modules at the top of a crate, and which others of the crate each of them imports.
fn graph(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources(folder);
    let modules: BTreeSet<_> = sources.iter().map(|(path, _)| module_of(path).to_owned()).collect();
    let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
    for (path, code) in &sources {
        let module = module_of(path);
        let others = imports(code, "crate").into_iter().filter(|other| modules.contains(*other) && *other != module);
        graph.entry(module.to_owned()).or_default().extend(others.map(str::to_owned));
    }
    // Everything hangs on the roots.
    graph.remove("lib");
    graph.remove("main");
    graph
}

/// Modules of a circle, the first one again at the end; none if there is no circle.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        module: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if let Some(at) = way.iter().position(|other| other == module) {
            way.drain(..at);
            way.push(module.to_owned());
            return true;
        }
        if !done.insert(module.to_owned()) {
            return false;
        }
        way.push(module.to_owned());
        if graph.get(module).is_some_and(|others| others.iter().any(|other| visit(other, graph, way, done))) {
            return true;
        }
        way.pop();
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| {
        let mut way = Vec::new();
        visit(module, graph, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn modules_of_a_crate_import_each_other_then_never_in_a_circle() {
    for (folder, _) in CRATES {
        let graph = graph(folder);
        if let Some(circle) = circle(&graph) {
            panic!("{folder}: {}", circle.join(" imports "));
        }
    }
    assert!(graph("crates/core/src").values().map(BTreeSet::len).sum::<usize>() > 20, "imports are found");
}

/// Files that lie beside each other, and which of the others each of them imports by `super::`.
fn neighbours(folder: &str) -> BTreeMap<PathBuf, BTreeMap<String, BTreeSet<String>>> {
    let sources = sources(folder);
    let name = |path: &Path| match path.file_stem().unwrap().to_str().unwrap() {
        "mod" => (path.parent().unwrap().parent().map(Path::to_owned), path.parent().unwrap().to_owned()),
        _ => (path.parent().map(Path::to_owned), path.with_extension("")),
    };
    let mut graphs = BTreeMap::<PathBuf, BTreeMap<String, BTreeSet<String>>>::new();
    let of = |path: &Path| {
        let (folder, module) = name(path);
        Some((folder?, module.file_name()?.to_str()?.to_owned()))
    };
    let all: BTreeSet<_> = sources.iter().filter_map(|(path, _)| of(path)).collect();
    for (path, code) in &sources {
        let Some((folder, module)) = of(path) else { continue };
        let others = imports(code, "super").into_iter().map(str::to_owned);
        let others = others.filter(|other| *other != module && all.contains(&(folder.clone(), other.clone())));
        graphs.entry(folder.clone()).or_default().entry(module.clone()).or_default().extend(others);
    }
    graphs
}

#[test]
fn files_beside_each_other_import_each_other_then_never_in_a_circle() {
    for (folder, _) in CRATES {
        for (place, graph) in neighbours(folder) {
            if let Some(circle) = circle(&graph) {
                panic!("{folder}/{}: {}", place.display(), circle.join(" imports "));
            }
        }
    }
    assert!(neighbours("crates/core/src")[Path::new("shard")].len() > 5, "files are found");
}

#[test]
fn circle_is_there_then_it_is_named() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(circle(&graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])), None);
    let found = circle(&graph(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])).unwrap();
    assert_eq!(found, ["b", "c", "d", "b"]);
}

/// Names of the methods that a file offers to others.
fn methods(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in code.lines().map(str::trim_start).filter(|line| line.starts_with("pub(")) {
        if let Some((_, rest)) = line.split_once(" fn ") {
            names.insert(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned());
        }
    }
    names
}

#[test]
fn sides_of_a_shard_then_they_meet_in_letters_only() {
    let side = |name: &str| -> Vec<_> {
        let of_shard = sources("crates/core/src/shard").into_iter();
        of_shard.filter(|(path, _)| path.starts_with(name)).collect()
    };
    for (own, other, fields_of_other) in
        [("edge", "home", &["homes"][..]), ("home", "edge", &["connections", "wheel", "unparked", "pinged"])]
    {
        let (own, other_name, other) = (side(own), other, side(other));
        assert!(own.len() > 6, "files are found");
        let offered = |files: &[(PathBuf, String)]| -> BTreeSet<String> {
            files.iter().flat_map(|(_, code)| methods(code)).collect()
        };
        let foreign = &offered(&other) - &offered(&own);
        assert!(foreign.len() > 6, "methods of {other_name} are found");
        for (path, code) in &own {
            let path = path.display();
            assert!(!code.contains(&format!("{other_name}::")), "shard/{path} imports from {other_name}");
            for field in fields_of_other {
                let field = format!("self.{field}");
                assert!(!code.contains(&field), "shard/{path} uses {field}, which is {other_name}'s: post a letter");
            }
            for method in &foreign {
                let call = format!("self.{method}(");
                assert!(!code.contains(&call), "shard/{path} calls {method} of {other_name}: post a letter");
            }
        }
    }
}

/// Bodies of `match` blocks, by their brackets; those within others, too.
fn matches_in(code: &str) -> Vec<&str> {
    let begins = code.match_indices("match ").filter_map(|(at, _)| Some(at + code[at..].find("{\n")? + 1));
    let body = |start: usize| {
        let mut depth = 1;
        let end = code[start..].char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0
        });
        &code[start..start + end.map_or(0, |(at, _)| at)]
    };
    begins.map(body).collect()
}

/// The patterns of a `match` block's own arms, not of blocks within it.
fn arms(body: &str) -> Vec<&str> {
    let indent =
        body.lines().find(|line| !line.trim().is_empty()).map_or(0, |line| line.len() - line.trim_start().len());
    let is_own = |line: &&str| line.len() - line.trim_start().len() == indent && line.contains("=>");
    body.lines().filter(is_own).map(|line| line.trim_start().split("=>").next().unwrap_or(line)).collect()
}

/// Several kinds are told apart, and the rest is one: a new kind would be taken for one of the rest in silence.
fn hides_kinds(body: &str) -> bool {
    const ENUMS: [&str; 7] =
        ["Kind::", "ClientFrame::", "ServerFrame::", "Letter::", "ToHome::", "ToEdge::", "Effect::"];
    let arms = arms(body);
    let names = arms.iter().filter(|arm| ENUMS.iter().any(|name| arm.starts_with(name))).count();
    names >= 3 && arms.iter().any(|arm| arm.trim() == "_")
}

#[test]
fn kinds_of_frames_letters_and_effects_are_told_apart_then_without_a_wildcard() {
    let hidden =
        "match kind {\n    Kind::A => 1,\n    Kind::B => {\n        2\n    }\n    Kind::C(_) => 3,\n    _ => 4,\n}";
    let open =
        "match kind {\n    Kind::A => match x {\n        _ => 1,\n    },\n    Kind::B => 2,\n    Kind::C => 3,\n}";
    assert!(matches_in(hidden).into_iter().any(hides_kinds) && !matches_in(open).into_iter().any(hides_kinds));
    for folder in ["crates/core/src", "src"] {
        for (path, code) in sources(folder).into_iter().filter(|(path, _)| !path.ends_with("generated.rs")) {
            let hiding = matches_in(&code).into_iter().find(|body| hides_kinds(body));
            assert!(
                hiding.is_none(),
                "{folder}/{}: a match with a wildcard:\n{}",
                path.display(),
                hiding.unwrap_or("")
            );
        }
    }
}

#[test]
fn life_of_one_message_then_its_files_and_functions_exist() {
    let text = read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let life =
        text.split("## The life of one message").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a part");
    let core: String = sources("crates/core/src").into_iter().map(|(_, code)| code).collect();
    let (mut files, mut functions) = (0, 0);
    for name in life.split('`').skip(1).step_by(2) {
        if name.starts_with("edge/") || name.starts_with("home/") {
            let path = root().join("crates/core/src/shard").join(name).with_extension("rs");
            assert!(path.exists(), "there is no {}", path.display());
            files += 1;
        } else if name.starts_with("on_") || name.contains("::") || name.contains('_') {
            let function = name.rsplit("::").next().unwrap();
            let is_there = core.contains(&format!("fn {function}(")) || core.contains(&format!("mod {function};"));
            assert!(is_there, "there is no {name} in the core");
            functions += 1;
        }
    }
    assert!(files > 6 && functions > 12, "{files} files and {functions} functions were found");
}

#[test]
fn unsafe_code_then_only_where_contributing_says() {
    let allowed = ["crates/net/src", "src/main.rs", "crates/core/src/prefetch.rs", "crates/core/src/wire/mod.rs"];
    let text = read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let said =
        text.split("- **unsafe**").nth(1).and_then(|rest| rest.split("\n- **").next()).expect("a line on unsafe");
    let mut found = Vec::new();
    for (folder, _) in CRATES.into_iter().filter(|(_, name)| *name != "ringgate_loadtest") {
        for (path, code) in sources(folder) {
            // What flatc writes is not ours.
            if !code.contains("unsafe {") || path.ends_with("generated.rs") {
                continue;
            }
            let path = Path::new(folder).join(path);
            let place = allowed.iter().find(|place| path.starts_with(place));
            found.push(*place.unwrap_or_else(|| panic!("{} has unsafe code", path.display())));
        }
    }
    for place in allowed {
        assert!(found.contains(&place), "{place} has none any more");
        assert!(said.contains(&format!("`{place}`")), "CONTRIBUTING.md does not name {place}");
    }
}
