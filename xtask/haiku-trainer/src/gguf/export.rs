//! Names the trained numbers as the `llama` architecture wants them.

use super::{Gguf, Tensor, Value};
use crate::chat::TEMPLATE;
use crate::tokenizer::{BOS, EOS};
use crate::train::Trained;

/// What the file says about its context; the card says what training covered.
const CONTEXT_LENGTH: u32 = 2048;
const DESCRIPTION: &str = "Writes three short lines of English that contain the words it is asked for. \
    Trained from scratch on a generated corpus; it can do nothing else.";
/// The format's code for "mostly f16".
const FILE_TYPE_F16: u32 = 1;
/// The engine's current layout of quantised tensors, of which this file has none.
const QUANTIZATION_VERSION: u32 = 2;

/// The bytes of the model file.
#[must_use]
pub fn export(model: &Trained) -> Vec<u8> {
    let mut file = Gguf::default();
    describe(model, &mut file);
    describe_tokenizer(model, &mut file);
    add_tensors(model, &mut file);
    file.to_bytes()
}

fn describe(model: &Trained, file: &mut Gguf<'_>) {
    let config = &model.config;
    for (key, text) in [
        ("general.architecture", "llama"),
        ("general.type", "model"),
        ("general.name", "haiku"),
        ("general.license", "MIT OR Apache-2.0"),
        ("general.description", DESCRIPTION),
    ] {
        file.set(key, Value::Text(text.to_owned()));
    }
    file.set("general.file_type", Value::U32(FILE_TYPE_F16));
    file.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    for (key, number) in [
        ("llama.vocab_size", config.vocab),
        ("llama.block_count", config.layers),
        ("llama.embedding_length", config.width),
        ("llama.feed_forward_length", config.ffn),
        ("llama.attention.head_count", config.heads),
        ("llama.attention.head_count_kv", config.heads),
        ("llama.rope.dimension_count", config.head_width()),
    ] {
        file.set(key, Value::U32(number as u32));
    }
    file.set("llama.context_length", Value::U32(CONTEXT_LENGTH));
    file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(config.norm_eps));
    file.set("llama.rope.freq_base", Value::F32(config.rope_theta));
}

fn describe_tokenizer(model: &Trained, file: &mut Gguf<'_>) {
    let tokenizer = &model.tokenizer;
    let ids = 0..tokenizer.len() as u32;
    let text = |t: &str| Value::Text(t.to_owned());
    file.set("tokenizer.ggml.model", text("llama"));
    file.set("tokenizer.ggml.pre", text("default"));
    file.set("tokenizer.ggml.tokens", Value::Texts(tokenizer.pieces().to_vec()));
    file.set("tokenizer.ggml.scores", Value::F32s(ids.clone().map(|id| tokenizer.score(id)).collect()));
    let types = ids.map(|id| tokenizer.token_type(id) as i32).collect();
    file.set("tokenizer.ggml.token_type", Value::I32s(types));
    file.set("tokenizer.ggml.bos_token_id", Value::U32(BOS));
    file.set("tokenizer.ggml.eos_token_id", Value::U32(EOS));
    file.set("tokenizer.ggml.unknown_token_id", Value::U32(0));
    file.set("tokenizer.ggml.padding_token_id", Value::U32(EOS));
    file.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    file.set("tokenizer.ggml.add_eos_token", Value::Bool(false));
    // A word must have the same pieces at the start of a line as after a space.
    file.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    file.set("tokenizer.chat_template", text(TEMPLATE));
}

fn add_tensors<'a>(model: &'a Trained, file: &mut Gguf<'a>) {
    let (d, f) = (model.config.width, model.config.ffn);
    let params = &model.params;
    let mut add = |name: String, shape: Vec<usize>, data: &'a [f32]| file.add(Tensor { name, shape, data });
    let layout = &model.layout;
    // There is no output.weight: the engine then uses the token table for it too.
    add("token_embd.weight".to_owned(), vec![d, model.config.vocab], &params[layout.embedding.clone()]);
    for (i, layer) in layout.layers.iter().enumerate() {
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        let qkv = &params[layer.qkv.clone()];
        let gate_up = &params[layer.gate_up.clone()];
        add(name("attn_norm"), vec![d], &params[layer.attn_norm.clone()]);
        add(name("attn_q"), vec![d, d], &qkv[..d * d]);
        add(name("attn_k"), vec![d, d], &qkv[d * d..2 * d * d]);
        add(name("attn_v"), vec![d, d], &qkv[2 * d * d..]);
        add(name("attn_output"), vec![d, d], &params[layer.attn_out.clone()]);
        add(name("ffn_norm"), vec![d], &params[layer.ffn_norm.clone()]);
        add(name("ffn_gate"), vec![d, f], &gate_up[..f * d]);
        add(name("ffn_up"), vec![d, f], &gate_up[f * d..]);
        add(name("ffn_down"), vec![f, d], &params[layer.down.clone()]);
    }
    add("output_norm.weight".to_owned(), vec![d], &params[layout.final_norm.clone()]);
}
