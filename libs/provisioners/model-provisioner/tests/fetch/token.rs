//! Which token the hub is asked with, where it goes, and what is said of one that cannot be used.

use std::path::Path;
use std::sync::Mutex;

use provisioners_model_provisioner::StageEvent;

use super::server::{Reply, Server};
use super::{Machine, REF, chain, good, hub};

/// What each request of a staging carried.
fn carried(server: &Server) -> Vec<Option<String>> {
    let mut all: Vec<_> =
        server.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    all.dedup();
    all
}

fn write(path: &Path, text: &[u8]) -> String {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// MPROV-028
#[test]
fn the_token_is_the_variables_and_else_the_one_that_somebody_logged_in_with() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| write(&home.path().join(name), text.as_bytes());
    let place = home.path().to_str().unwrap().to_owned();
    at(".cache/huggingface/token", "of-home\n");
    at("xdg/huggingface/token", "of-xdg");
    at("hf/token", "of-hf-home");
    let named = at("named", "of-path");
    let vars = [
        ("HF_TOKEN", "of-variable".to_owned()),
        ("HF_TOKEN_PATH", named),
        ("HF_HOME", format!("{place}/hf")),
        ("XDG_CACHE_HOME", format!("{place}/xdg")),
        ("HOME", place.clone()),
    ];
    let expected = ["of-variable", "of-path", "of-hf-home", "of-xdg", "of-home"];
    for (at, token) in expected.iter().enumerate() {
        let hub = hub(good);
        let set =
            vars[at..].iter().fold(Machine::new(&hub), |machine, (name, value)| machine.with(name, value));
        set.stage(REF).unwrap();
        assert_eq!(carried(&hub), [Some(format!("Bearer {token}"))]);
    }
    // An empty variable is none, and `~` is not always expanded by a shell.
    let hub = hub(good);
    let machine =
        Machine::new(&hub).with("HF_TOKEN", " ").with("HF_TOKEN_PATH", "~/named").with("HOME", &place);
    machine.stage(REF).unwrap();
    assert_eq!(carried(&hub), [Some("Bearer of-path".to_owned())]);
}

/// MPROV-010, MPROV-028
#[test]
fn a_token_from_a_file_goes_to_the_hub_and_not_where_it_redirects_to() {
    let home = tempfile::tempdir().unwrap();
    let file = write(&home.path().join("token"), b"hf_secret");
    let store = Server::start(good);
    let location = format!("{}/blob", store.base);
    let hub = hub(move |_, _| Reply::status(302).with("Location", &location));
    Machine::new(&hub).with("HF_TOKEN_PATH", &file).stage(REF).unwrap();
    assert_eq!(carried(&hub), [Some("Bearer hf_secret".to_owned())]);
    assert_eq!(carried(&store), [None]);
}

/// MPROV-028
#[test]
fn a_token_that_cannot_be_used_stops_no_model_and_whoever_is_refused_is_told() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::create_dir(at("directory")).unwrap();
    std::os::unix::fs::symlink(at("circle"), at("circle")).unwrap();
    fifo(&at("pipe"));
    let files = [
        (write(&at("two"), b"hf_secret\nsecond: line"), "it is no token"),
        (write(&at("binary"), &[0xff, 0xfe, 0, 1]), "it is no token"),
        (write(&at("long"), "s".repeat(5000).as_bytes()), "it is no token"),
        (at("directory").to_str().unwrap().to_owned(), "it is not a file"),
        (at("pipe").to_str().unwrap().to_owned(), "it is not a file"),
        // As one that may not be read, which does not exist for whoever runs the tests as root.
        (at("circle").to_str().unwrap().to_owned(), "it cannot be read ("),
        ("relative/token".to_owned(), "it is not an absolute path"),
    ];
    let variables =
        files.iter().map(|(path, problem)| ("HF_TOKEN_PATH", path.as_str(), path.as_str(), *problem));
    let variable = ("HF_TOKEN", "hf_secret\r\nX: y", "HF_TOKEN", "it is no token");
    for (name, value, place, problem) in variables.chain([variable]) {
        let expected = format!("without the token in {place}: {problem}");
        let open = hub(good);
        let notices = Mutex::new(String::new());
        let listen = |event| {
            if let StageEvent::Notice(text) = event {
                notices.lock().unwrap().push_str(&text);
            }
        };
        let machine = Machine::new(&open).with(name, value);
        machine.stage_with(&REF.parse().unwrap(), None, &listen).unwrap();
        assert_eq!(carried(&open), [None]);
        let notices = notices.into_inner().unwrap();
        assert!(notices.contains(&expected) && notices.contains("hf auth login"), "{notices}");
        let gated = Server::start(|_, _| Reply::status(401).with("X-Error-Code", "GatedRepo"));
        let refused = chain(&Machine::new(&gated).with(name, value).stage(REF).unwrap_err());
        assert!(refused.contains("is gated") && refused.contains(&expected), "{refused}");
        assert!(!notices.contains("secret") && !refused.contains("secret"), "{notices} {refused}");
    }
}

/// MPROV-010, MPROV-028
#[test]
fn whoever_is_refused_is_told_which_token_was_sent_or_where_one_is_looked_for() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().to_str().unwrap();
    let refused = |vars: &[(&'static str, &str)], code: &str, text: &str| {
        let reply = Reply::status(401).with("X-Error-Code", code).with("X-Error-Message", text);
        let hub = Server::start(move |_, _| reply.clone());
        let machine =
            vars.iter().fold(Machine::new(&hub), |machine, (name, value)| machine.with(name, value));
        machine.refusal(REF)
    };
    let text = refused(&[("HOME", place)], "GatedRepo", "");
    let file = format!("{place}/.cache/huggingface/token");
    assert!(text.contains(&format!("log in with `hf auth login`, which writes {file}")), "{text}");
    write(Path::new(&file), b"hf_secret");
    for (code, problem) in [("GatedRepo", ""), ("RepoNotFound", ""), ("", "Invalid credentials")] {
        let text = refused(&[("HOME", place)], code, problem);
        assert!(text.ends_with(&format!("; it was asked with the token in {file}")), "{text}");
        let text = refused(&[("HOME", place), ("HF_TOKEN", "hf_secret")], code, problem);
        assert!(text.ends_with("; it was asked with the token in HF_TOKEN"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

/// Opening it for reading waits for a writer that never comes.
fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}
