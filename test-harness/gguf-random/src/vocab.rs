//! A SentencePiece-style vocabulary: control tokens, every byte, the space, letters, and made-up
//! pieces until the wanted size is reached. Any text can be tokenised with it.

pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) score: f32,
    pub(crate) kind: i32,
}

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

pub(crate) fn build(size: u32) -> Vec<Token> {
    let size = size as usize;
    let mut tokens = vec![
        Token { text: "<unk>".to_owned(), score: 0.0, kind: UNKNOWN },
        Token { text: "<s>".to_owned(), score: 0.0, kind: CONTROL },
        Token { text: "</s>".to_owned(), score: 0.0, kind: CONTROL },
    ];
    let byte = |b: u32| Token { text: format!("<0x{b:02X}>"), score: 0.0, kind: BYTE };
    tokens.extend((0..256).map(byte));
    for text in pieces().take(size.saturating_sub(tokens.len())) {
        let score = -(tokens.len() as f32);
        tokens.push(Token { text, score, kind: NORMAL });
    }
    tokens
}

/// The space first, then single letters, then strings of two, three, … letters, without end.
fn pieces() -> impl Iterator<Item = String> {
    let word = |mut n: u64| {
        let mut letters = Vec::new();
        while n > 0 {
            n -= 1;
            letters.push(char::from(b'a' + (n % 26) as u8));
            n /= 26;
        }
        letters.iter().rev().collect::<String>()
    };
    std::iter::once("\u{2581}".to_owned()).chain((1..).map(word))
}
