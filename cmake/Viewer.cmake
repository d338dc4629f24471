# manyheads view: the page that viewer/ builds, put into the program, and the server behind it.
#   MANYHEADS_VIEWER  ON, OFF, or AUTO: where node 18 with npm, zlib and Boost's headers are found
#   MANYHEADS_PAGE    a page that is built already, instead of viewer/; then no node is needed
#   MANYHEADS_WASM    the engine as WebAssembly, to lie in the page: without it there is a server and nothing to export. Empty: what
#                     scripts/wasm has built, where it is there
# Sets MANYHEADS_WITH_VIEWER, and makes the library manyheads_server where that is on.
set(MANYHEADS_VIEWER "AUTO" CACHE STRING "Build manyheads view (needs Boost.Beast, zlib, node and npm): ON, OFF or AUTO")
set_property(CACHE MANYHEADS_VIEWER PROPERTY STRINGS AUTO ON OFF)
set(MANYHEADS_PAGE "" CACHE FILEPATH "The page of manyheads view, built already; empty: viewer/ builds it")
set(MANYHEADS_WASM "" CACHE FILEPATH "The engine as WebAssembly, for pages that nobody serves")
set(_viewer ${PROJECT_SOURCE_DIR}/viewer)

set(_missing "")
find_path(MANYHEADS_BOOST_INCLUDE_DIR boost/beast/http.hpp)
if(NOT MANYHEADS_BOOST_INCLUDE_DIR)
  list(APPEND _missing "Boost's headers (Debian: libboost1.74-dev)")
endif()
find_package(ZLIB QUIET)
if(NOT ZLIB_FOUND)
  list(APPEND _missing "zlib (Debian: zlib1g-dev)")
endif()
if(NOT MANYHEADS_PAGE)
  find_program(MANYHEADS_NODE node)
  find_program(MANYHEADS_NPM npm)
  set(_node_version 0)
  if(MANYHEADS_NODE)
    execute_process(COMMAND ${MANYHEADS_NODE} --version OUTPUT_VARIABLE _node_version ERROR_QUIET)
    string(REGEX REPLACE "^v([0-9.]+).*" "\\1" _node_version "${_node_version}")
  endif()
  if(NOT MANYHEADS_NPM OR NOT _node_version VERSION_GREATER_EQUAL 18)
    list(APPEND _missing "node 18 and npm (Debian: nodejs npm)")
  endif()
endif()

set(MANYHEADS_WITH_VIEWER OFF)
if(MANYHEADS_VIEWER STREQUAL "AUTO" AND _missing)
  list(JOIN _missing ", " _missing)
  message(STATUS "Viewer: left out, for want of ${_missing}")
  return()
elseif(NOT MANYHEADS_VIEWER)
  message(STATUS "Viewer: left out")
  return()
elseif(_missing)
  list(JOIN _missing ", " _missing)
  message(FATAL_ERROR "MANYHEADS_VIEWER needs ${_missing}")
endif()
set(MANYHEADS_WITH_VIEWER ON)

file(GLOB server_sources CONFIGURE_DEPENDS src/server/*.cpp)
add_library(manyheads_server STATIC ${server_sources})
target_include_directories(manyheads_server PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_include_directories(manyheads_server SYSTEM PRIVATE ${MANYHEADS_BOOST_INCLUDE_DIR})
target_compile_definitions(manyheads_server PRIVATE BOOST_ERROR_CODE_HEADER_ONLY BOOST_ASIO_NO_DEPRECATED)
target_link_libraries(manyheads_server
  PUBLIC ${manyheads_engine}
  PRIVATE manyheads_options fmt::fmt-header-only nlohmann_json::nlohmann_json Threads::Threads)

# with_viewer(PROGRAM): gives it the verb's sources, and the page as bytes.
function(with_viewer program)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cli/view/*.cpp)
  target_sources(${program} PRIVATE ${sources})
  target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR}/cli)
  target_compile_definitions(${program} PRIVATE MANYHEADS_VIEWER)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/cli/view/page.cpp PROPERTIES
    COMPILE_DEFINITIONS MANYHEADS_PAGE_FILE="${MANYHEADS_PAGE_FILE}" OBJECT_DEPENDS ${MANYHEADS_PAGE_FILE})
  target_link_libraries(${program} PRIVATE manyheads_server ZLIB::ZLIB)
  if(TARGET manyheads_page)
    add_dependencies(${program} manyheads_page)
  endif()
endfunction()

if(MANYHEADS_PAGE)
  set(MANYHEADS_PAGE_FILE ${MANYHEADS_PAGE})
  message(STATUS "Viewer: the page ${MANYHEADS_PAGE}")
  return()
endif()
set(_wasm "${MANYHEADS_WASM}")
if(NOT _wasm AND EXISTS ${PROJECT_SOURCE_DIR}/build/wasm/manyheads.wasm)
  set(_wasm ${PROJECT_SOURCE_DIR}/build/wasm/manyheads.wasm)
endif()
set(MANYHEADS_PAGE_FILE ${PROJECT_BINARY_DIR}/page.html)
file(GLOB_RECURSE _viewer_sources CONFIGURE_DEPENDS ${_viewer}/src/*)
add_custom_command(
  OUTPUT ${MANYHEADS_PAGE_FILE}
  COMMAND ${CMAKE_COMMAND} -DVIEWER=${_viewer} -DNPM=${MANYHEADS_NPM} -DPAGE=${MANYHEADS_PAGE_FILE}
          -DWASM=${_wasm} -P ${PROJECT_SOURCE_DIR}/cmake/BuildPage.cmake
  DEPENDS ${_viewer_sources} ${_viewer}/package.json ${_viewer}/package-lock.json ${_viewer}/build.mjs
          ${_viewer}/page.html ${_wasm} ${PROJECT_SOURCE_DIR}/cmake/BuildPage.cmake
  COMMENT "Building the page with npm"
  VERBATIM)
# Of its own: it runs beside the compilers.
add_custom_target(manyheads_page DEPENDS ${MANYHEADS_PAGE_FILE})
message(STATUS "Viewer: node ${_node_version}, Boost in ${MANYHEADS_BOOST_INCLUDE_DIR}")
