//! Server-sent events out of bytes, however they are cut: half characters, half lines, CR, LF or
//! both, comments, a byte order mark. Linear in the input, and bounded.

/// More than an event of the engine ever needs; its final chunk repeats the whole prompt.
pub(crate) const MAX_EVENT_BYTES: usize = 8 << 20;

/// An event with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// `data:` lines, joined.
    Data(String),
    /// An `error:` line, which older servers send.
    Error(String),
}

/// Why the bytes are not events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseFault {
    #[error("an event is larger than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// A parser in the middle of a stream.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    after_cr: bool,
    past_first_line: bool,
}

impl Parser {
    /// Takes bytes in and appends the events they complete; those before a fault are kept.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Event>) -> Result<(), SseFault> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
            if held + part.len() > MAX_EVENT_BYTES {
                return Err(SseFault::TooLarge);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(event) = self.end_line()? {
                out.push(event);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, SseFault> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.data.take().map(|data| text(data).map(Event::Data)).transpose();
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            b"error" => return text(value.to_vec()).map(|text| Some(Event::Error(text))),
            // Comments (an empty name), `event:`, `id:`, `retry:`: the engine says nothing by them.
            _ => {}
        }
        Ok(None)
    }
}

fn text(bytes: Vec<u8>) -> Result<String, SseFault> {
    String::from_utf8(bytes).map_err(|_| SseFault::NotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> (Vec<Event>, Result<(), SseFault>) {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        let result = chunks.iter().try_for_each(|chunk| parser.push(chunk, &mut out));
        (out, result)
    }

    fn data(text: &str) -> Event {
        Event::Data(text.to_owned())
    }

    #[test]
    fn every_line_end_bom_comment_and_field_is_survived() {
        for (bytes, expected) in [
            ("data: a\n\ndata: b\n\n", vec![data("a"), data("b")]),
            ("data: a\r\n\r\ndata:b\r\r", vec![data("a"), data("b")]),
            ("\u{feff}data: a\n\n", vec![data("a")]),
            (":\n\ndata: a\n: ping\n\n:\n\n", vec![data("a")]),
            ("data: a\ndata: b\n\n", vec![data("a\nb")]),
            ("data: a\r\ndata: b\r\n\r\n", vec![data("a\nb")]),
            ("event: x\nid: 1\nretry: 5\ndata: a\n\n", vec![data("a")]),
            ("data\n\n", vec![data("")]),
            ("data:  two\n\n", vec![data(" two")]),
            ("error: {}\n\n", vec![Event::Error("{}".to_owned())]),
            ("data: unfinished\n", vec![]),
            ("\n\n\n", vec![]),
        ] {
            assert_eq!(parse(&[bytes.as_bytes()]), (expected, Ok(())), "{bytes:?}");
        }
    }

    /// LCPP-006
    #[test]
    fn a_giant_event_is_a_fault_however_it_comes() {
        let part = vec![b'x'; 1 << 20];
        let line: Vec<&[u8]> =
            std::iter::once(&b"data: "[..]).chain(std::iter::repeat_n(&part[..], 9)).collect();
        assert_eq!(parse(&line).1, Err(SseFault::TooLarge));
        let many = b"data: ".iter().chain(&part).chain(b"\n").copied().collect::<Vec<u8>>();
        let lines: Vec<&[u8]> = std::iter::repeat_n(&many[..], 9).collect();
        assert_eq!(parse(&lines).1, Err(SseFault::TooLarge));
    }

    #[test]
    fn bytes_that_are_no_text_are_a_fault_after_the_events_before() {
        let (events, result) = parse(&[b"data: a\n\ndata: \xe6\n\n"]);
        assert_eq!((events, result), (vec![data("a")], Err(SseFault::NotUtf8)));
    }

    #[test]
    fn a_large_event_byte_by_byte_takes_linear_time() {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        let begun = std::time::Instant::now();
        parser.push(b"data: ", &mut out).unwrap();
        for _ in 0..4_000_000 {
            parser.push(b"x", &mut out).unwrap();
        }
        parser.push(b"\n\n", &mut out).unwrap();
        assert!(matches!(&out[..], [Event::Data(text)] if text.len() == 4_000_000));
        // A quadratic parser takes minutes.
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    proptest! {
        /// LCPP-003
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_events(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "data: ", "data:", "é日🍁", "a", "\n", "\n\n", "\r\n", "\r", ":", "error: e", " ", "\u{feff}",
                ]),
                0..60,
            ),
            cuts in prop::collection::vec(0usize..400, 0..40),
        ) {
            let whole = pieces.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&chunks), parse(&[&whole]));
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            prop_assert_eq!(parse(&bytes), parse(&[&whole]));
        }
    }
}
