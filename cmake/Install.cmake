# cmake --install puts the library, its headers, its CMake package and its pkg-config file in place. Where the program was
# built it installs that too, and the model and the lens as the package's component `lens`.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS manyheads EXPORT manyheads-targets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/manyheads DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        PATTERN model EXCLUDE PATTERN lens EXCLUDE)
install(EXPORT manyheads-targets NAMESPACE manyheads:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/manyheads)
if(TARGET manyheads_program)
  install(TARGETS manyheads_program)
  install(TARGETS manyheads_lens EXPORT manyheads-lens-targets)
  if(BUILD_SHARED_LIBS)
    install(TARGETS manyheads_engine EXPORT manyheads-lens-targets)
  endif()
  install(FILES $<TARGET_FILE:manyheads_tokenizers> DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/manyheads/model ${PROJECT_SOURCE_DIR}/include/manyheads/lens
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/manyheads)
  install(EXPORT manyheads-lens-targets NAMESPACE manyheads:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/manyheads)
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/manyheads-config.cmake.in
                              ${PROJECT_BINARY_DIR}/manyheads-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/manyheads
                              PATH_VARS CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/manyheads-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/manyheads-config.cmake ${PROJECT_BINARY_DIR}/manyheads-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/manyheads)

# The pkg-config file finds the rest from where it lies: --prefix and DESTDIR come after this.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(pc_prefix ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH pc_up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  string(REGEX REPLACE "/$" "" pc_up ${pc_up})
  set(pc_prefix "\${pcfiledir}/${pc_up}")
endif()
foreach(pc_dir LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${pc_dir}}")
    set(pc_${pc_dir} ${CMAKE_INSTALL_${pc_dir}})
  else()
    set(pc_${pc_dir} "\${prefix}/${CMAKE_INSTALL_${pc_dir}}")
  endif()
endforeach()
# What libmanyheads needs is its own matter where it is shared, and every linker's where it is static.
set(pc_needs "-lstdc++ -lm -pthread")
if(BUILD_SHARED_LIBS)
  set(pc_requires "Requires.private: libhwy")
  set(pc_libs "-lmanyheads")
else()
  set(pc_requires "Requires: libhwy")
  set(pc_libs "-lmanyheads ${pc_needs}")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/manyheads.pc.in ${PROJECT_BINARY_DIR}/manyheads.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/manyheads.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
