//! Who imports whom, file by file, read off the sources.
//!
//! An import is a `use`, or a path in the code that begins with `crate`, `self`, `super`, an imported module or a module
//! beneath. A name that a module passes on (`pub use`) is an import of the file that defines it. Not imports: methods,
//! and paths in macros that begin with `$crate`, which their caller takes.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, is_name};

/// A path of modules from the root of its crate, perhaps with an item at its end.
type ModulePath = Vec<String>;

/// A module: a file, or a `mod name { … }` in one.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// Names that `use` brings in, with what they stand for.
    aliases: BTreeMap<String, ModulePath>,
    /// The modules of `use module::*`.
    globs: Vec<ModulePath>,
    /// Names of the items that are defined here.
    items: BTreeSet<String>,
    /// Paths in the code.
    paths: BTreeSet<ModulePath>,
}

/// The modules of both crates by path; the root's is empty.
struct Modules(BTreeMap<ModulePath, Module>);

/// Who imports whom, with the names.
pub type Imports = BTreeMap<(String, String), BTreeSet<String>>;

/// The imports between the files that are compiled into the program.
pub fn imports(sources: &[Source]) -> Imports {
    Modules::read(sources).imports()
}

/// The modules that the root of a crate declares.
pub fn declared(root: &Source) -> Vec<String> {
    let pairs = root.tokens.windows(2).filter(|pair| pair[0] == "mod");
    pairs.map(|pair| pair[1].clone()).collect()
}

/// The files that are compiled into the program.
pub fn shipped(sources: &[Source]) -> BTreeSet<String> {
    Modules::read(sources)
        .0
        .into_values()
        .map(|module| module.file)
        .collect()
}

impl Modules {
    /// Reads the modules that `lib.rs`, `base.rs` and `main.rs` declare, and those that they declare.
    fn read(sources: &[Source]) -> Self {
        let by_path: BTreeMap<&str, &Source> = sources.iter().map(|source| (&*source.path, source)).collect();
        let mut modules = Self(BTreeMap::new());
        let mut open: Vec<(ModulePath, String)> = vec![(vec![], "lib.rs".to_owned())];
        while let Some((path, file)) = open.pop() {
            modules.scan(&path, &file, &by_path[&*file].tokens);
            if path.is_empty() {
                // The modules of the base and of the program lie beside the library's.
                let others = ["base.rs", "main.rs"].iter().filter_map(|root| by_path.get(root));
                let children = others.flat_map(|root| declared(root));
                modules.0.get_mut(&path).unwrap().children.extend(children);
            }
            for child in &modules.0[&path].children {
                let below = [&path[..], std::slice::from_ref(child)].concat();
                if modules.0.contains_key(&below) {
                    continue;
                }
                let place = below.join("/");
                let child_file = [format!("{place}.rs"), format!("{place}/mod.rs")]
                    .into_iter()
                    .find(|file| by_path.contains_key(&**file))
                    .unwrap_or_else(|| panic!("{file} declares `{child}`, which has no file"));
                open.push((below, child_file));
            }
        }
        modules
    }

    /// Reads the tokens of a file, the module of which has that path.
    fn scan(&mut self, path: &[String], file: &str, tokens: &[String]) {
        let mut here = path.to_vec();
        self.0.insert(here.clone(), Module::of(file));
        // Depths of braces at which the inline modules end.
        let mut ends: Vec<usize> = vec![];
        let mut depth = 0;
        let mut at = 0;
        while at < tokens.len() {
            let token = &*tokens[at];
            let next = tokens.get(at + 1).map_or("", |token| token);
            let previous = at.checked_sub(1).map_or("", |before| &*tokens[before]);
            let module = self.0.get_mut(&here).unwrap();
            match token {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if ends.last() == Some(&depth) {
                        ends.pop();
                        here.pop();
                    }
                }
                "pub" if next == "(" => {
                    at += tokens[at..].iter().position(|token| token == ")").unwrap();
                }
                "mod" if is_name(next) => {
                    module.children.insert(next.to_owned());
                    if tokens[at + 2] == "{" {
                        ends.push(depth);
                        here.push(next.to_owned());
                        self.0.insert(here.clone(), Module::of(file));
                    }
                    at += 1;
                }
                "use" if next != "<" => {
                    let end = at + tokens[at..].iter().position(|token| token == ";").unwrap();
                    module.take(&tokens[at + 1..end], &[]);
                    at = end;
                }
                "const" | "enum" | "fn" | "static" | "struct" | "trait" | "type" if is_name(next) => {
                    module.items.insert(next.to_owned());
                }
                _ if next == "::" && is_name(token) && !["::", ".", "$"].contains(&previous) => {
                    let mut path = vec![token.to_owned()];
                    while let [joint, name, ..] = &tokens[at + 1..]
                        && joint == "::"
                        && is_name(name)
                    {
                        path.push(name.clone());
                        at += 2;
                    }
                    module.paths.insert(path);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// From the root, what a path in a module stands for; none for names of other crates and of items here.
    fn absolute(&self, here: &[String], path: &[String]) -> Option<ModulePath> {
        let module = &self.0[here];
        let (first, mut rest) = path.split_first()?;
        let mut absolute = match &**first {
            "crate" => vec![],
            "self" => here.to_vec(),
            "super" => here.split_last()?.1.to_vec(),
            name => match module.aliases.get(name) {
                // `use regex;`, or a path that begins with the name of a crate.
                Some(alias) if alias[0] == name => return None,
                Some(alias) => self.absolute(here, alias)?,
                None if module.children.contains(name) => [here, &[name.to_owned()]].concat(),
                None => return None,
            },
        };
        while let [first, others @ ..] = rest
            && first == "super"
        {
            absolute.pop();
            rest = others;
        }
        absolute.extend_from_slice(rest);
        Some(absolute)
    }

    /// The file that defines what a path from the root names; none where another crate does.
    fn file_of(&self, path: &[String]) -> Option<&str> {
        let mut end = 0;
        while end < path.len() && self.0[&path[..end]].children.contains(&path[end]) {
            end += 1;
        }
        let (here, rest) = path.split_at(end);
        let module = &self.0[here];
        let Some(name) = rest.first().filter(|name| !module.items.contains(*name)) else {
            return Some(&module.file);
        };
        if let Some(alias) = module.aliases.get(name) {
            let target = self.absolute(here, alias)?;
            return self.file_of(&[&target, &rest[1..]].concat());
        }
        let passed_on = module.globs.iter().find_map(|glob| {
            let target = self.absolute(here, glob)?;
            let module = self.0.get(&target)?;
            let has = module.items.contains(name) || module.aliases.contains_key(name);
            has.then_some(target)
        });
        match passed_on {
            Some(target) => self.file_of(&[&target, rest].concat()),
            None => Some(&module.file),
        }
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (here, module) in &self.0 {
            let used = module.aliases.values().chain(&module.globs).chain(&module.paths);
            for absolute in used.filter_map(|path| self.absolute(here, path)) {
                if let Some(file) = self.file_of(&absolute)
                    && file != module.file
                {
                    let name = absolute.last().cloned().unwrap_or_default();
                    let pair = (module.file.clone(), file.to_owned());
                    imports.entry(pair).or_default().insert(name);
                }
            }
        }
        imports
    }
}

impl Module {
    fn of(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            ..Self::default()
        }
    }

    /// Reads the tree of a `use`, whose first segments were read.
    fn take(&mut self, tree: &[String], before: &[String]) {
        let mut path = before.to_vec();
        let mut at = 0;
        while at < tree.len() {
            match &*tree[at] {
                "::" => {}
                "{" => {
                    for branch in branches(&tree[at + 1..tree.len() - 1]) {
                        self.take(branch, &path);
                    }
                    return;
                }
                "*" => {
                    self.globs.push(path);
                    return;
                }
                "as" => {
                    self.aliases.insert(tree[at + 1].clone(), path);
                    return;
                }
                "self" if !path.is_empty() => {}
                name => path.push(name.to_owned()),
            }
            at += 1;
        }
        if let Some(name) = path.last() {
            self.aliases.insert(name.clone(), path);
        }
    }
}

/// The parts between the commas of a group.
fn branches(group: &[String]) -> Vec<&[String]> {
    let mut depth = 0;
    let parts = group.split(move |token| {
        match &**token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0 && token == ","
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// Whether a file is the module above another: its folder's `mod.rs`, or `x.rs` of a file in `x/`.
pub fn is_above(file: &str, other: &str) -> bool {
    let folder = match file.strip_suffix("mod.rs") {
        Some(folder) => folder.to_owned(),
        None if file == "lib.rs" => String::new(),
        None => format!("{}/", file.trim_end_matches(".rs")),
    };
    file != other && other.starts_with(&folder)
}

/// The circles among files that import each other: each with all its files.
pub fn circles(imports: &Imports) -> Vec<BTreeSet<&str>> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in imports.keys() {
        reached.entry(from).or_default().insert(to);
    }
    let direct = reached.clone();
    for all in reached.values_mut() {
        let mut open: Vec<_> = all.iter().copied().collect();
        while let Some(file) = open.pop() {
            let further = direct.get(file).into_iter().flatten();
            open.extend(further.filter(|file| all.insert(file)));
        }
    }
    let mut circles: Vec<BTreeSet<&str>> = vec![];
    for (file, all) in &reached {
        if all.contains(file) && !circles.iter().any(|circle| circle.contains(file)) {
            let back = |other: &&&str| reached.get(**other).is_some_and(|all| all.contains(file));
            circles.push(all.iter().filter(back).copied().collect());
        }
    }
    circles
}
