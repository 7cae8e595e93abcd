//! Parses replies in lines, as far as they are shown.

/// A reply: its word, and the text after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) word: String,
    pub(super) body: String,
}

impl Reply {
    /// Reads a line without its end: `id:WORD fields`. `None`: it is no reply.
    pub(super) fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(':')?;
        let (word, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
        is_word.then(|| Self { word: word.to_owned(), body: body.to_owned() })
    }

    /// The fields, as they are written: commas in quotes do not separate them.
    pub(super) fn fields(&self) -> Vec<&str> {
        let (mut fields, mut begin, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
        for (at, byte) in self.body.bytes().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    fields.push(&self.body[begin..at]);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        if !self.body.is_empty() {
            fields.push(&self.body[begin..]);
        }
        fields
    }

    /// The text after `name:` among the fields.
    pub(super) fn text(&self, name: &str) -> &str {
        let mut fields = self.fields().into_iter();
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
    }

    /// The number after `name:`, 0 if there is none.
    pub(super) fn number(&self, name: &str) -> f64 {
        self.text(name).parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Reply;

    #[test]
    fn commas_in_quotes_do_not_part_fields() {
        let reply = Reply::read("7:GOT a:1,\"b,\\\",\":\"x,y\",c:2").unwrap();
        assert_eq!(reply.word, "GOT");
        assert_eq!(reply.fields(), ["a:1", "\"b,\\\",\":\"x,y\"", "c:2"]);
        assert_eq!((reply.text("c"), reply.number("a")), ("2", 1.0));
        assert!(Reply::read(":GOT ").unwrap().fields().is_empty());
    }

    #[test]
    fn line_that_is_no_reply_is_distinguished_from_one() {
        for line in ["", "+PONG", "HTTP/1.1 400 Bad Request", "220 smtp: hello", ":got x"] {
            assert_eq!(Reply::read(line), None, "{line}");
        }
    }
}
