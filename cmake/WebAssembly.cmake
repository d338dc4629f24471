# The session as one module of WebAssembly: the preset wasm. What a browser has not (threads, files, a table of
# characters) stands in src/*/wasm.
file(GLOB wasm_sources CONFIGURE_DEPENDS
     src/base/wasm/*.cpp src/kernels/wasm/*.cpp src/lens/wasm/*.cpp src/view/*.cpp src/attention/*.cpp src/layer/*.cpp src/kernels/units/*.cpp)
# A page reads no corpus, and Highway's vectors of doubles are not there for WebAssembly.
list(FILTER wasm_sources EXCLUDE REGEX "score_pass\\.cpp$")
# Nor does it train.
list(FILTER wasm_sources EXCLUDE REGEX "(backward|backward_plan|backward_run|layer/gradients)\\.cpp$")
# Nor does it multiply integers, or emulate tiles: these units stay empty.
set_source_files_properties(src/kernels/units/other_attention_amx_emulated.cpp src/kernels/units/other_attention_int8.cpp
                            PROPERTIES COMPILE_DEFINITIONS MANYHEADS_WITHOUT_OTHERS)
foreach(part base/fail base/format base/tensor base/utf8 base/version base/workspace io/json io/safetensors
        io/safetensors_header kernels/dispatch kernels/reference kernels/roofline kernels/tuning kernels/isa/processor model/bert
        model/bert_config model/bert_weights model/checkpoint_tensors model/decoder_cache model/encoder model/pass
        model/pooling lens/head_distances lens/head_map lens/head_rows lens/head_scorer lens/link_reader lens/links
        lens/patch lens/picture lens/pooled_patch lens/pyramid lens/read_heads lens/roles lens/rollout lens/row_sums
        lens/scan_json lens/scores_json lens/token_kinds
        lens/trace lens/trace_check lens/trace_file lens/trace_weights lens/without_special)
  list(APPEND wasm_sources src/${part}.cpp)
endforeach()

# What reads and writes text, and runs once for each question, is made small: a page carries it.
set(small ${wasm_sources})
list(FILTER small INCLUDE REGEX
     "src/(io|base)/|src/view/(dims|heads|layers|models|rows|scan|session|state)|(_config|_json|_weights|_tensors|_check|/check|_file)\\.cpp$")
list(FILTER small EXCLUDE REGEX "trace_weights")  # which counts
set_source_files_properties(${small} PROPERTIES COMPILE_OPTIONS -Os)

# Headers alone, without the rest of /usr/include, which is another system's.
foreach(library hwy fmt nlohmann)
  find_path(${library}_folder ${library} PATHS /usr/include REQUIRED NO_CMAKE_FIND_ROOT_PATH)
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include)
  file(CREATE_LINK ${${library}_folder}/${library} ${PROJECT_BINARY_DIR}/include/${library} SYMBOLIC)
endforeach()

add_executable(manyheads_wasm ${wasm_sources})
set_target_properties(manyheads_wasm PROPERTIES OUTPUT_NAME manyheads SUFFIX .wasm)
target_include_directories(manyheads_wasm PRIVATE src/base/wasm/include include src)
target_include_directories(manyheads_wasm SYSTEM PRIVATE ${PROJECT_BINARY_DIR}/include)
target_compile_definitions(manyheads_wasm PRIVATE FMT_HEADER_ONLY MANYHEADS_DISABLED_TARGETS=0)
target_compile_options(manyheads_wasm PRIVATE -O2 -msimd128 -fignore-exceptions -ffp-contract=off -fvisibility=hidden
                       -ffunction-sections -fdata-sections)
target_link_options(manyheads_wasm PRIVATE -mexec-model=reactor LINKER:--export=__stack_pointer,-z,stack-size=1048576
                    LINKER:--stack-first,--strip-all,--gc-sections)
