//! Server-sent events out of bytes, however they are cut: half characters, half lines, CR, LF or
//! both, comments, a byte order mark. Linear in the input, and bounded.

/// More than an event of the engine ever needs; its final chunk repeats the whole prompt.
pub(crate) const MAX_EVENT_BYTES: usize = 8 << 20;

/// An event with data. It lies in the bytes that came, unless they cut it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// `data:` lines, joined.
    Data(&'a str),
    /// An `error:` line, which older servers send.
    Error(&'a str),
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
    /// A line that is not all there.
    line: Vec<u8>,
    /// Of an event whose end was not seen.
    data: Option<Vec<u8>>,
    after_cr: bool,
    past_first_line: bool,
}

impl Parser {
    /// Takes bytes in and gives out the events they complete, also those before a fault.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut out: impl FnMut(Event<'_>)) -> Result<(), SseFault> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = memchr::memchr2(b'\r', b'\n', bytes);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
            if held + part.len() > MAX_EVENT_BYTES {
                return Err(SseFault::TooLarge);
            }
            let Some(end) = end else {
                self.line.extend_from_slice(part);
                return Ok(());
            };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if self.line.is_empty() {
                self.end_line(part, &mut bytes, &mut out)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(part);
                self.end_line(&line, &mut bytes, &mut out)?;
            }
        }
        Ok(())
    }

    /// Takes a line in; `behind` is what follows it.
    fn end_line(
        &mut self,
        mut line: &[u8],
        behind: &mut &[u8],
        out: &mut impl FnMut(Event<'_>),
    ) -> Result<(), SseFault> {
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                out(Event::Data(text(&data)?));
            }
            return Ok(());
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if let Some(data) = &mut self.data {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                } else if self.take_empty_line(behind) {
                    // Nearly always: one line, and its end came with it. Nothing is copied.
                    out(Event::Data(text(value)?));
                } else {
                    self.data = Some(value.to_vec());
                }
            }
            b"error" => out(Event::Error(text(value)?)),
            // Comments (an empty name), `event:`, `id:`, `retry:`: the engine says nothing by them.
            _ => {}
        }
        Ok(())
    }

    /// Takes an empty line from the front of what follows a line, if that is certain to be one.
    fn take_empty_line(&mut self, behind: &mut &[u8]) -> bool {
        let rest = match behind.split_first() {
            Some((b'\n', rest)) if self.after_cr => rest,
            _ => behind,
        };
        let Some((end @ (b'\r' | b'\n'), rest)) = rest.split_first() else { return false };
        self.after_cr = *end == b'\r';
        *behind = rest;
        true
    }
}

fn text(bytes: &[u8]) -> Result<&str, SseFault> {
    std::str::from_utf8(bytes).map_err(|_| SseFault::NotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event that outlives its bytes.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Data(String),
        Error(String),
    }

    impl From<Event<'_>> for Seen {
        fn from(event: Event<'_>) -> Self {
            match event {
                Event::Data(text) => Self::Data(text.to_owned()),
                Event::Error(text) => Self::Error(text.to_owned()),
            }
        }
    }

    fn parse(chunks: &[&[u8]]) -> (Vec<Seen>, Result<(), SseFault>) {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        let result = chunks.iter().try_for_each(|chunk| parser.push(chunk, |event| out.push(event.into())));
        (out, result)
    }

    fn data(text: &str) -> Seen {
        Seen::Data(text.to_owned())
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
            ("error: {}\n\n", vec![Seen::Error("{}".to_owned())]),
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

    /// LCPP-006
    #[test]
    fn an_event_of_the_largest_size_is_one_and_a_byte_more_is_a_fault() {
        let (head, end) = (&b"data: "[..], &b"\n\n"[..]);
        let x = |n: usize| vec![b'x'; n];
        let lengths = |events: Vec<Seen>| -> Vec<usize> {
            let length = |event: &Seen| match event {
                Seen::Data(text) | Seen::Error(text) => text.len(),
            };
            events.iter().map(length).collect()
        };
        // One line in two pieces.
        let most = MAX_EVENT_BYTES - head.len();
        let line = |n: usize| parse(&[head, &x(n), end]);
        let (events, result) = line(most);
        assert_eq!((lengths(events), result), (vec![most], Ok(())));
        let (events, result) = line(most + 1);
        assert_eq!((lengths(events), result), (vec![], Err(SseFault::TooLarge)));
        // Two lines, the second in two pieces: what the first said counts, too.
        let half = MAX_EVENT_BYTES / 2;
        let most = MAX_EVENT_BYTES - half - head.len();
        let lines = |n: usize| parse(&[head, &x(half), b"\n", head, &x(n), end]);
        let (events, result) = lines(most);
        assert_eq!((lengths(events), result), (vec![half + 1 + most], Ok(())));
        let (events, result) = lines(most + 1);
        assert_eq!((lengths(events), result), (vec![], Err(SseFault::TooLarge)));
    }

    #[test]
    fn bytes_that_are_no_text_are_a_fault_after_the_events_before() {
        let (events, result) = parse(&[b"data: a\n\ndata: \xe6\n\n"]);
        assert_eq!((events, result), (vec![data("a")], Err(SseFault::NotUtf8)));
    }

    #[test]
    fn a_large_event_byte_by_byte_takes_linear_time() {
        let (mut parser, mut out) = (Parser::default(), Vec::<Seen>::new());
        let begun = std::time::Instant::now();
        let mut push = |bytes| parser.push(bytes, |event| out.push(event.into())).unwrap();
        push(b"data: ");
        (0..4_000_000).for_each(|_| push(b"x"));
        push(b"\n\n");
        assert!(matches!(&out[..], [Seen::Data(text)] if text.len() == 4_000_000));
        // A quadratic parser takes minutes.
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
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
