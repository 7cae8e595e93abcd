//! The configuration file: bytes to a [`Layer`], each problem with its line.
//!
//! No input makes it panic. Parser messages are reported without the text of their line, which may hold a password.

use super::schema::{self, Key};
use super::{ConfigError, FILE_BYTES_MAX, Layer};
use std::path::Path;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// Maximum number of problems reported per file; a file with more is probably of another kind.
const PROBLEMS_MAX: usize = 20;

/// Decodes a file, without its byte order mark. The flag is true if there was one.
///
/// # Errors
/// A message about a file that is too large or not UTF-8.
pub(super) fn decode<'a>(name: &Path, bytes: &'a [u8]) -> Result<(&'a str, bool), String> {
    let name = name.display();
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("{name} is larger than {FILE_BYTES_MAX} bytes; is it the right file?"));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(format!("{name} is UTF-16; save it as UTF-8"));
    }
    let (bytes, marked) = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => (rest, true),
        None => (bytes, false),
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((text, marked)),
        Err(err) => {
            let line = line_of(bytes, err.valid_up_to());
            Err(format!("{name}:{line}: this line is not UTF-8; save the file as UTF-8"))
        }
    }
}

/// Bytes of the longest line that a message repeats.
const SHOWN_LINE_BYTES_MAX: usize = 120;

/// Reads the text of a configuration file. Messages name the file `name`.
///
/// Cost: O(bytes of the text), and one count of lines from its beginning per key and per problem, of which there are at
/// most 20.
///
/// # Errors
/// Messages that begin with `name:line:`, one per problem, at most 20: bad syntax, an unknown
/// table or key with the nearest known one, a wrong type, a value out of range.
pub fn parse_toml(name: &str, text: &str) -> Result<Layer, ConfigError> {
    let table = DeTable::parse(text).map_err(|err| {
        let line = line_of(text.as_bytes(), err.span().map_or(0, |span| span.start));
        let message = err.message().replace('\n', "; ");
        let hint = text.lines().nth(line - 1).and_then(quoted).unwrap_or_default();
        ConfigError::one(format!("{name}:{line}: {message}{hint}"))
    })?;
    let mut reader = Reader { name, text, layer: Layer::default(), problems: Vec::new() };
    reader.root(table.get_ref());
    // The parser's tables are in alphabetical order.
    reader.problems.sort_by_key(|(offset, _)| *offset);
    let mut problems: Vec<String> = reader.problems.into_iter().map(|(_, problem)| problem).collect();
    problems.extend(reader.layer.conflicts());
    if problems.is_empty() { Ok(reader.layer) } else { Err(ConfigError::new(problems)) }
}

/// The corrected form of a line whose value lacks quotes: `bind = 0.0.0.0`, `memory_max = 1GiB`. A secret is not
/// repeated.
fn quoted(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=').filter(|_| line.len() <= SHOWN_LINE_BYTES_MAX)?;
    let (key, value) = (key.trim(), value.split('#').next()?.trim());
    let is_plain = |text: &str| !text.is_empty() && !text.contains(['"', '\'', '[', '{', '\\']);
    if !is_plain(key) || !is_plain(value) || line.contains(char::is_control) {
        return None;
    }
    let is_secret = key.contains("password") || key.contains("secret");
    let shown = if is_secret { "…" } else { value };
    Some(format!("; text, addresses and numbers with a unit go in quotes: {key} = \"{shown}\""))
}

/// The line, from 1, of the byte at `offset`.
fn line_of(text: &[u8], offset: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', text.get(..offset).unwrap_or(text)).count()
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    layer: Layer,
    /// Each with its offset.
    problems: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.name, line_of(self.text.as_bytes(), offset))
    }

    fn problem(&mut self, offset: usize, problem: &str) {
        let problem = format!("{}: {problem}", self.place(offset));
        self.problems.push((offset, problem));
    }

    fn has_enough(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX
    }

    fn root(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            if self.has_enough() {
                return;
            }
            let (start, word) = (name.span().start, name.get_ref().as_ref());
            match (schema::TABLES.iter().find(|table| **table == word), value.get_ref()) {
                (Some(table), DeValue::Table(inner)) => self.table(table, inner),
                (Some(table), _) => {
                    self.problem(
                        start,
                        &format!("{table} is a table; write [{table}] and its keys below it"),
                    );
                }
                (None, DeValue::Table(_)) if schema::find("", word).is_none() => {
                    self.problem(start, &unknown_table(word));
                }
                (None, value) => self.key("", word, start, value),
            }
        }
    }

    fn table(&mut self, table: &str, inner: &DeTable<'_>) {
        for (name, value) in inner {
            if self.has_enough() {
                return;
            }
            self.key(table, name.get_ref(), name.span().start, value.get_ref());
        }
    }

    fn key(&mut self, table: &str, word: &str, start: usize, value: &DeValue<'_>) {
        let Some(key) = schema::find(table, word) else {
            self.problem(start, &unknown_key(table, word));
            return;
        };
        match typed(key, value)
            .map(|value| key.with_unit(value))
            .and_then(|value| key.check(&value).map(|()| value))
        {
            Ok(value) => {
                let origin = self.place(start);
                self.layer.set(key, value, origin);
            }
            Err(problem) => self.problem(start, &problem),
        }
    }
}

/// The parsed value with its number read. Tables are kept empty: no key takes one.
fn typed(key: Key, value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(digits) => Value::Integer(
            i64::from_str_radix(digits.as_str(), digits.radix())
                .map_err(|_| key.refusal("a number of more than 64 bits"))?,
        ),
        DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(entries) => {
            let entries = entries.iter().map(|entry| typed(key, entry.get_ref()));
            Value::Array(entries.collect::<Result<_, _>>()?)
        }
        DeValue::Table(_) => Value::Table(toml::Table::new()),
    })
}

fn unknown_table(word: &str) -> String {
    let tables = schema::TABLES.iter().map(|table| (*table).to_owned());
    let shown = schema::shown(word);
    match schema::nearest(word, tables) {
        Some(near) => format!("unknown table {shown} (did you mean '[{near}]'?)"),
        None => format!("unknown table {shown}; the tables are [{}]", schema::TABLES.join("], [")),
    }
}

fn unknown_key(table: &str, word: &str) -> String {
    let shown = schema::shown(word);
    let at = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
    if let Some(elsewhere) = schema::keys().find(|key| key.name == word) {
        let home = match elsewhere.table {
            "" => "it goes to the top of the file, above all tables".to_owned(),
            home => format!("it goes into [{home}]"),
        };
        return format!("unknown key {shown}{at}; {home}");
    }
    let here = || schema::keys().filter(|key| key.table == table).map(|key| key.name.to_owned());
    if let Some(near) = schema::nearest(word, here()) {
        return format!("unknown key {shown}{at} (did you mean '{near}'?)");
    }
    if let Some(near) = schema::nearest(word, schema::keys().map(|key| key.name.to_owned()))
        && let Some(key) = schema::keys().find(|key| key.name == near)
    {
        return format!("unknown key {shown}{at} (did you mean '{}'?)", key.path());
    }
    format!("unknown key {shown}{at}; the keys there are {}", here().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::{decode, parse_toml};
    use crate::config::FILE_BYTES_MAX;
    use std::path::Path;

    fn problem(text: &str) -> String {
        parse_toml("olivia.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_line_and_the_nearest_key() {
        assert_eq!(
            problem("# a comment\n\nlisten_prot = 1\n"),
            "olivia.toml:3: unknown key 'listen_prot' (did you mean 'listen_port'?)"
        );
        assert_eq!(
            problem("[limits]\nclient_max = 1\n"),
            "olivia.toml:2: unknown key 'client_max' in [limits] (did you mean 'clients_max'?)"
        );
        assert!(problem("zzzzzzzzzz = 1").contains("the keys there are base_node, listen_port"));
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_home() {
        assert!(problem("[limits]\nlisten_port = 1\n").contains("above all tables"));
        assert!(problem("clients_max = 1").contains("it goes into [limits]"));
        assert!(problem("client_max = 1").contains("'limits.clients_max'"));
    }

    #[test]
    fn an_unknown_table_is_reported_with_the_nearest_table() {
        assert_eq!(problem("[limit]\n"), "olivia.toml:1: unknown table 'limit' (did you mean '[limits]'?)");
        assert!(problem("[zzzzzzzz]\n").contains("[security], [mesh], [limits], [log]"));
    }

    #[test]
    fn a_table_for_a_key_and_a_key_for_a_table_are_refused() {
        assert!(problem("limits = 5").contains("limits is a table"));
        assert!(problem("[[limits]]\nclients_max = 1").contains("limits is a table"));
        assert!(problem("[listen_port]\n").contains("listen_port is a table"));
    }

    #[test]
    fn a_value_out_of_range_is_reported_with_its_range() {
        assert_eq!(
            problem("\n\nlisten_port = 70000"),
            "olivia.toml:3: listen_port is 70000; it takes 0 to 65535 (0: any free port)"
        );
        assert!(problem("listen_port = 99999999999999999999").contains("it takes 0 to 65535"));
        assert!(problem("listen_port = \"5454\"").contains("listen_port is text, '5454'"));
    }

    #[test]
    fn numbers_may_be_written_as_toml_allows() {
        for text in ["5_454", "0x154e", "0o12516", "0b1010101001110", "+5454"] {
            assert!(parse_toml("x", &format!("listen_port = {text}")).is_ok(), "{text}");
        }
    }

    #[test]
    fn all_problems_are_reported_up_to_a_bound() {
        let text = problem("listen_prot = 1\n[zzz]\n[log]\nlevel = \"loud\"\n[limits]\nx = 1\n");
        let lines: Vec<&str> = text.lines().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(lines, ["olivia.toml:1", "olivia.toml:2", "olivia.toml:4", "olivia.toml:6"]);
        let many: String = (0..50_000).map(|i| format!("unknown{i} = 1\n")).collect();
        assert_eq!(problem(&many).lines().count(), 20);
    }

    #[test]
    fn bad_syntax_is_reported_with_its_line_and_without_its_text() {
        let message = problem("[security]\npassword = \"hunter2\nbind = 1\n");
        assert!(message.starts_with("olivia.toml:2: "), "{message}");
        assert!(!message.contains("hunter2") && !message.contains('\n'), "{message}");
        assert!(problem("bind = \"::1\"\nbind = \"::1\"\n").starts_with("olivia.toml:2: "));
    }

    #[test]
    fn a_password_beside_a_password_file_is_refused() {
        assert!(
            problem("[security]\npassword = \"a\"\npassword_file = \"b\"\n").contains("keep one of them")
        );
        assert!(
            problem("[mesh]\nsecret = \"0123456789abcdef\"\nsecret_file = \"b\"\n")
                .contains("mesh.secret_file")
        );
    }

    #[test]
    fn files_that_are_not_utf8_text_are_distinguished() {
        let path = Path::new("olivia.toml");
        assert_eq!(decode(path, b"\xef\xbb\xbfbind"), Ok(("bind", true)));
        assert!(decode(path, b"\xff\xfeb\0").unwrap_err().contains("UTF-16"));
        assert!(decode(path, b"a\nb\n\xff").unwrap_err().starts_with("olivia.toml:3: "));
        assert!(decode(path, &vec![b' '; FILE_BYTES_MAX + 1]).unwrap_err().contains("right file"));
    }

    #[test]
    fn deep_nesting_and_hostile_text_do_not_panic() {
        let mut texts = vec!["[".repeat(100_000), "a = ".to_owned() + &"[".repeat(100_000)];
        texts.push("a.".repeat(100_000));
        texts.push("x = {".repeat(10_000));
        texts.push(format!("{} = 1", "k".repeat(500_000)));
        let shipped = crate::config::DEFAULT_TEXT;
        texts.extend((0..shipped.len()).step_by(7).filter_map(|cut| shipped.get(..cut)).map(str::to_owned));
        let mut state = 1_u64;
        for _ in 0..300 {
            let mut bytes = shipped.as_bytes().to_vec();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from(state >> 33).unwrap() % bytes.len();
                bytes[at] = b"\"[]{}=.#'\n\\0-\xc3"[usize::try_from(state >> 20).unwrap() % 14];
            }
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        for text in texts {
            let _ = parse_toml("x", &text);
        }
    }
}
