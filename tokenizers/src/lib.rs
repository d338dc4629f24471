//! Eight C functions over Hugging Face's tokenizers. Text goes in as UTF-8 and every offset comes out in bytes of it.
//! No panic leaves this crate: each call answers with a status, and `manyheads_tokenizer_error` tells the rest.
//! C sees them through include/manyheads_tokenizers.h, which cbindgen writes (scripts/tokenizers-header).

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::null;
use std::sync::Once;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{EncodeInput, NormalizerWrapper, Tokenizer};

mod bounds;

/// What a call answers.
pub const MANYHEADS_OK: c_int = 0;
pub const MANYHEADS_NOT_UTF8: c_int = 1;
pub const MANYHEADS_FAILED: c_int = 2;
/// No token has the id.
pub const MANYHEADS_NO_TOKEN: c_int = 3;

struct Failure(c_int, String);

impl Failure {
    fn new(message: impl ToString) -> Self {
        Failure(MANYHEADS_FAILED, message.to_string())
    }
}

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One entry a token. The arrays belong to `owner` and live until `manyheads_encoding_free(owner)`.
#[repr(C)]
pub struct View {
    size: usize,
    ids: *const i64,
    type_ids: *const i64,
    offsets: *const [i64; 2],
    /// Counted through both texts; -1 for a token that stands in no text.
    words: *const i64,
    /// The text that a token stands in, 0 or 1; -1 for none.
    sequences: *const i32,
    /// 1 for a token that the tokenizer added.
    special: *const u8,
    /// The tokens' strings, one after the other, and where each ends.
    tokens: *const c_char,
    token_ends: *const usize,
    owner: *mut Arrays,
}

#[derive(Default)]
pub struct Arrays {
    ids: Vec<i64>,
    type_ids: Vec<i64>,
    offsets: Vec<[i64; 2]>,
    words: Vec<i64>,
    sequences: Vec<i32>,
    special: Vec<u8>,
    tokens: Vec<u8>,
    token_ends: Vec<usize>,
}

impl Arrays {
    fn from(encoding: &tokenizers::Encoding) -> Self {
        let mut arrays = Arrays::default();
        let sequences = encoding.get_sequence_ids();
        let word_ids = encoding.get_word_ids();
        let words_of_first = (0..encoding.len())
            .filter(|&i| sequences[i] == Some(0))
            .filter_map(|i| word_ids[i])
            .max()
            .map_or(0, |last| i64::from(last) + 1);
        for i in 0..encoding.len() {
            let added = encoding.get_special_tokens_mask()[i] != 0;
            let sequence = if added { None } else { sequences[i] };
            let word = match (sequence, word_ids[i]) {
                (Some(0), Some(word)) => i64::from(word),
                (Some(_), Some(word)) => words_of_first + i64::from(word),
                _ => -1,
            };
            let (begin, end) = encoding.get_offsets()[i];
            arrays.ids.push(i64::from(encoding.get_ids()[i]));
            arrays.type_ids.push(i64::from(encoding.get_type_ids()[i]));
            arrays.offsets.push([begin as i64, end as i64]);
            arrays.words.push(word);
            arrays.sequences.push(sequence.map_or(-1, |s| s as i32));
            arrays.special.push(u8::from(added));
            arrays.tokens.extend_from_slice(encoding.get_tokens()[i].as_bytes());
            arrays.token_ends.push(arrays.tokens.len());
        }
        arrays
    }
}

/// UTF-8, not terminated. It belongs to `owner` and lives until `manyheads_text_free(owner)`.
#[repr(C)]
pub struct TextView {
    size: usize,
    data: *const c_char,
    /// Of a single token: 1 for a special one, which decoding may skip.
    special: u8,
    owner: *mut Text,
}

pub struct Text(String);

impl TextView {
    fn of(text: String, special: bool) -> Self {
        let text = Box::new(Text(text));
        TextView {
            size: text.0.len(),
            data: text.0.as_ptr().cast(),
            special: u8::from(special),
            owner: Box::into_raw(text),
        }
    }
}

/// The library takes a part of an unknown type for any known one whose fields fit, and would tokenize otherwise than
/// the file says. So each type that the file names must be the one that was built.
fn check_types(file: &Value, built: &Value) -> Result<(), Failure> {
    match (file, built) {
        (Value::Object(file), Value::Object(built)) => {
            if let Some(named) = file.get("type") {
                if built.get("type") != Some(named) {
                    return Err(Failure::new(format!("unknown type {named}")));
                }
            }
            file.iter()
                .filter_map(|(key, value)| Some((value, built.get(key)?)))
                .try_for_each(|(f, b)| check_types(f, b))
        }
        (Value::Array(file), Value::Array(built)) => file.iter().zip(built).try_for_each(|(f, b)| check_types(f, b)),
        _ => Ok(()),
    }
}

/// The parts of a tokenizer.json whose kind the library guesses where it does not know the type.
#[derive(Deserialize)]
struct Parts {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    added_tokens: Option<Value>,
}

fn check_parts(file: Parts, tokenizer: &Tokenizer) -> Result<(), Failure> {
    let parts = [
        (
            "normalizer",
            file.normalizer,
            serde_json::to_value(tokenizer.get_normalizer()),
        ),
        (
            "pre_tokenizer",
            file.pre_tokenizer,
            serde_json::to_value(tokenizer.get_pre_tokenizer()),
        ),
        (
            "post_processor",
            file.post_processor,
            serde_json::to_value(tokenizer.get_post_processor()),
        ),
        ("decoder", file.decoder, serde_json::to_value(tokenizer.get_decoder())),
    ];
    for (name, file, built) in parts {
        check_types(&file.unwrap_or_default(), &built.map_err(Failure::new)?)
            .map_err(|Failure(status, text)| Failure(status, format!("{name}: {text}")))?;
    }
    Ok(())
}

/// A tokenizer and what is known of its cost.
pub struct Handle {
    tokenizer: Tokenizer,
    bounds: bounds::NormalizerBounds,
}

fn load(json: &[u8]) -> Result<Handle, Failure> {
    bounds::check_file(json)?;
    let parts: Parts = serde_json::from_slice(json).map_err(Failure::new)?;
    bounds::check_parts(&[
        &parts.normalizer,
        &parts.pre_tokenizer,
        &parts.post_processor,
        &parts.decoder,
    ])?;
    // The library normalizes the added tokens as it reads the file.
    let normalizer = Option::<NormalizerWrapper>::deserialize(parts.normalizer.as_ref().unwrap_or(&Value::Null));
    let bounds = bounds::NormalizerBounds::of(normalizer.unwrap_or(None).as_ref())?;
    bounds.check_added_tokens(&parts.added_tokens)?;
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| {
        let text = error.to_string();
        Failure::new(text.replace("data did not match any variant of untagged enum ", "no kind fits for "))
    })?;
    bounds::check_built(&tokenizer)?;
    check_parts(parts, &tokenizer)?;
    // A model's sentence settings must not cut or lengthen the text: that is for the caller to decide.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(Failure::new)?;
    Ok(Handle { tokenizer, bounds })
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes).map_err(|e| {
        Failure(
            MANYHEADS_NOT_UTF8,
            format!("{what} is not UTF-8 at byte {}", e.valid_up_to()),
        )
    })
}

fn encode(handle: &Handle, text: &[u8], pair: Option<&[u8]>, add_special: bool) -> Result<Arrays, Failure> {
    let tokenizer = &handle.tokenizer;
    let check = |text| handle.bounds.check_text(tokenizer.get_normalizer(), text);
    let text = utf8(text, "the text")?;
    check(text)?;
    let input: EncodeInput = match pair {
        Some(pair) => {
            let pair = utf8(pair, "the second text")?;
            check(pair)?;
            (text, pair).into()
        }
        None => text.into(),
    };
    let encoding = tokenizer.encode(input, add_special).map_err(Failure::new)?;
    Ok(Arrays::from(&encoding))
}

fn token(handle: &Handle, id: i64) -> Result<(String, bool), Failure> {
    let text = u32::try_from(id)
        .ok()
        .and_then(|id| handle.tokenizer.id_to_token(id))
        .ok_or_else(|| Failure(MANYHEADS_NO_TOKEN, format!("no token has the id {id}")))?;
    let special = handle.tokenizer.get_added_vocabulary().is_special_token(&text);
    Ok((text, special))
}

fn decode(handle: &Handle, ids: &[i64], skip_special: bool) -> Result<String, Failure> {
    let mut total = 0;
    for &id in ids {
        total += token(handle, id)?.0.len() + 1;
        bounds::check_decoded(total)?;
    }
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    handle.tokenizer.decode(&ids, skip_special).map_err(Failure::new)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the tokenizer gave up: {}", text.unwrap_or_default())
}

/// Runs `work`, keeps what went wrong for `manyheads_tokenizer_error`, and gives the status.
fn guard(work: impl FnOnce() -> Result<(), Failure>) -> c_int {
    // The default hook would print to stderr what the caller gets as an error.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::new(panic_text(&*panic))));
    match result {
        Ok(()) => MANYHEADS_OK,
        Err(Failure(status, message)) => {
            LAST_ERROR.with(|last| *last.borrow_mut() = message);
            status
        }
    }
}

unsafe fn bytes<'a>(data: *const c_char, size: usize) -> &'a [u8] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data.cast(), size)
    }
}

/// Reads the text of a tokenizer.json. The tokenizer is safe to use from many threads.
///
/// # Safety
/// `json` points to `size` bytes; `out` can be written.
#[no_mangle]
pub unsafe extern "C" fn manyheads_tokenizer_load(json: *const c_char, size: usize, out: *mut *mut Handle) -> c_int {
    guard(|| {
        *out = Box::into_raw(Box::new(load(bytes(json, size))?));
        Ok(())
    })
}

/// # Safety
/// `tokenizer` came from `manyheads_tokenizer_load` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn manyheads_tokenizer_free(tokenizer: *mut Handle) {
    guard(|| {
        drop(Box::from_raw(tokenizer));
        Ok(())
    });
}

/// Encodes one text, or two when `pair` is not null.
///
/// # Safety
/// `tokenizer` is a live tokenizer; the texts have their sizes; `out` can be written.
#[no_mangle]
pub unsafe extern "C" fn manyheads_tokenizer_encode(
    tokenizer: *const Handle,
    text: *const c_char,
    text_size: usize,
    pair: *const c_char,
    pair_size: usize,
    add_special: c_int,
    out: *mut View,
) -> c_int {
    guard(|| {
        let pair = if pair == null() {
            None
        } else {
            Some(bytes(pair, pair_size))
        };
        let arrays = Box::new(encode(&*tokenizer, bytes(text, text_size), pair, add_special != 0)?);
        *out = View {
            size: arrays.ids.len(),
            ids: arrays.ids.as_ptr(),
            type_ids: arrays.type_ids.as_ptr(),
            offsets: arrays.offsets.as_ptr(),
            words: arrays.words.as_ptr(),
            sequences: arrays.sequences.as_ptr(),
            special: arrays.special.as_ptr(),
            tokens: arrays.tokens.as_ptr().cast(),
            token_ends: arrays.token_ends.as_ptr(),
            owner: Box::into_raw(arrays),
        };
        Ok(())
    })
}

/// # Safety
/// `owner` came with a `manyheads_encoding_view` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn manyheads_encoding_free(owner: *mut Arrays) {
    guard(|| {
        drop(Box::from_raw(owner));
        Ok(())
    });
}

/// The token of an id, as the vocabulary spells it.
///
/// # Safety
/// `tokenizer` is a live tokenizer; `out` can be written.
#[no_mangle]
pub unsafe extern "C" fn manyheads_tokenizer_token(tokenizer: *const Handle, id: i64, out: *mut TextView) -> c_int {
    guard(|| {
        let (text, special) = token(&*tokenizer, id)?;
        *out = TextView::of(text, special);
        Ok(())
    })
}

/// The text of tokens. Bytes of theirs that are no UTF-8 become U+FFFD.
///
/// # Safety
/// `tokenizer` is a live tokenizer; `ids` points to `size` of them; `out` can be written.
#[no_mangle]
pub unsafe extern "C" fn manyheads_tokenizer_decode(
    tokenizer: *const Handle,
    ids: *const i64,
    size: usize,
    skip_special: c_int,
    out: *mut TextView,
) -> c_int {
    guard(|| {
        let ids = if size == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(ids, size)
        };
        *out = TextView::of(decode(&*tokenizer, ids, skip_special != 0)?, false);
        Ok(())
    })
}

/// # Safety
/// `owner` came with a `manyheads_text_view` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn manyheads_text_free(owner: *mut Text) {
    guard(|| {
        drop(Box::from_raw(owner));
        Ok(())
    });
}

/// What the last call of this thread that failed says, until the next one fails. UTF-8, not terminated.
///
/// # Safety
/// `size` can be written.
#[no_mangle]
pub unsafe extern "C" fn manyheads_tokenizer_error(size: *mut usize) -> *const c_char {
    LAST_ERROR.with(|last| {
        let last = last.borrow();
        *size = last.len();
        last.as_ptr().cast()
    })
}
