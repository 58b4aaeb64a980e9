//! What ARCHITECTURE.md and CONTRIBUTING.md say of the sources: which layer imports from which, that no modules import each
//! other in a circle, that the two sides of a shard meet in letters only, that no match hides a new kind of frame, and where
//! `unsafe` stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Folders of sources, and the name by which other crates import them.
const CRATES: [(&str, &str); 7] = [
    ("crates/core/src", "ringgate_core"),
    ("crates/sim/src", "ringgate_sim"),
    ("crates/net/src", "ringgate_net"),
    ("crates/auth/src", "ringgate_auth"),
    ("crates/redis/src", "ringgate_redis"),
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
                if !path.ends_with("tests") {
                    folders.push(path);
                }
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

/// Every path in the code that begins with `root::`, with what stands in braces written out: `a::{b, c::D}` is `a::b` and
/// `a::c::D`.
fn paths(code: &str, root: &str) -> Vec<String> {
    let root = format!("{root}::");
    let begins = |place: usize| !code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(&root).filter(|(at, _)| begins(*at)) {
        write_out(&code[at + root.len()..], &root, &mut paths);
    }
    paths
}

/// Writes out what follows `base`, which ends with two colons, and returns the code behind it.
fn write_out<'a>(code: &'a str, base: &str, paths: &mut Vec<String>) -> &'a str {
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = write_out(rest.trim_start(), base, paths).trim_start();
            match rest.strip_prefix(',').map(str::trim_start) {
                Some(next) if !next.starts_with('}') => rest = next,
                next => return next.unwrap_or(rest).strip_prefix('}').unwrap_or(""),
            }
        }
    }
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    let path = format!("{base}{name}");
    match rest.strip_prefix("::") {
        Some(rest) => write_out(rest, &format!("{path}::"), paths),
        None => {
            paths.push(path);
            // The other name of `use x as y`.
            let other = rest.trim_start().strip_prefix("as ");
            other.map_or(rest, |other| other.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
        }
    }
}

/// What follows each `prefix::` in the code: names of modules, or of items of the root.
fn imports(code: &str, prefix: &str) -> Vec<String> {
    let start = format!("{prefix}::");
    let names = paths(code, prefix).into_iter();
    names.map(|path| path[start.len()..].split("::").next().unwrap().to_owned()).collect()
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
    let is_named = layers.contains_key(module) && crate_name != "ringgate_redis";
    if is_named { module } else { crate_name.trim_start_matches("ringgate_") }
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
            if ["crates/core/src", "src"].contains(&folder) && module == "lib" {
                continue;
            }
            let module = in_table(&layers, module, own_name);
            let path = Path::new(folder).join(&path);
            let own =
                *layers.get(module).unwrap_or_else(|| panic!("{} has no layer in ARCHITECTURE.md", path.display()));
            for (prefix, crate_name) in CRATES.iter().map(|(_, name)| (*name, *name)).chain([("crate", own_name)]) {
                for imported in imports(&code, prefix) {
                    let imported = in_table(&layers, &imported, crate_name);
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

/// The place of a file's module in its crate: `["shard", "edge", "publish"]` of `shard/edge/publish.rs`, nothing of the root.
fn place_of(path: &Path) -> Vec<String> {
    let mut place: Vec<_> = path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if ["mod", "lib", "main"].map(str::to_owned).contains(place.last().unwrap()) {
        place.pop();
    }
    place
}

/// Modules, and which others each of them imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// For each module the modules within it, with all that is in them, and which of the others each of them imports. What a module
/// and those within it take from each other is left out.
fn graphs(folder: &str) -> BTreeMap<String, Graph> {
    let sources: Vec<_> = sources(folder).into_iter().map(|(path, code)| (place_of(&path), code)).collect();
    let modules: BTreeSet<_> = sources.iter().map(|(place, _)| place.as_slice()).collect();
    let mut graphs = BTreeMap::<String, Graph>::new();
    for (place, code) in &sources {
        for at in 0..place.len() {
            graphs.entry(place[..at].join("::")).or_default().entry(place[at].clone()).or_default();
        }
        let from_root = paths(code, "crate").into_iter().map(|path| (0, path));
        let from_parent = paths(code, "super").into_iter().map(|path| (place.len().saturating_sub(1), path));
        for (mut depth, path) in from_root.chain(from_parent) {
            let mut names: Vec<_> = path.split("::").skip(1).map(str::to_owned).collect();
            while names.first().is_some_and(|name| name == "super") {
                names.remove(0);
                depth = depth.saturating_sub(1);
            }
            let names = [&place[..depth], &names].concat();
            let same = place.iter().zip(&names).take_while(|(own, other)| own == other).count();
            if let (Some(own), Some(other)) = (place.get(same), names.get(same))
                && modules.contains(&names[..=same])
            {
                let graph = graphs.entry(place[..same].join("::")).or_default();
                graph.entry(own.clone()).or_default().insert(other.clone());
            }
        }
    }
    graphs
}

/// Modules of a circle, the first one again at the end; none if there is no circle.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(module: &str, graph: &Graph, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
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
fn modules_beside_each_other_import_each_other_then_never_in_a_circle() {
    for (folder, _) in CRATES {
        for (place, graph) in graphs(folder) {
            if let Some(circle) = circle(&graph) {
                panic!("{folder}, within {place:?}: {}", circle.join(" imports "));
            }
        }
    }
    let core = graphs("crates/core/src");
    let count = |place: &str| core[place].values().map(BTreeSet::len).sum::<usize>();
    assert!(count("") > 20 && count("shard") > 4, "{} and {} imports are found", count(""), count("shard"));
}

#[test]
fn path_is_in_braces_or_below_super_then_it_is_found() {
    let code =
        "use crate::a::{b, c::{self, D}, E as F};\nfn f() { super::super::g::h(crate::i()) }\nuse crate::{j::K, l};";
    assert_eq!(
        paths(code, "crate"),
        ["crate::a::b", "crate::a::c::self", "crate::a::c::D", "crate::a::E", "crate::i", "crate::j::K", "crate::l"]
    );
    assert_eq!(paths(code, "super"), ["super::super::g::h"]);
    assert_eq!(imports(code, "crate"), ["a", "a", "a", "a", "i", "j", "l"]);
}

#[test]
fn circle_is_there_then_it_is_named() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
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
fn arms(body: &str) -> Vec<String> {
    let indent =
        body.lines().find(|line| !line.trim().is_empty()).map_or(0, |line| line.len() - line.trim_start().len());
    let is_own = |line: &&str| line.len() - line.trim_start().len() == indent;
    let (mut arms, mut pattern) = (Vec::new(), String::new());
    for line in body.lines().filter(is_own).map(str::trim_start) {
        // A pattern of several lines goes on with a bar.
        if !line.starts_with('|') {
            pattern.clear();
        }
        let (part, ends) = line.split_once("=>").map_or((line, false), |(part, _)| (part, true));
        pattern.push_str(part);
        if ends {
            arms.push(std::mem::take(&mut pattern));
        }
    }
    arms
}

/// Several kinds are told apart, and the rest is one: a new kind would be taken for one of the rest in silence.
fn hides_kinds(body: &str) -> bool {
    const ENUMS: [&str; 7] =
        ["Kind::", "ClientFrame::", "ServerFrame::", "Letter::", "ToHome::", "ToEdge::", "Effect::"];
    let arms = arms(body);
    let is_kind = |pattern: &str| ENUMS.iter().any(|name| pattern.trim().starts_with(name));
    let names = arms.iter().flat_map(|arm| arm.split('|')).filter(|pattern| is_kind(pattern)).count();
    names >= 3 && arms.iter().any(|arm| arm.trim() == "_")
}

#[test]
fn kinds_of_frames_letters_and_effects_are_told_apart_then_without_a_wildcard() {
    let hidden =
        "match kind {\n    Kind::A => 1,\n    Kind::B => {\n        2\n    }\n    Kind::C(_) => 3,\n    _ => 4,\n}";
    let open =
        "match kind {\n    Kind::A => match x {\n        _ => 1,\n    },\n    Kind::B => 2,\n    Kind::C => 3,\n}";
    let in_one_arm = "match kind {\n    Kind::A(_)\n    | Kind::B\n    | Kind::C => 1,\n    _ => 4,\n}";
    assert!(matches_in(in_one_arm).into_iter().any(hides_kinds));
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

/// The public fields of a struct in a source file.
fn fields<'a>(text: &'a str, structure: &str) -> Vec<&'a str> {
    let (_, after) = text.split_once(&format!("pub struct {structure} {{\n")).expect("the struct is there");
    let (body, _) = after.split_once("\n}").expect("it ends");
    let field = |line: &'a str| Some(line.trim_start().strip_prefix("pub ")?.split_once(':')?.0);
    body.lines().filter_map(field).collect()
}

/// Whether a name stands in the code, not as a part of another one.
fn has_word(code: &str, name: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut places = code.match_indices(name);
    places.any(|(at, _)| !is_part(code[..at].chars().next_back()) && !is_part(code[at + name.len()..].chars().next()))
}

#[test]
fn shards_count_something_then_a_family_exports_it() {
    let metrics = read_to_string(root().join("crates/core/src/metrics.rs")).unwrap();
    let exported: String = sources("src/admin").into_iter().map(|(_, code)| code).collect();
    let fields = fields(&metrics, "ShardMetrics");
    assert!(fields.len() > 50, "{fields:?}");
    let missing: Vec<_> = fields.iter().filter(|field| !has_word(&exported, field)).collect();
    assert!(missing.is_empty(), "counted, and in no family of src/admin: {missing:?}");
}

#[test]
fn setting_is_there_then_the_core_or_the_shell_reads_it() {
    let limits = read_to_string(root().join("crates/core/src/limits.rs")).unwrap();
    let read: String = ["crates/core/src", "src"]
        .into_iter()
        .flat_map(sources)
        .filter(|(path, _)| !path.starts_with("limits.rs") && !path.starts_with("config"))
        .map(|(_, code)| code)
        .collect();
    for structure in ["Settings", "ClientLimits", "InboxSettings", "Namespace"] {
        let fields = fields(&limits, structure);
        assert!(!fields.is_empty(), "{structure}");
        // Methods of the settings read them, too.
        let is_read = |field: &str| has_word(&read, field) || limits.contains(&format!("self.{field}"));
        let unread: Vec<_> = fields.iter().filter(|field| !is_read(field)).collect();
        assert!(unread.is_empty(), "nobody reads these of {structure}: {unread:?}");
    }
}
