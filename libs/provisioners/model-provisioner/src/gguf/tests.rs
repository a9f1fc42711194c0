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
        header::parse(Cursor::new(self.0), size)?.finish(Vec::new())
    }
    fn refused(self) -> String {
        self.parse().unwrap_err().to_string()
    }
}

fn parse(bytes: &[u8]) -> Result<GgufHeader, GgufError> {
    header::parse(Cursor::new(bytes), bytes.len() as u64)?.finish(Vec::new())
}

#[test]
fn a_real_shape_parses_in_both_versions() {
    let mut bytes = gguf_random::Shape::default().to_bytes();
    for version in [2u32, 3] {
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        let header = parse(&bytes).unwrap();
        assert_eq!((header.architecture.as_str(), header.ctx_max), ("llama", Some(2048)));
    }
}

/// MPROV-003
#[test]
fn every_cut_of_a_model_is_an_error_and_the_last_ones_name_both_sizes() {
    let bytes = gguf_random::Shape { layers: 1, width: 16, heads: 2, ..Default::default() }.to_bytes();
    for len in (0..bytes.len()).step_by(61).chain([bytes.len() - 1]) {
        let error = parse(&bytes[..len]);
        assert!(error.is_err(), "cut at {len} of {}", bytes.len());
    }
    let cut = bytes.len() - 1000;
    let error = parse(&bytes[..cut]).unwrap_err().to_string();
    assert!(error.contains(&cut.to_string()) && error.contains(&bytes.len().to_string()), "{error}");
}

#[test]
fn other_files_are_recognised() {
    for bytes in [&b""[..], b"GG", b"PK\x03\x04 a zip file", b"<!DOCTYPE html>"] {
        let error = parse(bytes).unwrap_err();
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

/// Files of a set in a directory, each with its number; `count` is what each says.
fn set(dir: &Path, numbers: &[u16], count: u16) {
    for (i, number) in numbers.iter().enumerate() {
        let mut forge = if i == 0 { Forge::new(3, 1, 5).arch() } else { Forge::new(3, 1, 3) };
        if i == 0 {
            forge = forge.text("general.alignment").u32(4).u32(32);
        }
        for (key, value) in [("split.no", *number), ("split.count", count)] {
            forge = forge.text(key).u32(2);
            forge.0.extend(value.to_le_bytes());
        }
        forge = forge.text("split.tensors.count").u32(5).u32(numbers.len() as u32);
        // One tensor of four 32-bit numbers.
        let mut bytes = forge.text("t").u32(1).u64(4).u32(0).u64(0).0;
        bytes.resize(bytes.len().next_multiple_of(32) + 16, 0);
        std::fs::write(dir.join(format!("m-{:05}-of-{:05}.gguf", i + 1, numbers.len())), bytes).unwrap();
    }
}

/// MPROV-021
#[test]
fn a_split_model_is_described_as_one_and_only_by_its_first_file() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path(), &[0, 1, 2], 3);
    let first = dir.path().join("m-00001-of-00003.gguf");
    let header = read_header(&first).unwrap();
    assert_eq!((header.parameters, header.tensor_bytes, header.files.len()), (12, 48, 3));
    let sizes = header.files.iter().map(|file| file.metadata().unwrap().len());
    assert_eq!(header.file_size, sizes.sum::<u64>());
    let second = read_header(&dir.path().join("m-00002-of-00003.gguf")).unwrap_err().to_string();
    assert!(second.contains("file 2 of 3") && second.contains("-00001-of-00003.gguf"), "{second}");
    std::fs::rename(&first, dir.path().join("renamed.gguf")).unwrap();
    let renamed = read_header(&dir.path().join("renamed.gguf")).unwrap_err().to_string();
    assert!(renamed.contains("file 1 of 3") && renamed.contains("keep the names"), "{renamed}");
}

/// MPROV-021
#[test]
fn a_set_with_a_missing_exchanged_or_cut_file_is_refused_and_the_file_named() {
    let refused = |numbers: &[u16], count: u16, change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), numbers, count);
        change(dir.path());
        let first = dir.path().join(format!("m-00001-of-{:05}.gguf", numbers.len()));
        let error = read_header(&first).unwrap_err();
        let source = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
        format!("{error}: {source}")
    };
    let missing =
        refused(&[0, 1, 2], 3, &|dir| std::fs::remove_file(dir.join("m-00003-of-00003.gguf")).unwrap());
    assert!(missing.contains("m-00003-of-00003.gguf"), "{missing}");
    let exchanged = refused(&[0, 2, 1], 3, &|_| ());
    assert!(exchanged.contains("m-00002-of-00003.gguf") && exchanged.contains("file 3 of 3"), "{exchanged}");
    let cut = refused(&[0, 1], 2, &|dir| {
        let file = std::fs::File::options().write(true).open(dir.join("m-00002-of-00002.gguf")).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    });
    assert!(cut.contains("m-00002-of-00002.gguf") && cut.contains("truncated"), "{cut}");
    assert!(refused(&[0, 1], 3, &|_| ()).contains("file 1 of 3"), "the header counts another number");
    assert!(refused(&[0, 1], 1, &|_| ()).contains("file 1 of 1"), "the header knows of no set");
}

/// MPROV-002
#[test]
fn the_vocabulary_is_counted_where_no_number_is_written() {
    let number = |forge: Forge, key: &str| forge.text(key).u32(4).u32(8);
    let mut forge = Forge::new(3, 0, 5).arch();
    for key in ["llama.block_count", "llama.embedding_length", "llama.attention.head_count"] {
        forge = number(forge, key);
    }
    let tokens = forge.text("tokenizer.ggml.tokens").u32(9).u32(8).u64(3).text("a").text("b").text("c");
    assert_eq!(tokens.parse().unwrap().dimensions.unwrap().vocabulary, Some(3));
}

/// EPROV-029
#[test]
fn a_model_that_makes_one_vector_of_a_text_says_so_under_its_own_architecture() {
    let pooled = |owner: &str, kind: u32| {
        let forge = Forge::new(3, 0, 2).arch().text(&format!("{owner}.pooling_type")).u32(4).u32(kind);
        forge.parse().unwrap().pooled
    };
    assert!(pooled("llama", 1));
    assert!(!pooled("llama", 0), "none");
    assert!(!pooled("clip", 1), "of another part of the file");
    assert!(!Forge::new(3, 0, 1).arch().parse().unwrap().pooled);
}
