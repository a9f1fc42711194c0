//! What can go wrong on request. Each switch is a flag `--stub-NAME VALUE` or an environment
//! variable `STUB_NAME`; a test in the same process sets the field.

use std::time::Duration;

/// The switches; all off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// `load-ms`: time until the model is loaded; 503 meanwhile.
    pub load: Duration,
    /// `exit-at-start`: exit with this code instead of serving, after `load-ms`.
    pub exit_at_start: Option<i32>,
    /// `say`: a line for stderr before anything else.
    pub say: Option<String>,
    /// `spew-ms`: time between two lines of 4 KiB for stderr, for as long as it runs.
    pub spew: Duration,
    /// `no-bind`: never listen, and stay alive.
    pub no_bind: bool,
    /// `port-steal`: the port is bound by another process, which serves as if nothing were.
    pub port_steal: bool,
    /// `ignore-term`: SIGTERM has no effect.
    pub ignore_term: bool,
    /// `linger`: on SIGTERM the port is closed and every answer stops, but the process stays, as the
    /// real server does while a client holds a request open.
    pub linger: bool,
    /// `grandchild`: leave a sleeping child process behind.
    pub grandchild: bool,
    /// `token-ms`: time before each token.
    pub token: Duration,
    /// `prefill-ms`: time before the first token, after the response head.
    pub prefill: Duration,
    /// `mute`: accept generations, never send a token.
    pub mute: bool,
    /// `mute-after`: as `mute`, but only from the generation after this many.
    pub mute_after: Option<u64>,
    /// `slots-silent`: never answer `/slots`, as an engine that is stuck in a computation.
    pub slots_silent: bool,
    /// `hang-after`: send this many tokens, then nothing, for ever.
    pub hang_after: Option<u64>,
    /// `exit-after`: exit with code 1 after this many tokens of a generation.
    pub exit_after: Option<u64>,
    /// `crash-after`: abort (SIGABRT) after this many tokens of a generation.
    pub crash_after: Option<u64>,
    /// `drop-after`: break the connection after this many tokens of a generation.
    pub drop_after: Option<u64>,
    /// `error-after`: an `error` event instead of the next token, then the end of the stream.
    pub error_after: Option<u64>,
    /// `eos-after`: the model ends by itself after this many tokens of a generation.
    pub eos_after: Option<u64>,
    /// `stamp`: every token's text is `@` and the microseconds since the epoch at which it was sent, and
    /// `token-ms` is from one to the next and not rounded up to a clock's tick.
    pub stamp: bool,
    /// `char-tokens`: a word beyond ASCII takes three tokens, and only the last is named.
    pub char_tokens: bool,
    /// `split-bytes`: each byte of a stream is its own HTTP chunk.
    pub split_bytes: bool,
    /// `split-utf8`: frames are cut in the middle of their first character of several bytes.
    pub split_utf8: bool,
    /// `invalid-utf8-after`: a frame with a byte that is no UTF-8, after this many tokens.
    pub invalid_utf8_after: Option<u64>,
    /// `giant-line-after`: a frame of `giant-line-bytes`, after this many tokens.
    pub giant_line_after: Option<u64>,
    /// `giant-line-bytes`: 16 MiB unless said.
    pub giant_line_bytes: Option<u64>,
}

impl Faults {
    /// Sets the switch `name` (without prefix, with dashes). `false`: there is no such switch.
    /// The error is the rule the value breaks.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<bool, &'static str> {
        match name {
            "load-ms" => self.load = millis(value)?,
            "exit-at-start" => self.exit_at_start = Some(value.parse().map_err(|_| NUMBER)?),
            "say" => self.say = Some(value.to_owned()),
            "spew-ms" => self.spew = millis(value)?,
            "no-bind" => self.no_bind = on(value)?,
            "port-steal" => self.port_steal = on(value)?,
            "ignore-term" => self.ignore_term = on(value)?,
            "linger" => self.linger = on(value)?,
            "grandchild" => self.grandchild = on(value)?,
            "token-ms" => self.token = millis(value)?,
            "prefill-ms" => self.prefill = millis(value)?,
            "mute" => self.mute = on(value)?,
            "mute-after" => self.mute_after = Some(count(value)?),
            "slots-silent" => self.slots_silent = on(value)?,
            "hang-after" => self.hang_after = Some(count(value)?),
            "exit-after" => self.exit_after = Some(count(value)?),
            "crash-after" => self.crash_after = Some(count(value)?),
            "drop-after" => self.drop_after = Some(count(value)?),
            "error-after" => self.error_after = Some(count(value)?),
            "eos-after" => self.eos_after = Some(count(value)?),
            "stamp" => self.stamp = on(value)?,
            "char-tokens" => self.char_tokens = on(value)?,
            "split-bytes" => self.split_bytes = on(value)?,
            "split-utf8" => self.split_utf8 = on(value)?,
            "invalid-utf8-after" => self.invalid_utf8_after = Some(count(value)?),
            "giant-line-after" => self.giant_line_after = Some(count(value)?),
            "giant-line-bytes" => self.giant_line_bytes = Some(count(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

const NUMBER: &str = "must be a number";

fn count(value: &str) -> Result<u64, &'static str> {
    value.parse().map_err(|_| NUMBER)
}

fn millis(value: &str) -> Result<Duration, &'static str> {
    count(value).map(Duration::from_millis)
}

fn on(value: &str) -> Result<bool, &'static str> {
    match value {
        "1" | "true" | "on" => Ok(true),
        "0" | "false" | "off" => Ok(false),
        _ => Err("must be 1 or 0"),
    }
}
