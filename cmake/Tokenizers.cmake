# manyheads_tokenizers: the Rust crate in tokenizers/ as a static library, built by cargo, and its C header.
# Every preset shares one cargo folder: what it holds does not depend on how the C++ side is built.

find_package(Threads REQUIRED)

set(_crate ${PROJECT_SOURCE_DIR}/tokenizers)
set(_target_dir ${PROJECT_SOURCE_DIR}/build/cargo)
set(_optimised "")
if(MANYHEADS_THIS_MACHINE)  # soon built, not for long texts: half the time of cargo's own level
  set(_target_dir ${PROJECT_BINARY_DIR}/cargo)
  set(_optimised CARGO_PROFILE_RELEASE_OPT_LEVEL=1)
endif()
set(_library ${_target_dir}/release/libmanyheads_tokenizers.a)

file(STRINGS ${_crate}/Cargo.toml _rust_needed REGEX "^rust-version")
string(REGEX REPLACE ".*\"(.*)\".*" "\\1" _rust_needed "${_rust_needed}")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${_crate}/Cargo.toml)

# The first cargo that is new enough, looked for where scripts/lib.sh looks.
find_program(_cargo_on_path cargo NO_CACHE)
foreach(_candidate ${_cargo_on_path} $ENV{CARGO_HOME}/bin/cargo $ENV{HOME}/.cargo/bin/cargo /usr/bin/cargo)
  execute_process(COMMAND ${_candidate} --version OUTPUT_VARIABLE _version ERROR_QUIET RESULT_VARIABLE _failed)
  if(_failed EQUAL 0 AND _version MATCHES "^cargo ([0-9.]+)" AND CMAKE_MATCH_1 VERSION_GREATER_EQUAL _rust_needed)
    set(_cargo ${_candidate})
    break()
  endif()
endforeach()
if(NOT _cargo)
  message(FATAL_ERROR
          "cargo ${_rust_needed} or later is needed for the tokenizers (Debian 12: cargo-web and rustc-web)")
endif()
message(STATUS "Tokenizers: ${_cargo}, into ${_target_dir}")

# The touch: cargo leaves the library as it is when only the time of a source has changed.
add_custom_command(
  OUTPUT ${_library}
  COMMAND ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${_target_dir} ${_optimised}
          ${_cargo} build --release --locked --quiet --manifest-path ${_crate}/Cargo.toml
  COMMAND ${CMAKE_COMMAND} -E touch ${_library}
  DEPENDS ${_crate}/Cargo.toml ${_crate}/Cargo.lock ${_crate}/src/lib.rs ${_crate}/src/bounds.rs
  COMMENT "Building the tokenizers with cargo (a minute or two, the first time)"
  VERBATIM)
add_custom_target(manyheads_tokenizers_build DEPENDS ${_library})

add_library(manyheads_tokenizers STATIC IMPORTED GLOBAL)
set_target_properties(manyheads_tokenizers PROPERTIES
  IMPORTED_LOCATION ${_library}
  INTERFACE_INCLUDE_DIRECTORIES ${_crate}/include
  INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
add_dependencies(manyheads_tokenizers manyheads_tokenizers_build)
