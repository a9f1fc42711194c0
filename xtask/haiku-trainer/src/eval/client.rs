//! The least HTTP that asks a `llama-server` on this machine for a chat completion.
//!
//! One request per connection, plain HTTP/1.1. It is a measuring tool: no retries, no streaming.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Three lines need about forty tokens; a model that runs on is cut off here and fails.
const MAX_TOKENS: u32 = 96;
const PATIENCE: Duration = Duration::from_secs(30);

/// The address of a running server.
#[derive(Clone, Debug)]
pub struct Client {
    authority: String,
}

impl Client {
    /// Takes `http://host:port`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn new(url: &str) -> Result<Self> {
        let authority =
            url.trim_end_matches('/').strip_prefix("http://").context("the URL must start with http://")?;
        if authority.is_empty() || authority.contains('/') {
            bail!("the URL must be http://host:port");
        }
        Ok(Self { authority: authority.to_owned() })
    }

    /// What the model says to `prompt` at temperature 0.
    ///
    /// # Errors
    /// If the server cannot be reached or answers with anything but a completion.
    pub fn chat(&self, prompt: &str) -> Result<String> {
        let body = json!({
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        });
        let answer = self.post("/v1/chat/completions", &body.to_string())?;
        let answer: Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
        let text = answer["choices"][0]["message"]["content"].as_str();
        Ok(text.with_context(|| format!("no message in {answer}"))?.to_owned())
    }

    fn post(&self, path: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.authority)
            .with_context(|| format!("connecting to {}", self.authority))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.authority,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading the answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
        let status = head.lines().next().unwrap_or_default();
        if !status.contains(" 200 ") {
            bail!("{status}: {body}");
        }
        Ok(body.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_completion_is_asked_for_and_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            let count = |seen: &[u8], c: u8| seen.iter().filter(|b| **b == c).count();
            while !seen.ends_with(b"}") || count(&seen, b'{') != count(&seen, b'}') {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            let body = r#"{"choices":[{"message":{"content":"a\nb\nc"}}]}"#;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            String::from_utf8(seen).unwrap()
        });
        assert_eq!(client.chat("write \"moon\"").unwrap(), "a\nb\nc");
        let seen = server.join().unwrap();
        assert!(seen.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
        assert!(seen.contains(r#"write \"moon\""#) && seen.contains("\"temperature\":0"));
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        assert!(Client::new("https://127.0.0.1:1").is_err());
        assert!(Client::new("http://127.0.0.1:1/v1").is_err());
    }
}
