//! Text of unknown origin for people: names out of files, arguments, messages of other programs.
//!
//! Such text may hold what a terminal obeys, pretend to be several lines, or have no end. Everything that is printed goes
//! through here; files and JSON have the text as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The most characters of a piece in backticks.
const QUOTED: usize = 120;
/// The most characters without a blank between them; paths are longer than names.
const WORD: usize = 240;
/// The most characters of a sentence.
const SENTENCE: usize = 1000;
/// The most characters of a line of a listing.
const LINE: usize = 4000;
/// A list of more items than these is cut where its sentence is too long.
const ITEMS: usize = 8;

/// Whether a character is no text: control characters, those that change the direction of what follows, and those
/// that nobody sees.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text with what a terminal would obey made visible: `\n`, `\u{1b}`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// At most about `most` characters: the beginning, the end, and how many there were.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= most {
        return Cow::Borrowed(text);
    }
    let head: String = text.chars().take(most * 3 / 4).collect();
    let tail: String = text.chars().skip(count - most / 8).collect();
    Cow::Owned(format!("{head}… ({count} characters) …{tail}"))
}

/// A name for a table or within a line: clean, and not long.
pub fn name(text: &str) -> String {
    cut(&clean(text), QUOTED).into_owned()
}

/// One sentence on one line: quotes, words and lists that have no end are cut.
pub fn sentence(text: &str) -> String {
    let text = clean(text);
    if text.chars().count() <= QUOTED {
        return text.into_owned();
    }
    let mut out = String::new();
    // Every second piece is between backticks.
    for (number, piece) in text.split('`').enumerate() {
        if number > 0 {
            out.push('`');
        }
        if number % 2 == 1 {
            out.push_str(&cut(piece, QUOTED));
            continue;
        }
        for (number, word) in piece.split(' ').enumerate() {
            if number > 0 {
                out.push(' ');
            }
            out.push_str(&cut(word, WORD));
        }
    }
    if out.chars().count() > SENTENCE {
        out = without_list(&out).unwrap_or(out);
    }
    cut(&out, SENTENCE).into_owned()
}

/// A long sentence with the middle of its list counted; `None` if it has no long list.
fn without_list(text: &str) -> Option<String> {
    let items: Vec<&str> = text.split(", ").collect();
    let more = items.len().checked_sub(ITEMS).filter(|more| *more > ITEMS)?;
    let (head, _) = items.split_at(ITEMS);
    Some(format!("{}, and {more} more", head.join(", ")))
}

/// Lines of a text that is made here, such as a listing: each is clean and has an end.
pub fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        out.push_str(&cut(&clean(line), LINE));
    }
    out
}

/// Names with commas between them, of many only the first: `a, b, c and 71 more`.
pub fn list<T: AsRef<str>>(names: &[T]) -> String {
    let shown = if names.len() > ITEMS + 1 { ITEMS } else { names.len() };
    let mut out = String::new();
    for (number, text) in names.iter().take(shown).enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{}", if number > 0 { ", " } else { "" }, name(text.as_ref()));
    }
    if shown < names.len() {
        let _ = write!(out, " and {} more", names.len() - shown);
    }
    out
}

/// A count of bytes for people.
pub fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// A count with thin separators: 1 234 567.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(d);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_made_visible() {
        assert_eq!(clean("plain – größer ☃"), "plain – größer ☃");
        assert_eq!(clean("c\x1b[2J\x1b[31mred"), "c\\u{1b}[2J\\u{1b}[31mred");
        assert_eq!(clean("a\nerror[x]: all fine\r\0\u{7f}\u{9b}"), "a\\nerror[x]: all fine\\r\\u{0}\\u{7f}\\u{9b}");
        assert_eq!(clean("\u{202e}txt\u{2066}\u{200b}\u{feff}"), "\\u{202e}txt\\u{2066}\\u{200b}\\u{feff}");
        assert_eq!(lines("; a\x07\n\tb\n"), "; a\\u{7}\n\\tb\n");
    }

    #[test]
    fn what_has_no_end_is_cut() {
        let long = "x".repeat(3_000_000);
        for text in
            [format!("layer `{long}`: it has 0 inputs"), long.clone(), format!("a {long} b"), "x ".repeat(99_999)]
        {
            let said = sentence(&text);
            assert!(said.chars().count() < SENTENCE + 50 && said.contains(" characters) …"), "{said}");
        }
        assert!(sentence(&format!("layer `{long}`: it has 0 inputs")).ends_with("`: it has 0 inputs"));
        assert!(name(&long).chars().count() < QUOTED + 30);
        let keys: Vec<String> = (0..200_000).map(|k| format!("key{k}")).collect();
        let said = sentence(&format!("there is no array `y`; there are {}", keys.join(", ")));
        assert_eq!(
            said,
            "there is no array `y`; there are key0, key1, key2, key3, key4, key5, key6, key7, and 199992 more"
        );
        assert_eq!(list(&keys[..9]), "key0, key1, key2, key3, key4, key5, key6, key7, key8");
        assert_eq!(list(&keys[..79]), "key0, key1, key2, key3, key4, key5, key6, key7 and 71 more");
        // Sentences that people write stay as they are.
        let fine = format!("layer `{}`: {}", "a".repeat(100), "known are relu, relu6, tanh ".repeat(20));
        assert_eq!(sentence(&fine), fine);
    }
}
