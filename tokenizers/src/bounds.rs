//! What a tokenizer.json may cost: without bounds some hundred bytes of it can ask for gigabytes. Real files stay far
//! below each of them; src/model/tokenizer.hpp tells them.

use serde_json::Value;
use tokenizers::{ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, Tokenizer};

use crate::Failure;

const MOST_FILE_BYTES: usize = 64 << 20;
const MOST_TEXT_BYTES: usize = 64 << 20;
const MOST_PARTS: usize = 256;
const MOST_PATTERNS: usize = 64;
const MOST_GROWTH: f64 = 16.0; // of a text, by the normalizer
const ALWAYS_ALLOWED: f64 = 65536.0; // bytes, however small the text
const MOST_SPLIT_GROWTH: f64 = 64.0; // by the pre-tokenizers
const MOST_DECODED_GROWTH: f64 = 64.0; // of tokens, by the decoder
const MOST_ADDED_BYTES: f64 = (64 << 20) as f64; // of all added tokens, normalized
const MOST_WORD_CHARS: usize = 512; // WordPiece takes the cube of it
const MOST_NAME_BYTES: usize = 256; // of strings that become part of many tokens
const MOST_PIECES: usize = 64; // of a template
const MOST_TEMPLATE_IDS: usize = 1024;
const MOST_TEMPLATE_BYTES: usize = 65536;
const MOST_COPIES: usize = 4; // of the text, by templates
const CHUNK_BYTES: usize = 4096; // that a normalizer is tried on at once, and
const MOST_CHUNK_BYTES: f64 = (16 << 20) as f64; // what may come of them

fn too_much(what: String) -> Failure {
    Failure::new(format!("{what}: too much for a tokenizer"))
}

fn limit(count: usize, most: usize, what: &str) -> Result<(), Failure> {
    if count > most {
        return Err(too_much(format!("{count} {what}, at most {most} are taken")));
    }
    Ok(())
}

fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn items(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

/// Objects and patterns in a part of the file, before any of them is built.
fn count(value: &Value, parts: &mut usize, patterns: &mut usize) {
    match value {
        Value::Object(members) => {
            *parts += 1;
            *patterns += usize::from(members.contains_key("pattern"));
            members.values().for_each(|v| count(v, parts, patterns));
        }
        Value::Array(list) => list.iter().for_each(|v| count(v, parts, patterns)),
        _ => {}
    }
}

pub fn check_file(json: &[u8]) -> Result<(), Failure> {
    limit(json.len(), MOST_FILE_BYTES, "bytes")
}

/// `parts` are what the file asks for by pattern or list: normalizer, pre_tokenizer, post_processor, decoder.
pub fn check_parts(parts: &[&Option<Value>]) -> Result<(), Failure> {
    let (mut objects, mut patterns) = (0, 0);
    for part in parts.iter().filter_map(|p| p.as_ref()) {
        count(part, &mut objects, &mut patterns);
    }
    // A template's pieces are objects in objects.
    limit(objects, 8 * MOST_PARTS, "parts")?;
    limit(patterns, MOST_PATTERNS, "patterns")
}

/// The longest text that a charsmap of SentencePiece puts in a character's place: behind the size of its trie and the
/// trie come the texts, each with a zero at its end.
fn longest_replacement(charsmap: &str) -> usize {
    let mut bytes = Vec::with_capacity(charsmap.len());
    let (mut bits, mut count) = (0u32, 0);
    for c in charsmap.bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits & 0xff) << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    let trie = bytes
        .first_chunk::<4>()
        .map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let texts = bytes.get(4..).and_then(|rest| rest.get(trie..)).unwrap_or(&bytes);
    texts.split(|&b| b == 0).map(<[u8]>::len).max().unwrap_or(0)
}

/// How many times as long a step can make a text, as its JSON tells it.
fn growth(step: &Value) -> f64 {
    if let Some(prepend) = text_of(step, "prepend") {
        return 1.0 + prepend.len() as f64;
    }
    if let Some(charsmap) = text_of(step, "precompiled_charsmap") {
        return longest_replacement(charsmap).max(1) as f64;
    }
    if let (Some(pattern), Some(content)) = (step.get("pattern"), text_of(step, "content")) {
        let content = content.len() as f64;
        return match text_of(pattern, "String") {
            Some(found) if !found.is_empty() => (content / found.len() as f64).max(1.0),
            _ => 1.0 + content, // may match nothing, at each place
        };
    }
    match text_of(step, "type") {
        Some("Strip" | "StripAccents" | "Nmt") => 1.0,
        Some("Lowercase") => 2.0,
        Some("NFC" | "NFD" | "ByteLevel") => 3.0,
        Some("BertNormalizer") => 6.0,
        _ => 12.0, // NFKC, NFKD: U+FDFA's three bytes become 33
    }
}

fn steps<'a>(normalizer: &'a NormalizerWrapper, out: &mut Vec<&'a NormalizerWrapper>) {
    match normalizer {
        NormalizerWrapper::Sequence(list) => list.as_ref().iter().for_each(|n| steps(n, out)),
        step => out.push(step),
    }
}

/// What is known of a tokenizer's normalizer: the growth of each of its steps.
#[derive(Default)]
pub struct NormalizerBounds {
    growths: Vec<f64>,
}

impl NormalizerBounds {
    pub fn of(normalizer: Option<&NormalizerWrapper>) -> Result<Self, Failure> {
        let mut list = vec![];
        if let Some(normalizer) = normalizer {
            steps(normalizer, &mut list);
        }
        limit(list.len(), MOST_PARTS, "steps of the normalizer")?;
        let growths = list
            .iter()
            .map(|step| Ok(growth(&serde_json::to_value(step).map_err(Failure::new)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(NormalizerBounds { growths })
    }

    fn largest(&self) -> f64 {
        self.growths.iter().product()
    }

    /// Those that the normalizer changes are normalized when the file is read.
    pub fn check_added_tokens(&self, tokens: &Option<Value>) -> Result<(), Failure> {
        let bytes: usize = items(tokens.as_ref())
            .filter(|token| token.get("normalized") != Some(&Value::Bool(false)))
            .filter_map(|token| text_of(token, "content"))
            .map(str::len)
            .sum();
        if bytes as f64 * self.largest() > MOST_ADDED_BYTES {
            return Err(too_much(format!(
                "{bytes} bytes of added tokens, which the normalizer may make {:.3e} times as long",
                self.largest()
            )));
        }
        Ok(())
    }

    /// Refuses a text that is too long, or that the normalizer would make too long.
    pub fn check_text(&self, normalizer: Option<&NormalizerWrapper>, text: &str) -> Result<(), Failure> {
        limit(text.len(), MOST_TEXT_BYTES, "bytes of text")?;
        let size = text.len() as f64;
        let allowed = (MOST_GROWTH * size).max(ALWAYS_ALLOWED);
        let Some(normalizer) = normalizer.filter(|_| size * self.largest() > allowed) else {
            return Ok(());
        };
        // What could be too long is tried, piece by piece, so that no step makes much of it.
        let mut list = vec![];
        steps(normalizer, &mut list);
        let grows = || {
            Failure::new(format!(
                "the normalizer makes {size} bytes of text more than {allowed:.0}"
            ))
        };
        let (mut rest, mut total) = (text, 0.0);
        while !rest.is_empty() {
            let mut end = rest.len().min(CHUNK_BYTES);
            while !rest.is_char_boundary(end) {
                end += 1;
            }
            let mut chunk = NormalizedString::from(&rest[..end]);
            for (step, growth) in list.iter().zip(&self.growths) {
                if chunk.get().len() as f64 * growth > MOST_CHUNK_BYTES {
                    return Err(grows());
                }
                match step {
                    // Added tokens cut the text anywhere, and each piece gets it.
                    NormalizerWrapper::Prepend(p) => {
                        let all: String = chunk
                            .get()
                            .chars()
                            .flat_map(|c| [p.prepend.clone(), c.to_string()])
                            .collect();
                        chunk = NormalizedString::from(all);
                    }
                    step => step.normalize(&mut chunk).map_err(Failure::new)?,
                }
            }
            total += chunk.get().len() as f64;
            if total > allowed {
                return Err(grows());
            }
            rest = &rest[end..];
        }
        Ok(())
    }
}

fn check_pre_tokenizers(part: &Value) -> Result<f64, Failure> {
    let growth = match text_of(part, "type") {
        Some("Sequence") => items(part.get("pretokenizers"))
            .map(check_pre_tokenizers)
            .product::<Result<f64, _>>()?,
        Some("ByteLevel") => 3.0,
        Some("Metaspace") => 5.0,
        _ => 1.0,
    };
    if growth > MOST_SPLIT_GROWTH {
        return Err(too_much(format!(
            "pre-tokenizers that may make a text {MOST_SPLIT_GROWTH} times as long and more"
        )));
    }
    Ok(growth)
}

/// Returns how many copies of the text come of it.
fn check_post_processor(part: &Value, ids: &mut usize, bytes: &mut usize) -> Result<usize, Failure> {
    let mut copies = 1usize;
    for processor in items(part.get("processors")) {
        copies *= check_post_processor(processor, ids, bytes)?;
        limit(copies, MOST_COPIES, "copies of a text in templates")?;
    }
    for name in ["single", "pair"] {
        let (mut of_text, mut pieces) = ([0, 0], 0);
        for piece in items(part.get(name)) {
            pieces += 1;
            if let Some(sequence) = piece.get("Sequence") {
                of_text[usize::from(text_of(sequence, "id") == Some("B"))] += 1;
            } else if let Some(id) = piece.get("SpecialToken").and_then(|token| text_of(token, "id")) {
                let token = part.get("special_tokens").and_then(|tokens| tokens.get(id));
                *ids += items(token.and_then(|t| t.get("ids"))).count();
                *bytes += items(token.and_then(|t| t.get("tokens")))
                    .filter_map(Value::as_str)
                    .map(str::len)
                    .sum::<usize>();
            }
        }
        limit(pieces, MOST_PIECES, "pieces of a template")?;
        copies = copies.max(of_text[0]).max(of_text[1]);
    }
    limit(copies, MOST_COPIES, "copies of a text in templates")?;
    limit(*ids, MOST_TEMPLATE_IDS, "ids in templates")?;
    limit(*bytes, MOST_TEMPLATE_BYTES, "bytes of tokens in templates")?;
    Ok(copies)
}

/// How many times as long the decoder can make tokens, a byte more for each counted.
fn decoder_growth(part: &Value) -> f64 {
    let is_empty = |key| text_of(part, key).is_some_and(str::is_empty);
    match text_of(part, "type") {
        Some("Sequence") => items(part.get("decoders")).map(decoder_growth).product(),
        Some("Replace") => growth(part),
        Some("ByteLevel") => 3.0, // U+FFFD for a byte
        Some("BPEDecoder") if is_empty("suffix") => 3.0,
        Some("CTC") if is_empty("word_delimiter_token") => 3.0,
        _ => 1.0,
    }
}

fn check_decoder(part: &Value) -> Result<(), Failure> {
    let growth = decoder_growth(part);
    if growth > MOST_DECODED_GROWTH {
        return Err(too_much(format!(
            "a decoder that may make a text more than {MOST_DECODED_GROWTH} times as long"
        )));
    }
    Ok(())
}

/// `bytes` are those of the tokens to decode, and one for each.
pub fn check_decoded(bytes: usize) -> Result<(), Failure> {
    limit(bytes, MOST_TEXT_BYTES, "bytes of tokens")
}

fn check_name(name: &str, what: &str) -> Result<(), Failure> {
    limit(name.len(), MOST_NAME_BYTES, &format!("bytes of {what}"))
}

fn check_model(model: &ModelWrapper) -> Result<(), Failure> {
    let names = match model {
        ModelWrapper::WordPiece(m) => {
            limit(
                m.max_input_chars_per_word,
                MOST_WORD_CHARS,
                "characters (max_input_chars_per_word)",
            )?;
            [Some(&m.unk_token), Some(&m.continuing_subword_prefix), None]
        }
        ModelWrapper::BPE(m) => [
            m.unk_token.as_ref(),
            m.continuing_subword_prefix.as_ref(),
            m.end_of_word_suffix.as_ref(),
        ],
        ModelWrapper::WordLevel(m) => [Some(&m.unk_token), None, None],
        ModelWrapper::Unigram(_) => [None; 3],
    };
    for (name, what) in names
        .iter()
        .zip(["unk_token", "continuing_subword_prefix", "end_of_word_suffix"])
    {
        check_name(name.map_or("", |n| n.as_str()), what)?;
    }
    Ok(())
}

/// The built parts, which say what the library took the file for.
pub fn check_built(tokenizer: &Tokenizer) -> Result<(), Failure> {
    let pre_tokenizer = serde_json::to_value(tokenizer.get_pre_tokenizer()).map_err(Failure::new)?;
    check_pre_tokenizers(&pre_tokenizer)?;
    let post_processor = serde_json::to_value(tokenizer.get_post_processor()).map_err(Failure::new)?;
    check_post_processor(&post_processor, &mut 0, &mut 0)?;
    check_decoder(&serde_json::to_value(tokenizer.get_decoder()).map_err(Failure::new)?)?;
    check_model(tokenizer.get_model())
}
