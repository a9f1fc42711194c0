//! What this crate writes is a GGUF file for the product's own reader.

use gguf_random::Shape;
use provisioners_model_provisioner::gguf;

#[test]
fn the_header_says_what_the_shape_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let shape = Shape { layers: 3, width: 32, ctx: 512, vocab: 300, ..Shape::default() };
    shape.write(&path).unwrap();
    let header = gguf::read_header(&path).unwrap();
    assert_eq!(header.architecture, "llama");
    assert_eq!(header.name.as_deref(), Some("random"));
    assert_eq!(header.ctx_max, Some(512));
    assert_eq!(header.quantisation, "F32");
    assert!(header.chat_template);
    let per_layer = 2 * 32 + 4 * 32 * 32 + 3 * 32 * 64;
    assert_eq!(header.parameters, 3 * per_layer + 32 + 2 * 32 * 300);
}
