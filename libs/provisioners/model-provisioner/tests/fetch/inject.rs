//! Names that want out: whatever a reference or a hub's answer says, files appear in the cache alone.

use std::path::Path;

use provisioners_model_provisioner::ModelRef;

use crate::server::{Reply, Server};
use crate::{COMMIT, Machine, model, sha256};

const WAYS_OUT: [&str; 12] = [
    "../../evil",
    "..",
    "/tmp/llorch-evil",
    "a/../../../evil",
    "-o/tmp/llorch-evil",
    "--output=evil",
    "evil\0.gguf",
    "evil\n.gguf",
    "%2e%2e%2fevil",
    "..%2f..%2fevil",
    "$(touch evil)",
    ".",
];

/// Whatever it is asked for, it has it, under a name that leads out.
fn hostile_hub(name: &'static str) -> Server {
    Server::start(move |seen, _| {
        if seen.path.starts_with("/api/") {
            let path = format!("{name}/x-Q4_K_M.gguf");
            let list = serde_json::json!([{ "type": "file", "path": path, "oid": "x", "size": 1 }]);
            return Reply::body(serde_json::to_vec(&list).unwrap());
        }
        if seen.method == "HEAD" {
            let etag = format!("\"{}\"", sha256(model()));
            let reply = Reply::status(200).with("X-Repo-Commit", COMMIT).with("X-Linked-Etag", &etag);
            return reply.with("X-Linked-Size", &model().len().to_string());
        }
        Reply::body(model())
            .with("Content-Disposition", &format!("attachment; filename=\"{}\"", name.escape_default()))
    })
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// MPROV-015
#[test]
fn no_field_of_a_reference_and_no_name_of_a_hub_creates_a_file_outside_the_cache() {
    let mut staged = 0;
    for way in WAYS_OUT {
        let hub = hostile_hub(way);
        let outer = tempfile::tempdir().unwrap();
        let cache = outer.path().join("a/b/cache");
        std::fs::create_dir_all(&cache).unwrap();
        let mut machine = Machine::new(&hub);
        machine.dir = tempfile::Builder::new().prefix("cache").tempdir_in(&cache).unwrap();
        let references = [
            format!("hf:{way}/repo:Q4_K_M"),
            format!("hf:org/{way}:Q4_K_M"),
            format!("hf:org/repo:{way}"),
            format!("hf:org/repo/{way}"),
            format!("hf:org/repo:Q4_K_M@{way}"),
            format!("builtin:{way}"),
            "hf:org/repo:Q4_K_M".to_owned(),
        ];
        let parsed = references.iter().filter_map(|text| text.parse::<ModelRef>().ok());
        let addressed = ModelRef::Https(format!("{}/{way}", hub.base));
        for reference in parsed.chain([addressed]) {
            if let Ok(record) = machine.stage_with(&reference, None, &|_| ()) {
                assert!(
                    record.path.starts_with(machine.dir.path()),
                    "{reference}: {}",
                    record.path.display()
                );
                staged += 1;
            }
        }
        assert_eq!(entries(outer.path()), ["a"], "{way:?}");
        assert_eq!(entries(&outer.path().join("a")), ["b"], "{way:?}");
        assert_eq!(entries(&outer.path().join("a/b")), ["cache"], "{way:?}");
        assert_eq!(entries(&cache).len(), 1, "{way:?}");
        assert!(!Path::new("/tmp/llorch-evil").exists() && !Path::new("evil").exists(), "{way:?}");
    }
    assert!(staged > 3, "some are staged, inside: {staged}");
}
