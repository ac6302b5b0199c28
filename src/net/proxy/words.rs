//! The words of a proxy's answer, for a log line: the text of a page without its tags.

/// Characters of an answer's body that an error shows, at most.
const CHARS_MAX: usize = 240;

/// The text of a body, HTML or not, in one line.
pub(super) fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = if text.contains('<') { without_tags(&text) } else { text.into_owned() };
    // Squid's pages end with the time. A text that differs each time would be logged each time.
    let text = text.split("Generated ").next().unwrap_or_default();
    in_one_line(text, CHARS_MAX)
}

/// A text without line ends, other control characters and repeated spaces, of at most `chars_max` characters.
pub(super) fn in_one_line(text: &str, chars_max: usize) -> String {
    let visible = text.split(|c: char| c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER);
    let line = visible.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Elements whose contents are no text; titles are repeated in the text.
const UNREAD: [&str; 3] = ["style", "script", "title"];

fn without_tags(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        text += before;
        text.push(' ');
        rest = match tag.strip_prefix("!--") {
            Some(comment) => comment.split_once("-->").map_or("", |(_, after)| after),
            None => {
                let (name, after) = tag.split_once('>').unwrap_or((tag, ""));
                let name = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
                let unread = UNREAD.into_iter().find(|unread| name.eq_ignore_ascii_case(unread));
                match unread {
                    Some(unread) => after_end(after, unread),
                    None => after,
                }
            }
        };
    }
    text += rest;
    [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        .into_iter()
        .fold(text, |text, (entity, character)| text.replace(entity, character))
}

/// The rest behind the end of an element; its end tag may be in any case.
fn after_end<'a>(html: &'a str, name: &str) -> &'a str {
    let mut rest = html;
    while let Some((_, tag)) = rest.split_once("</") {
        if tag.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return tag.split_once('>').map_or("", |(_, after)| after);
        }
        rest = tag;
    }
    ""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_is_its_text() {
        let page = "<!DOCTYPE html><html><head><title>ERROR</title>\n<STYLE>a { b }</Style><!-- hidden --></head>\
                    <body id=ERR><h1>Access Denied.</h1>\n<p>a &amp; b&nbsp;&lt;c</p><p>Generated Mon, 30 Nov</p></body></html>";
        assert_eq!(words(page.as_bytes()), "Access Denied. a & b <c");
        assert_eq!(words(b"Access denied\r\n\x07by \xffpolicy\n"), "Access denied by policy");
        assert_eq!(words(&[b'a'; 1_000]).chars().count(), CHARS_MAX + 1);
        assert_eq!(words(b"<script>x"), "");
    }

    proptest! {
        #[test]
        fn no_body_panics_or_breaks_the_line(body in any::<Vec<u8>>(), html in "[<>!/a-zA-Z &;-]{0,60}") {
            for body in [&body, html.as_bytes()] {
                let words = words(body);
                prop_assert!(!words.contains(char::is_control) && words.chars().count() <= CHARS_MAX + 1);
            }
        }
    }
}
