//! Text of a bounded length.

/// Cuts a text to at most so many bytes, between two characters.
pub(super) fn cut(text: &mut String, longest: usize) {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
