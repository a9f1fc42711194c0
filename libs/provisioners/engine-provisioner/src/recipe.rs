//! What CMake is told: our fixed choices, the GPU's, then the user's, which win. Pure.

use std::collections::BTreeMap;

use crate::gpu::Target;

/// Raise it when a change here must rebuild engines that exist.
pub(crate) const VERSION: u32 = 1;

/// Fixed: a release build of the server alone, statically linked, without UI, network client or tests.
/// The UI is off under both of its names, and nothing is downloaded while configuring.
const FIXED: [(&str, &str); 11] = [
    ("CMAKE_BUILD_TYPE", "Release"),
    ("BUILD_SHARED_LIBS", "OFF"),
    ("LLAMA_BUILD_TESTS", "OFF"),
    ("LLAMA_BUILD_EXAMPLES", "OFF"),
    ("LLAMA_BUILD_UI", "OFF"),
    ("LLAMA_BUILD_WEBUI", "OFF"),
    ("LLAMA_USE_PREBUILT_UI", "OFF"),
    ("LLAMA_OPENSSL", "OFF"),
    ("LLAMA_CURL", "OFF"),
    ("GGML_NATIVE", "ON"),
    ("LLAMA_BUILD_NUMBER", "0"),
];

/// CUDA's libraries are looked for beside the binary first, then where they were linked from. As long as CMake
/// leaves room for another path in it, the path ends in an empty part, which means wherever the engine is started.
const BESIDE: [(&str, &str); 3] = [
    ("CMAKE_BUILD_WITH_INSTALL_RPATH", "ON"),
    ("CMAKE_INSTALL_RPATH", "$ORIGIN"),
    ("CMAKE_INSTALL_RPATH_USE_LINK_PATH", "ON"),
];

/// Whether an engine of these definitions finds libraries beside its binary.
pub(crate) fn looks_beside(definitions: &serde_json::Value) -> bool {
    let (on, path) = (&definitions[BESIDE[0].0], definitions[BESIDE[1].0].as_str());
    on == BESIDE[0].1 && path.is_some_and(|path| path.split(';').any(|part| part == BESIDE[1].1))
}

/// The definitions, by name. `Err` names the bad flag.
pub(crate) fn definitions(
    source_digest: &str,
    target: &Target,
    user: &[String],
) -> Result<BTreeMap<String, String>, String> {
    let mut all: BTreeMap<String, String> =
        FIXED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.insert("LLAMA_BUILD_COMMIT".to_owned(), source_digest.chars().take(12).collect());
    if let Target::Cuda { architectures, .. } = target {
        all.insert("GGML_CUDA".to_owned(), "ON".to_owned());
        all.insert("CMAKE_CUDA_ARCHITECTURES".to_owned(), architectures.join(";"));
        all.extend(BESIDE.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    for flag in user {
        let (name, value) = definition(flag)?;
        all.insert(name, value);
    }
    Ok(all)
}

fn definition(flag: &str) -> Result<(String, String), String> {
    let shape = || format!("provisioning.cmake_flags: {flag:?} is not of the form -DNAME=VALUE");
    let (name, value) = flag.strip_prefix("-D").and_then(|rest| rest.split_once('=')).ok_or_else(shape)?;
    // `-DNAME:TYPE=VALUE` says the same as `-DNAME=VALUE`.
    let name = name.split(':').next().unwrap_or(name);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(shape());
    }
    let name = match name {
        "LLAMA_CUBLAS" | "LLAMA_CUDA" | "GGML_CUBLAS" => "GGML_CUDA",
        name => name,
    };
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_names_are_translated_and_the_user_wins() {
        let user = ["-DLLAMA_CUBLAS=ON".to_owned(), "-DGGML_NATIVE:BOOL=OFF".to_owned()];
        let all = definitions("0123456789abcdef", &Target::Cpu, &user).unwrap();
        assert_eq!(all["GGML_CUDA"], "ON");
        assert_eq!(all["GGML_NATIVE"], "OFF");
        assert_eq!(all["LLAMA_BUILD_COMMIT"], "0123456789ab");
        for bad in ["GGML_CUDA=ON", "-DGGML_CUDA", "-D=1", "-DA B=1", "--target=x"] {
            assert!(definitions("x", &Target::Cpu, &[bad.to_owned()]).unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn cuda_names_its_architectures() {
        let target = Target::Cuda {
            nvcc: "/n".into(),
            architectures: vec!["86".into(), "89".into()],
            device_mask: "x".into(),
            driver: None,
        };
        let all = definitions("d", &target, &[]).unwrap();
        assert_eq!((all["GGML_CUDA"].as_str(), all["CMAKE_CUDA_ARCHITECTURES"].as_str()), ("ON", "86;89"));
        assert!(looks_beside(&serde_json::to_value(&all).unwrap()));
        let elsewhere = definitions("d", &target, &["-DCMAKE_INSTALL_RPATH=/opt".to_owned()]).unwrap();
        assert!(!looks_beside(&serde_json::to_value(&elsewhere).unwrap()));
        let cpu = definitions("d", &Target::Cpu, &[]).unwrap();
        assert!(!cpu.keys().any(|name| name.contains("RPATH")), "it has no library of its own");
    }
}
