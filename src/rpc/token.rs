//! Tokens that clients keep for the server and give back: text that is not theirs
//! to read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::domain::Violation;

/// A token that says this.
pub(super) fn seal(text: impl AsRef<str>) -> String {
    BASE64.encode(text.as_ref())
}

/// What a token says, if it is one.
pub(super) fn open(token: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(token).ok()?).ok()
}

/// Where the page begins that a token asks for; None for the first page.
pub(super) fn page<T>(
    token: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Vec<Violation>> {
    if token.is_empty() {
        return Ok(None);
    }
    let rule = "is not a page token of this server";
    let place = open(token).and_then(|text| parse(&text));
    place.map(Some).ok_or_else(|| vec![Violation::new("page_token", rule)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_forged_ones_do_not_pass() {
        let number = |token: &str| page(token, |text| text.parse::<i64>().ok());
        assert_eq!(number(&seal("42")), Ok(Some(42)));
        assert_eq!(number(""), Ok(None));
        for forged in ["x", "!!", &seal("a"), &seal("1.2"), &BASE64.encode([0xff; 8])] {
            assert_eq!(number(forged).unwrap_err()[0].field, "page_token", "{forged}");
        }
    }
}
