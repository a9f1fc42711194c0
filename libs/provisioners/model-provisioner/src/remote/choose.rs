//! Which file of a repository a reference means. Pure.

use wire::SplitName;

use super::FetchError;
use crate::Selector;

/// Tried in order for a reference without a quantisation, as llama.cpp does.
const USUAL: [&str; 2] = ["Q4_K_M", "Q8_0"];

/// The path of the wanted file among `files`.
pub(crate) fn choose<'a>(
    repo: &str,
    files: &'a [String],
    selector: &Selector,
) -> Result<&'a str, FetchError> {
    let choosable = |file: &&str| is_model(file) && split(file).is_none_or(|name| name.number == 1);
    let mut models: Vec<&str> = files.iter().map(String::as_str).filter(choosable).collect();
    models.sort_by_key(|file| (file.len(), *file));
    if models.is_empty() {
        return Err(FetchError::NoGguf { repo: repo.to_owned() });
    }
    let with = |quant: &str| models.iter().copied().find(|file| has_quant(file, quant));
    let found = match selector {
        Selector::File(file) => {
            set_of(file)?;
            models.iter().copied().find(|model| model == file)
        }
        Selector::Quant(quant) => with(&quant.to_ascii_uppercase()),
        Selector::Default => USUAL.iter().find_map(|quant| with(quant)).or(match models.as_slice() {
            [only] => Some(*only),
            _ => None,
        }),
    };
    let found = found.ok_or_else(|| FetchError::NoQuantisation {
        repo: repo.to_owned(),
        wanted: match selector {
            Selector::Default => USUAL.join(" or "),
            Selector::Quant(text) | Selector::File(text) => text.clone(),
        },
        known: known(&models),
    })?;
    let missing = set_of(found)?.into_iter().find(|file| !files.contains(file));
    match missing {
        Some(missing) => Err(FetchError::IncompleteSet { file: found.to_owned(), missing }),
        None => Ok(found),
    }
}

/// Every file of the model whose first (or only) file is `file`, in order.
pub(crate) fn set_of(file: &str) -> Result<Vec<String>, FetchError> {
    let Some(name) = split(file) else { return Ok(vec![file.to_owned()]) };
    let dir = file.rfind('/').map_or("", |at| &file[..=at]);
    if name.number != 1 {
        let first = format!("{dir}{}", name.sibling(1));
        return Err(FetchError::NotFirst { file: file.to_owned(), first });
    }
    Ok(name.all().map(|name| format!("{dir}{name}")).collect())
}

fn split(file: &str) -> Option<SplitName> {
    SplitName::parse(file.rsplit('/').next().unwrap_or_default())
}

fn is_model(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    // Projectors of multimodal models, importance matrices: beside the model, not the model.
    name.ends_with(".gguf") && !name.contains("mmproj") && !name.contains("imatrix")
}

fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or_default();
    name.get(..name.len().saturating_sub(5)).unwrap_or_default()
}

fn has_quant(file: &str, quant: &str) -> bool {
    quant_of(file).is_some_and(|own| own == quant || own.strip_prefix("UD-") == Some(quant))
}

fn known(models: &[&str]) -> String {
    let mut names: Vec<String> =
        models.iter().map(|file| quant_of(file).unwrap_or_else(|| (*file).to_owned())).collect();
    names.sort();
    names.dedup();
    // A repository can have hundreds; an error is read by a person.
    names.truncate(40);
    names.join(", ")
}

/// The quantisation a file's name ends in, in capitals, as `Q4_K_M` or `UD-Q4_K_XL`.
fn quant_of(file: &str) -> Option<String> {
    let upper = stem(file).to_ascii_uppercase();
    let parts: Vec<&str> = upper.split(['-', '.']).collect();
    let (at, tag) = parts.iter().enumerate().rev().find_map(|(at, part)| Some((at, tag_in(part)?)))?;
    let dynamic = at > 0 && parts.get(at - 1) == Some(&"UD");
    Some(if dynamic { format!("UD-{tag}") } else { tag.to_owned() })
}

fn tag_in(part: &str) -> Option<&str> {
    let starts = std::iter::once(0).chain(part.match_indices('_').map(|(at, _)| at + 1));
    starts.filter_map(|at| part.get(at..)).find(|rest| is_tag(rest))
}

fn is_tag(text: &str) -> bool {
    let digits = text.strip_prefix(['I', 'T']).unwrap_or(text).strip_prefix('Q');
    let quantised = digits.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    quantised || ["F16", "F32", "BF16", "FP16", "FP32"].contains(&text) || text.starts_with("MXFP4")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(files: &[&str], selector: Selector) -> String {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        choose("o/r", &files, &selector).map_or_else(|e| e.to_string(), str::to_owned)
    }
    fn quant(text: &str) -> Selector {
        Selector::Quant(text.to_owned())
    }

    #[test]
    fn the_quantisation_is_read_from_the_usual_names() {
        for (file, expected) in [
            ("qwen2.5-0.5b-instruct-q4_k_m.gguf", Some("Q4_K_M")),
            ("a/Model-1.5B.Q8_0.gguf", Some("Q8_0")),
            ("model_IQ2_XXS.gguf", Some("IQ2_XXS")),
            ("M-UD-Q4_K_XL.gguf", Some("UD-Q4_K_XL")),
            ("m-f16.gguf", Some("F16")),
            ("m-Q4_K_M-00001-of-00002.gguf", Some("Q4_K_M")),
            ("Qwen2.5.gguf", None),
        ] {
            assert_eq!(quant_of(file).as_deref(), expected, "{file}");
        }
    }

    #[test]
    fn the_wanted_file_is_chosen_and_a_missing_quantisation_lists_the_others() {
        let files = ["README.md", "m-Q8_0.gguf", "m-q4_k_m.gguf", "mmproj-Q5_0.gguf", "x/m-Q2_K.gguf"];
        assert_eq!(pick(&files, Selector::Default), "m-q4_k_m.gguf");
        assert_eq!(pick(&files, quant("q8_0")), "m-Q8_0.gguf");
        assert_eq!(pick(&files, Selector::File("x/m-Q2_K.gguf".into())), "x/m-Q2_K.gguf");
        assert!(pick(&files, quant("Q5_0")).ends_with("no quantisation Q5_0; there are: Q2_K, Q4_K_M, Q8_0"));
        assert!(pick(&["a.txt"], Selector::Default).contains("no GGUF file"));
        assert_eq!(pick(&["only.gguf"], Selector::Default), "only.gguf");
    }

    /// MPROV-021
    #[test]
    fn a_split_model_is_chosen_by_its_first_file_and_only_when_all_are_there() {
        let files =
            ["m-Q4_K_M-00002-of-00002.gguf", "m-Q4_K_M-00001-of-00002.gguf", "d/x-Q2_K-00001-of-00002.gguf"];
        assert_eq!(pick(&files, quant("Q4_K_M")), "m-Q4_K_M-00001-of-00002.gguf");
        assert_eq!(pick(&files[..2], Selector::Default), "m-Q4_K_M-00001-of-00002.gguf");
        let incomplete = pick(&files, quant("Q2_K"));
        assert!(incomplete.contains("has no d/x-Q2_K-00002-of-00002.gguf"), "{incomplete}");
        let second = pick(&files, Selector::File(files[0].into()));
        assert!(second.contains("name the first, m-Q4_K_M-00001-of-00002.gguf"), "{second}");
        assert_eq!(set_of("a/m-00001-of-00001.gguf").unwrap(), ["a/m-00001-of-00001.gguf"]);
    }
}
