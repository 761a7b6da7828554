//! The command of the tool that does the same as a page.

use maud::{Markup, html};

use super::format::safe;

/// A command line, built word by word.
#[derive(Clone, Debug)]
pub(in crate::console) struct Command {
    words: Vec<String>,
    /// The line of its standard input.
    input: Option<String>,
}

impl Command {
    /// A command of `redstart`.
    pub(in crate::console) fn new(words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned());
        Self {
            words: ["redstart".to_owned()].into_iter().chain(words).collect(),
            input: None,
        }
    }

    /// Gives the command a line to read.
    pub(in crate::console) fn reads(mut self, line: impl Into<String>) -> Self {
        self.input = Some(line.into());
        self
    }

    /// Adds an argument.
    pub(in crate::console) fn arg(mut self, word: impl ToString) -> Self {
        self.words.push(word.to_string());
        self
    }

    /// Adds an option with a value, where there is one.
    pub(in crate::console) fn option(mut self, name: &str, value: Option<impl ToString>) -> Self {
        let Some(value) = value.map(|value| value.to_string()) else {
            return self;
        };
        // A value of its own that begins with a dash would be another option.
        if value.starts_with('-') {
            self.words.push(format!("{name}={value}"));
        } else {
            self.words.extend([name.to_owned(), value]);
        }
        self
    }

    /// Adds a flag, where it is set.
    pub(in crate::console) fn flag(mut self, name: &str, set: bool) -> Self {
        if set {
            self.words.push(name.to_owned());
        }
        self
    }

    /// The line, quoted for a shell.
    pub(in crate::console) fn line(&self) -> String {
        let words = self.words.iter().map(|word| quote(word));
        let line = words.collect::<Vec<_>>().join(" ");
        match &self.input {
            Some(input) => format!("printf '%s\\n' {} | {line}", quote(input)),
            None => line,
        }
    }

    /// The line with a button that copies it.
    pub(in crate::console) fn show(&self) -> Markup {
        html! {
            div.command {
                span.hint { "Same as" }
                code tabindex="0" { (safe(&self.line())) }
                button.quiet type="button" data-copy hidden { "Copy" }
            }
        }
    }
}

fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let line = Command::new(&["dead", "list"])
            .arg("orders")
            .option("--error", Some("it's \"late\""))
            .option("--tenant", Some(""))
            .option("--type", None::<&str>)
            .option("--until", Some("-x"))
            .flag("--redriven", true)
            .line();
        let expected = r#"redstart dead list orders --error 'it'\''s "late"' --tenant '' --until=-x --redriven"#;
        assert_eq!(line, expected);
        let fed = Command::new(&["publish", "orders"])
            .reads("{\"a\": \"it's\"}")
            .line();
        assert_eq!(
            fed,
            r#"printf '%s\n' '{"a": "it'\''s"}' | redstart publish orders"#
        );
    }
}
