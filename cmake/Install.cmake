# cmake --install puts the library, its headers, its CMake package and its pkg-config file in place; the program too
# where it was built.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS manyheads EXPORT manyheads-targets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/manyheads DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT manyheads-targets NAMESPACE manyheads:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/manyheads)
if(TARGET manyheads_program)
  install(TARGETS manyheads_program)
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/manyheads-config.cmake.in
                              ${PROJECT_BINARY_DIR}/manyheads-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/manyheads)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/manyheads-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/manyheads-config.cmake ${PROJECT_BINARY_DIR}/manyheads-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/manyheads)

configure_file(${PROJECT_SOURCE_DIR}/cmake/manyheads.pc.in ${PROJECT_BINARY_DIR}/manyheads.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/manyheads.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
