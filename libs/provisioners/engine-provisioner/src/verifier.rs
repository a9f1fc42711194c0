//! `models.verify_command`: a program of the machine's owner that must agree before a model is used.

use std::path::Path;
use std::time::Duration;

use provisioners_model_provisioner::{Cancel, VerifyFile};

use crate::helper::{Helper, Tool};
use crate::host::Host;

/// Checking the signature of a large file reads all of it.
const LIMIT: Duration = Duration::from_secs(3600);

/// The configured program.
pub(crate) struct OwnersProgram {
    host: Host,
    words: Vec<String>,
}

impl OwnersProgram {
    /// None: nobody is to be asked.
    pub(crate) fn new(host: &Host, words: &[String]) -> Option<Self> {
        (!words.is_empty()).then(|| Self { host: host.clone(), words: words.to_vec() })
    }
}

impl VerifyFile for OwnersProgram {
    fn identity(&self) -> String {
        self.words.join("\0")
    }

    fn verify(&self, file: &Path, cancel: &Cancel) -> Result<(), String> {
        let Some((program, arguments)) = self.words.split_first() else { return Ok(()) };
        let helper = Helper::new(&self.host, Tool::ModelVerifier, program, cancel).limit(LIMIT);
        let done = helper.args(arguments).args([file]).run(&mut |_| ());
        done.map(drop).map_err(|error| format!("`models.verify_command` does not agree: {error}"))
    }
}
