//! How the body of an HTTP/1.1 answer lies on the wire, taken off piece by piece wherever it is cut.
//! Does no I/O and copies nothing.

/// A chunk's size line with its extensions, and all trailers together, are never longer in good faith.
const MAX_LINE_BYTES: usize = 4 << 10;

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Everything until the connection closes.
    UntilClose,
}

/// The place in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// In a size.
    Size { so_far: u64, digits: usize },
    /// Behind a size, in what may follow it on its line.
    Extension { size: u64, bytes: usize },
    /// At the line feed behind a size.
    SizeEnd { size: u64 },
    /// In a chunk.
    Data { left: u64 },
    /// Behind a chunk.
    DataCr,
    /// And its carriage return.
    DataLf,
    /// Behind the last chunk, in a line that is a trailer unless it is empty.
    Trailer { bytes: usize, empty: bool },
    /// At the line feed of such a line.
    TrailerLf { bytes: usize, empty: bool },
    /// Behind the body.
    Over,
}

/// The bytes are not what the head announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misframed;

impl Framing {
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunked::SIZE)
    }

    /// Whether nothing of the body is left.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::Over))
    }

    /// Whether a connection that closes here has said everything.
    pub(crate) fn may_close(self) -> bool {
        self.is_over() || self == Self::UntilClose
    }

    /// Takes the next piece of the body from the front of `bytes`; `None` when it needs more of them, or
    /// the body is over.
    pub(crate) fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Misframed> {
        let piece = match self {
            Self::UntilClose => split(bytes, u64::MAX),
            Self::Length(left) => {
                let piece = split(bytes, *left);
                *left -= piece.len() as u64;
                piece
            }
            Self::Chunked(chunked) => return chunked.take(bytes),
        };
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl Chunked {
    const SIZE: Self = Self::Size { so_far: 0, digits: 0 };

    fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Misframed> {
        loop {
            if let Self::Data { left } = self {
                let piece = split(bytes, *left);
                *left -= piece.len() as u64;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                return Ok((!piece.is_empty()).then_some(piece));
            }
            if *self == Self::Over {
                return Ok(None);
            }
            let Some((byte, rest)) = bytes.split_first() else { return Ok(None) };
            *bytes = rest;
            *self = self.after(*byte)?;
        }
    }

    /// One byte of what is not data.
    fn after(self, byte: u8) -> Result<Self, Misframed> {
        Ok(match (self, byte) {
            (Self::Size { digits: 1.., so_far }, b'\r') => Self::SizeEnd { size: so_far },
            (Self::Size { digits: 1.., so_far }, b';' | b' ' | b'\t') => {
                Self::Extension { size: so_far, bytes: 0 }
            }
            (Self::Size { so_far, digits: digits @ 0..16 }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Misframed)?;
                Self::Size { so_far: so_far << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Extension { size, .. }, b'\r') => Self::SizeEnd { size },
            (Self::Extension { size, bytes: bytes @ 0..MAX_LINE_BYTES }, 0x20..=0x7e | b'\t') => {
                Self::Extension { size, bytes: bytes + 1 }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer { bytes: 0, empty: true },
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::SIZE,
            (Self::Trailer { bytes, empty }, b'\r') => Self::TrailerLf { bytes, empty },
            (Self::Trailer { bytes: bytes @ 0..MAX_LINE_BYTES, .. }, 0x20.. | b'\t') => {
                Self::Trailer { bytes: bytes + 1, empty: false }
            }
            (Self::TrailerLf { empty: true, .. }, b'\n') => Self::Over,
            (Self::TrailerLf { bytes, .. }, b'\n') => Self::Trailer { bytes, empty: true },
            _ => return Err(Misframed),
        })
    }
}

fn split<'a>(bytes: &mut &'a [u8], at_most: u64) -> &'a [u8] {
    let length = usize::try_from(at_most).unwrap_or(usize::MAX).min(bytes.len());
    let (piece, rest) = bytes.split_at(length);
    *bytes = rest;
    piece
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body of what comes in these pieces, what follows it, and where it stands.
    fn read(mut framing: Framing, pieces: &[&[u8]]) -> Result<(String, String, Framing), Misframed> {
        let (mut body, mut behind) = (Vec::new(), Vec::new());
        for mut bytes in pieces.iter().copied() {
            while let Some(piece) = framing.take(&mut bytes)? {
                body.extend_from_slice(piece);
            }
            behind.extend_from_slice(bytes);
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((text(body), text(behind), framing))
    }

    #[test]
    fn chunks_with_extensions_and_trailers_are_read_however_they_are_cut() {
        let wire = b"5\r\nhello\r\n00B;a=\"b\"\r\n, my world\n\r\n0\r\nx: y\r\nz: \r\n\r\nnext";
        for size in 1..wire.len() {
            let pieces: Vec<&[u8]> = wire.chunks(size).collect();
            let (body, behind, framing) = read(Framing::chunked(), &pieces).unwrap();
            assert_eq!((body.as_str(), behind.as_str()), ("hello, my world\n", "next"), "{size}");
            assert!(framing.is_over());
        }
    }

    #[test]
    fn a_body_of_known_length_ends_there_and_one_without_goes_on() {
        let (body, behind, framing) = read(Framing::Length(3), &[b"ab", b"cd"]).unwrap();
        assert_eq!((body.as_str(), behind.as_str(), framing.is_over()), ("abc", "d", true));
        let (body, _, framing) = read(Framing::UntilClose, &[b"ab", b"cd"]).unwrap();
        assert_eq!((body.as_str(), framing.is_over(), framing.may_close()), ("abcd", false, true));
    }

    #[test]
    fn what_is_not_chunks_is_refused_and_half_of_them_are_not_the_end() {
        for bad in ["", "\r\n", "x\r\n", "-1\r\n", "5\nhello", "1\r\nab", "11112222333344445\r\n", "0\r\n\n"]
        {
            let bytes = format!("{bad}~");
            assert_eq!(read(Framing::chunked(), &[bytes.as_bytes()]), Err(Misframed), "{bad:?}");
        }
        for half in ["", "5", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "0\r\n", "0\r\n\r"] {
            let (_, _, framing) = read(Framing::chunked(), &[half.as_bytes()]).unwrap();
            assert!(!framing.may_close(), "{half:?}");
        }
        let endless = format!("1;{}", "x".repeat(2 * MAX_LINE_BYTES));
        assert_eq!(read(Framing::chunked(), &[endless.as_bytes()]), Err(Misframed));
    }

    proptest! {
        /// LCPP-003. Whatever comes, it is read to its end or refused, and the same in pieces.
        #[test]
        fn arbitrary_bytes_are_read_without_harm(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b'a'), any::<u8>()],
                0..200,
            ),
            size in 1_usize..20,
        ) {
            let all = |pieces: &[&[u8]]| {
                let (mut framing, mut body) = (Framing::chunked(), Vec::new());
                for mut bytes in pieces.iter().copied() {
                    while let Some(piece) = framing.take(&mut bytes)? {
                        body.extend_from_slice(piece);
                    }
                }
                Ok::<_, Misframed>((body, framing))
            };
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(all(&[&bytes]), all(&pieces));
        }
    }
}
