//! Headers from strangers: hostile, cut, odd.

use std::io::Cursor;

use super::*;

/// A header under construction, to be hostile with.
struct Forge(Vec<u8>);

impl Forge {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        Self(bytes)
    }
    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn text(self, text: &str) -> Self {
        let mut forge = self.u64(text.len() as u64);
        forge.0.extend(text.as_bytes());
        forge
    }
    fn arch(self) -> Self {
        self.text("general.architecture").u32(8).text("llama")
    }
    fn parse(self) -> Result<GgufHeader, GgufError> {
        let size = self.0.len() as u64;
        header::parse(Cursor::new(self.0), size)
    }
    fn refused(self) -> String {
        self.parse().unwrap_err().to_string()
    }
}

#[test]
fn a_real_shape_parses_in_both_versions() {
    let mut bytes = gguf_random::Shape::default().to_bytes();
    for version in [2u32, 3] {
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        let header = header::parse(Cursor::new(&bytes), bytes.len() as u64).unwrap();
        assert_eq!((header.architecture.as_str(), header.ctx_max), ("llama", Some(2048)));
    }
}

/// MPROV-003
#[test]
fn every_cut_of_a_model_is_an_error_and_the_last_ones_name_both_sizes() {
    let bytes = gguf_random::Shape { layers: 1, width: 16, heads: 2, ..Default::default() }.to_bytes();
    for len in (0..bytes.len()).step_by(61).chain([bytes.len() - 1]) {
        let error = header::parse(Cursor::new(&bytes[..len]), len as u64);
        assert!(error.is_err(), "cut at {len} of {}", bytes.len());
    }
    let cut = bytes.len() - 1000;
    let error = header::parse(Cursor::new(&bytes[..cut]), cut as u64).unwrap_err().to_string();
    assert!(error.contains(&cut.to_string()) && error.contains(&bytes.len().to_string()), "{error}");
}

#[test]
fn other_files_are_recognised() {
    for bytes in [&b""[..], b"GG", b"PK\x03\x04 a zip file", b"<!DOCTYPE html>"] {
        let error = header::parse(Cursor::new(bytes), bytes.len() as u64).unwrap_err();
        assert!(matches!(error, GgufError::NotGguf), "{error}");
    }
    assert!(matches!(Forge::new(1, 0, 0).parse(), Err(GgufError::Version(1))));
    assert!(Forge::new(3u32.swap_bytes(), 0, 0).refused().contains("big-endian"));
}

/// MPROV-003
#[test]
fn hostile_counts_and_lengths_cost_an_error_and_not_memory() {
    let huge = u64::MAX;
    let cases = [
        Forge::new(3, 0, huge),
        Forge::new(3, 0, 1).u64(huge),
        Forge::new(3, 0, 1).text("general.architecture").u32(8).u64(huge),
        Forge::new(3, 0, 1).text("general.architecture").u32(8).u64(900_000),
        Forge::new(3, 0, 1).text("a").u32(8).u64(huge),
        Forge::new(3, 0, 1).text("a").u32(9).u32(8).u64(huge),
        Forge::new(3, 0, 1).text("a").u32(9).u32(10).u64(huge / 4),
        Forge::new(3, 0, 1).text("a").u32(9).u32(9).u64(1),
        Forge::new(3, 0, 1).text("a").u32(77),
        Forge::new(3, huge, 1).arch(),
        Forge::new(3, 1, 1).arch().u64(huge),
        Forge::new(3, 1, 1).arch().text("t").u32(9).u64(1).u64(1).u64(1).u64(1),
        Forge::new(3, 1, 1).arch().text("t").u32(2).u64(huge).u64(huge).u32(0).u64(0),
        Forge::new(3, 1, 1).arch().text("t").u32(1).u64(32).u32(0).u64(huge),
        Forge::new(3, 1, 1).arch().text("t").u32(1).u64(33).u32(2).u64(0),
        Forge::new(3, 0, 2).arch().text("general.alignment").u32(4).u32(0),
        Forge::new(3, 0, 2).arch().text("general.alignment").u32(4).u32(48),
        Forge::new(3, 0, 0),
    ];
    for (i, case) in cases.into_iter().enumerate() {
        assert!(case.parse().is_err(), "case {i} must be refused");
    }
}

#[test]
fn an_unknown_quantisation_still_parses() {
    let file_type = |n| Forge::new(3, 1, 2).arch().text("general.file_type").u32(4).u32(n);
    let header = file_type(777).text("t").u32(1).u64(33).u32(250).u64(0).parse().unwrap();
    assert_eq!(header.quantisation, "type-777");
    assert_eq!(header.parameters, 33);
    let known = Forge::new(3, 0, 2).arch().text("general.file_type").u32(4).u32(15).parse().unwrap();
    assert_eq!(known.quantisation, "Q4_K_M");
    assert_eq!(Forge::new(3, 0, 1).arch().parse().unwrap().quantisation, "unknown");
}

#[test]
fn the_context_length_of_another_architecture_is_not_ours() {
    let header = Forge::new(3, 0, 3)
        .text("clip.context_length")
        .u32(4)
        .u32(77)
        .text("llama.context_length")
        .u32(4)
        .u32(4096)
        .arch()
        .parse()
        .unwrap();
    assert_eq!(header.ctx_max, Some(4096));
}

#[test]
fn a_split_model_says_how_to_merge_it() {
    let mut forge = Forge::new(3, 0, 2).arch().text("split.count").u32(2);
    forge.0.extend(3u16.to_le_bytes());
    assert!(forge.refused().contains("llama-gguf-split --merge"));
}
