//! Patterns as Redis has them: `?` is any byte, `*` any bytes, `[abc]`, `[a-z]` and `[^a]` one byte of a class,
//! `\x` the byte x. A class that never closes ends with the pattern.

/// Whether all of `text` matches. O(pattern × text), without recursion.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // After the last star, and where its match ends so far.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern.get(pattern_at) {
            Some(b'*') => {
                pattern_at += 1;
                retry = Some((pattern_at, text_at));
                continue;
            }
            None if text_at == text.len() => return true,
            Some(_) if text_at < text.len() => {
                let (is_match, length) = match_one(&pattern[pattern_at..], text[text_at]);
                if is_match {
                    pattern_at += length;
                    text_at += 1;
                    continue;
                }
            }
            None | Some(_) => {}
        }
        match retry {
            Some((after_star, end)) if end < text.len() => {
                (pattern_at, text_at) = (after_star, end + 1);
                retry = Some((after_star, end + 1));
            }
            Some(_) | None => return false,
        }
    }
}

/// Whether `byte` matches the element at the front of `pattern`, and that element's length.
fn match_one(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'\\', escaped, ..] => (*escaped == byte, 2),
        [b'[', class @ ..] => match_class(class, byte),
        [literal, ..] => (*literal == byte, 1),
        [] => (false, 0),
    }
}

/// The same for a class, whose `[` stands before `class`.
fn match_class(class: &[u8], byte: u8) -> (bool, usize) {
    let is_negated = class.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut is_in = false;
    loop {
        match class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                is_in |= escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                is_in |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                is_in |= one == byte;
                at += 1;
            }
        }
    }
    (is_in != is_negated, 1 + at)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, is_match) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("***", "ab", true),
            ("h?llo", "hallo", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbxc", false),
            ("h[ae]llo", "hello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("[a", "a", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("[]", "a", false),
            ("user:*:name", "user:1000:name", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), is_match, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "a*".repeat(40);
        assert!(!matches(format!("{pattern}c").as_bytes(), "a".repeat(2_000).as_bytes()));
    }
}
