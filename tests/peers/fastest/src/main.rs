//! Times the newest Rust `tokenizers` in memory: `cargo run --release -- tokenizer.json text.txt`.
//! Prints one line of JSON: bytes, tokens and the seconds of each turn.
use rayon::prelude::*;
use std::time::Instant;
use tokenizers::pipeline::EncodeOptions;

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [tokenizer, text] = &paths[..] else {
        panic!("wanted: tokenizer.json text.txt");
    };
    let json = std::fs::read_to_string(tokenizer).expect("read the tokenizer");
    let json = tokenizers::canonicalize_str(&json).expect("bring the tokenizer up to date");
    let tokenizer = tokenizers::from_json(&json).expect("load the tokenizer");
    let text = std::fs::read_to_string(text).expect("read the text");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let options = EncodeOptions {
        add_special_tokens: false,
        encode_special_tokens: true,
        ..EncodeOptions::default()
    };
    let mut tokens = 0;
    let seconds: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let count = |lines: &[&str]| {
                let mut ids = Vec::new();
                for line in lines {
                    tokenizer.encode_into(line, &options, &mut ids).expect("tokenize");
                }
                ids.len()
            };
            tokens = lines.par_chunks(1024).map(count).sum();
            start.elapsed().as_secs_f64()
        })
        .collect();
    println!("{{\"bytes\": {bytes}, \"tokens\": {tokens}, \"seconds\": {seconds:?}}}");
}
