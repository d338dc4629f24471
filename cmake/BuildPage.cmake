# cmake -DVIEWER=viewer -DNPM=npm -DPAGE=page.html [-DWASM=engine.wasm] -P BuildPage.cmake: installs the locked packages where they
# have changed, and builds the page, with the engine inside where it is given. Every preset shares viewer/: one builds at a time.
file(LOCK ${VIEWER}/../build/viewer.lock GUARD PROCESS TIMEOUT 600)

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${VIEWER} RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(failed)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command} failed in ${VIEWER}:\n${said}")
  endif()
endfunction()

set(installed ${VIEWER}/node_modules/.package-lock.json)
if(NOT EXISTS ${installed} OR ${VIEWER}/package-lock.json IS_NEWER_THAN ${installed})
  run(${NPM} ci --no-audit --no-fund)
  file(TOUCH ${installed})
endif()
set(with_engine "")
if(WASM)
  set(with_engine -- --wasm ${WASM})
endif()
run(${NPM} run build ${with_engine})
file(COPY_FILE ${VIEWER}/dist/page.html ${PAGE})
