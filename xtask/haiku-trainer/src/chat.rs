//! How a conversation becomes tokens: the template in the model file, and the same in Rust.

use crate::tokenizer::{BOS, EOS, HAIKU, Tokenizer, USER};

/// The chat template that `llama-server` runs.
///
/// The model answers one request at a time, so only the last user message is shown to it. A
/// system message is read and dropped: a template that never reads it makes the server glue it
/// onto the user's text. An assistant message at the end is the beginning of the answer.
pub const TEMPLATE: &str = "\
{%- set ns = namespace(user='', system='', begun='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set ns.system = message['content'] | trim -%}
{%- elif message['role'] == 'user' -%}
{%- set ns.user = message['content'] | trim -%}
{%- set ns.begun = '' -%}
{%- elif message['role'] == 'assistant' -%}
{%- set ns.begun = message['content'] -%}
{%- endif -%}
{%- endfor -%}
{{- '<|user|>' + ns.user + '<|haiku|>' + ns.begun -}}";

/// The tokens before the answer.
#[must_use]
pub fn prompt_ids(tokenizer: &Tokenizer, prompt: &str) -> Vec<u32> {
    let mut ids = vec![BOS, USER];
    ids.extend(tokenizer.encode(prompt.trim()));
    ids.push(HAIKU);
    ids
}

/// The tokens of a whole exchange, and how many of them are the prompt.
#[must_use]
pub fn exchange_ids(tokenizer: &Tokenizer, prompt: &str, answer: &str) -> (Vec<u32>, usize) {
    let mut ids = prompt_ids(tokenizer, prompt);
    let prompt_len = ids.len();
    ids.extend(tokenizer.encode(answer));
    ids.push(EOS);
    (ids, prompt_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::SPECIAL;

    #[test]
    fn the_template_and_the_code_use_the_same_markers() {
        for id in [USER, HAIKU] {
            assert!(TEMPLATE.contains(SPECIAL[id as usize]));
        }
        assert!(!TEMPLATE.contains(SPECIAL[BOS as usize]), "the server adds it");
        let tokenizer = Tokenizer::learn("", 0);
        let (ids, prompt_len) = exchange_ids(&tokenizer, " hi ", "a\nb");
        let text: Vec<u32> = tokenizer.encode("hi");
        assert_eq!(ids[..prompt_len], [&[BOS, USER][..], &text, &[HAIKU]].concat());
        assert_eq!(ids[prompt_len..], [tokenizer.encode("a\nb"), vec![EOS]].concat());
    }
}
