//! `gguf-random OUT [SEED]`: writes one default-shaped file, to try the real engine by hand.
#![forbid(unsafe_code)]

use std::path::Path;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let invalid = |text| std::io::Error::new(std::io::ErrorKind::InvalidInput, text);
    let out = args.next().ok_or_else(|| invalid("usage: gguf-random OUT [SEED]"))?;
    let mut shape = gguf_random::Shape::default();
    if let Some(seed) = args.next() {
        shape.seed = seed.parse().map_err(|_| invalid("SEED must be a whole number"))?;
    }
    shape.write(Path::new(&out))
}
