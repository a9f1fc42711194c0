//! The answer on stdout. Knows no events.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Stdout, Write};

/// Where an answer is written.
pub(super) struct Output<W = Stdout> {
    to: W,
    /// Text of a model must not command a terminal.
    terminal: bool,
    mid_line: bool,
}

impl Output {
    pub(super) fn stdout() -> Self {
        let to = io::stdout();
        Self { terminal: to.is_terminal(), to, mid_line: false }
    }
}

impl<W: Write> Output<W> {
    /// Writes a piece of the answer at once.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        let text = if self.terminal { printable(text) } else { Cow::Borrowed(text) };
        if let Some(last) = text.chars().next_back() {
            self.mid_line = last != '\n';
        }
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }

    /// Ends the line, if one was begun.
    pub(super) fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.mid_line) {
            self.to.write_all(b"\n").and_then(|()| self.to.flush())
        } else {
            Ok(())
        }
    }
}

/// Without C0 and C1 control characters, except line break and tab.
fn printable(text: &str) -> Cow<'_, str> {
    let commands = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(commands) { Cow::Owned(text.replace(commands, "")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(terminal: bool, texts: &[&str]) -> String {
        let mut output = Output { to: Vec::new(), terminal, mid_line: false };
        texts.iter().for_each(|text| output.text(text).unwrap());
        output.end_line().unwrap();
        String::from_utf8(output.to).unwrap()
    }

    #[test]
    fn a_model_cannot_command_a_terminal() {
        let hostile = "a\u{1b}]52;c;eA==\u{7}b\u{9b}2J\u{8}\u{7f}\rc\td\n";
        assert_eq!(written(true, &[hostile]), "a]52;c;eA==b2Jc\td\n");
        assert_eq!(written(false, &[hostile]), hostile, "a file gets the bytes as they came");
        assert_eq!(written(true, &["żółw 狗 🐢"]), "żółw 狗 🐢\n");
    }

    #[test]
    fn a_line_that_was_begun_is_ended_once() {
        assert_eq!(written(false, &["rain", " falls"]), "rain falls\n");
        assert_eq!(written(false, &["rain\n", ""]), "rain\n");
        assert_eq!(written(false, &[]), "");
    }
}
