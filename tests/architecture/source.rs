//! The sources as tokens: modules, their imports, and the code, without comments, strings and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One file below `src/`.
pub struct Source {
    /// From `src/`, with slashes.
    pub path: String,
    /// Its first line.
    pub first_line: String,
    pub lines: usize,
    /// The path of its module: `["node", "peer", "link"]`.
    module: Vec<String>,
    pub tokens: Vec<Token>,
}

/// A word, `::` or one other character, with its line.
#[derive(Clone)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

pub struct Sources {
    pub files: Vec<Source>,
    by_module: BTreeMap<Vec<String>, usize>,
}

/// Local names with the paths that `use` gives them.
type Aliases = BTreeMap<String, Vec<String>>;

/// One file names something of another.
pub struct Import {
    pub from: usize,
    pub to: usize,
    pub line: usize,
}

impl Sources {
    /// All of `src/` but files that hold nothing but tests.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut paths = Vec::new();
        collect(&root, &mut paths);
        paths.sort();
        let named = paths.iter().map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(path).unwrap())
        });
        Self::new(named.filter(|(name, _)| !name.ends_with("/tests.rs")))
    }

    pub fn new(files: impl Iterator<Item = (String, String)>) -> Self {
        let files: Vec<Source> = files.map(|(path, text)| Source::new(path, &text)).collect();
        let by_module = files.iter().enumerate().map(|(at, file)| (file.module.clone(), at)).collect();
        Self { files, by_module }
    }

    /// Every import: in `use` of any form, and paths in the middle of code.
    pub fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (from, file) in self.files.iter().enumerate() {
            let (paths, aliases) = file.paths();
            for (line, path) in paths {
                let Some(path) = self.absolute(file, &aliases, path) else { continue };
                let to = (0..=path.len()).rev().find_map(|end| self.by_module.get(&path[..end]).copied());
                imports.extend(to.filter(|to| *to != from).map(|to| Import { from, to, line }));
            }
        }
        imports
    }

    /// `path` from the root of the crate; `None` if it leads to another crate or to a local name.
    fn absolute(&self, file: &Source, aliases: &Aliases, path: Vec<String>) -> Option<Vec<String>> {
        let (head, rest) = path.split_first()?;
        let mut child = file.module.clone();
        child.push(head.clone());
        match head.as_str() {
            "crate" => Some(rest.to_vec()),
            "olivia" if file.path == "main.rs" => Some(rest.to_vec()),
            "self" => Some([&file.module[..], rest].concat()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let kept = file.module.len().checked_sub(up)?;
                Some([&file.module[..kept], &path[up..]].concat())
            }
            _ if self.by_module.contains_key(&child) => Some([&file.module[..], &path[..]].concat()),
            _ => {
                let meant = aliases.get(head).filter(|meant| meant.first() != Some(head))?;
                self.absolute(file, &BTreeMap::new(), [&meant[..], rest].concat())
            }
        }
    }

    /// Groups of files that import each other in a circle. A file may name what the module that holds it defines:
    /// that is one noun in several files.
    pub fn cycles(&self) -> Vec<Vec<&str>> {
        let mut next = vec![BTreeSet::new(); self.files.len()];
        for Import { from, to, .. } in self.imports() {
            if !self.files[from].module.starts_with(&self.files[to].module) {
                next[from].insert(to);
            }
        }
        let reach: Vec<BTreeSet<usize>> = (0..next.len()).map(|start| reachable(start, &next)).collect();
        let mut cycles = BTreeSet::new();
        for at in 0..next.len() {
            if reach[at].contains(&at) {
                let members = reach[at].iter().filter(|other| reach[**other].contains(&at));
                cycles.insert(members.map(|other| self.files[*other].path.as_str()).collect::<Vec<_>>());
            }
        }
        cycles.into_iter().collect()
    }
}

fn reachable(start: usize, next: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let (mut found, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(at) = open.pop() {
        open.extend(next[at].iter().filter(|to| found.insert(**to)));
    }
    found
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let stem = path.strip_suffix(".rs").unwrap();
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        let module = if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() };
        let tokens = without_tests(tokens(text));
        let first_line = text.lines().next().unwrap_or("").to_owned();
        Self { first_line, lines: text.lines().count(), module, tokens, path }
    }

    /// Each path of two or more parts with its line, and what the names are that `use` gives.
    fn paths(&self) -> (Vec<(usize, Vec<String>)>, Aliases) {
        let (mut paths, mut aliases) = (Vec::new(), BTreeMap::new());
        let mut at = 0;
        while at < self.tokens.len() {
            let text = self.tokens[at].text.as_str();
            if text == "use" && self.text(at + 1) != "<" {
                at = self.use_tree(at + 1, &[], &mut paths, &mut aliases);
            } else if text == "pub" && self.text(at + 1) == "(" {
                // A visibility is no import.
                at += self.tokens[at..].iter().position(|token| token.text == ")").unwrap_or(0) + 1;
            } else if is_word(text) && self.text(at + 1) == "::" && !(at > 0 && self.text(at - 1) == "::") {
                let line = self.tokens[at].line;
                let mut path = vec![text.to_owned()];
                while self.text(at + 1) == "::" && is_word(self.text(at + 2)) {
                    path.push(self.text(at + 2).to_owned());
                    at += 2;
                }
                paths.push((line, path));
                at += 1;
            } else {
                at += 1;
            }
        }
        (paths, aliases)
    }

    pub fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    /// Reads one tree of a `use` that begins at `at`; the index after it.
    fn use_tree(
        &self,
        mut at: usize,
        prefix: &[String],
        paths: &mut Vec<(usize, Vec<String>)>,
        aliases: &mut Aliases,
    ) -> usize {
        let mut path = prefix.to_vec();
        let line = self.tokens[at].line;
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while self.text(at) != "}" {
                        at = self.use_tree(at, &path, paths, aliases);
                        at += usize::from(self.text(at) == ",");
                    }
                    return at + 1;
                }
                "as" => {
                    aliases.insert(self.text(at + 1).to_owned(), path.clone());
                    at += 2;
                }
                "," | "}" | ";" | "" => break,
                "self" if !path.is_empty() => at += 1,
                part => {
                    path.push(part.to_owned());
                    at += 1;
                }
            }
        }
        if let Some(name) = path.last() {
            aliases.entry(name.clone()).or_insert_with(|| path.clone());
        }
        paths.push((line, path));
        at
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Cuts text into tokens, leaving out comments and what stands in quotes.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") || rest.starts_with("br#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            quoted(rest)
        } else if c == '\'' && (rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'')) {
            1 + quoted_end(&rest[1..], '\'')
        } else if word > 0 {
            word
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !c.is_whitespace() && !matches!(c, '"') && !token.starts_with("//") {
            tokens.push(Token { text: token.to_owned(), line });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    tokens
}

fn quoted(text: &str) -> usize {
    1 + quoted_end(&text[1..], '"')
}

/// The bytes up to and with the closing quote.
fn quoted_end(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Leaves out each item after `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !texts[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        while at < tokens.len() {
            at += 1;
            match texts[at - 1] {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}
