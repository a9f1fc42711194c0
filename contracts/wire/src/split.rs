//! Names of models that are split into several files, as `llama-gguf-split` makes them:
//! `NAME-00001-of-00003.gguf`. An engine is given the first and finds the others by name. Pure.

use std::path::{Path, PathBuf};

/// More files than any model has; a number beyond it is a name and no set.
const MAX_FILES: u32 = 999;

/// The name of one file of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitName {
    /// What all files begin with, as `NAME`.
    pub prefix: String,
    /// Which file this is, from 1.
    pub number: u32,
    /// How many there are; at least 2.
    pub count: u32,
}

impl SplitName {
    /// Reads a file name without directories. `None` for a model that is one file.
    #[must_use]
    pub fn parse(file: &str) -> Option<Self> {
        let (rest, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let five = |text: &str| {
            let digits = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse().ok() } else { None }
        };
        let (number, count): (u32, u32) = (five(number)?, five(count)?);
        let sound = (2..=MAX_FILES).contains(&count) && (1..=count).contains(&number) && !prefix.is_empty();
        sound.then(|| Self { prefix: prefix.to_owned(), number, count })
    }

    /// The name of file `number` of the same set.
    #[must_use]
    pub fn sibling(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }

    /// The names of all files, in order.
    pub fn all(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|number| self.sibling(number))
    }
}

/// Every file of the model whose first (or only) file is `path`.
#[must_use]
pub fn files(path: &Path) -> Vec<PathBuf> {
    match path.file_name().and_then(|name| name.to_str()).and_then(SplitName::parse) {
        Some(name) if name.number == 1 => name.all().map(|file| path.with_file_name(file)).collect(),
        _ => vec![path.to_path_buf()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_splitter_makes_are_those_of_a_set() {
        let name = SplitName::parse("m-Q4_K_M-00002-of-00003.gguf").unwrap();
        assert_eq!((name.prefix.as_str(), name.number, name.count), ("m-Q4_K_M", 2, 3));
        assert_eq!(name.sibling(3), "m-Q4_K_M-00003-of-00003.gguf");
        for other in [
            "m.gguf",
            "m-00001-of-00001.gguf",
            "m-00004-of-00003.gguf",
            "m-00000-of-00003.gguf",
            "m-1-of-3.gguf",
            "m-00001-of-99999.gguf",
            "m-00001-of-00002.bin",
            "-00001-of-00002.gguf",
        ] {
            assert_eq!(SplitName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_engine_is_given_the_first_file_and_reads_them_all() {
        let names = |path: &str| -> Vec<String> {
            files(Path::new(path)).iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            names("/d/m-00001-of-00002.gguf"),
            ["/d/m-00001-of-00002.gguf", "/d/m-00002-of-00002.gguf"]
        );
        assert_eq!(names("/d/m-00002-of-00002.gguf"), ["/d/m-00002-of-00002.gguf"]);
        assert_eq!(names("/d/m.gguf"), ["/d/m.gguf"]);
    }
}
