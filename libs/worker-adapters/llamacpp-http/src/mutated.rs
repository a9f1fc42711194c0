//! What an engine may send that nobody meant to write: see `mutate`.

use std::path::Path;

use std::task::{Context, Poll};

use adapter_host::{EngineItem, StreamFault};
use futures_util::{FutureExt as _, StreamExt as _};
use mutate::Dice;

use crate::chat::Chat;
use crate::completion::Completion;
use crate::refusal;
use crate::stream::{Read, Source, tokens};

type Items = Vec<Result<EngineItem, StreamFault>>;

/// A body that comes in these pieces. It is all there: nothing is waited for.
struct Pieces(std::vec::IntoIter<Vec<u8>>);

impl Source for Pieces {
    fn poll_bytes(&mut self, _: &mut Context<'_>, take: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, String>> {
        let piece = self.0.next();
        if let Some(piece) = &piece {
            take(piece);
        }
        Poll::Ready(Ok(piece.is_some()))
    }

    fn is_over(&self) -> bool {
        self.0.len() == 0
    }
}

fn items(pieces: &[&[u8]], read: impl Read) -> Items {
    let pieces: Vec<_> = pieces.iter().map(|piece| piece.to_vec()).collect();
    let all = tokens(Pieces(pieces.into_iter()), read).collect::<Vec<_>>();
    all.now_or_never().unwrap()
}

fn is_last(item: &Result<EngineItem, StreamFault>) -> bool {
    !matches!(item, Ok(EngineItem::Chunk(_)))
}

fn hold<R: Read + Default>(input: &[u8], dice: &mut Dice) {
    let whole = items(&[input], R::default());
    let lasts = whole.iter().filter(|item| is_last(item)).count();
    assert!(lasts == 1 && whole.last().is_some_and(is_last), "one end, and last: {whole:?}");
    let mut pieces = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + dice.below(20)).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    let cut = items(&pieces, R::default());
    assert_eq!(format!("{cut:?}"), format!("{whole:?}"), "the same in pieces");
}

/// LCPP-003, LCPP-006
#[test]
fn no_stream_of_an_engine_breaks_its_reader_or_reads_otherwise_in_pieces() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let corpus = mutate::corpus(&dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _timers = runtime.enter();
    let count = mutate::rounds("engine-sse", &corpus, 10_000, |input, dice| {
        hold::<Completion>(input, dice);
        hold::<Chat>(input, dice);
        // What does not begin a stream is read as a refusal.
        let status = [400, 401, 404, 500, 503][dice.below(5)];
        let told = refusal::read("/completion", status, input).to_string();
        assert!(!told.is_empty());
    });
    assert!(count > 200, "only {count} inputs");
}
